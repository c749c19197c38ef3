"""What a trained run says of the clips of a store, without the files it came from: tables, or fields."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from featcache.errors import CallError, StoreError, listed
from featcache.fingerprint import differences
from featcache.store.feature_store import FeatureStore, finished
from featcache.store.matching import OF_THE_SPLIT
from featcache.system.console import Progress
from readouts.features.batches import evaluation_batches
from readouts.features.splits import FeatureSplit, split_of
from readouts.predict import forecasts, tables
from readouts.predict.forecasts import write_forecasts
from readouts.predict.split_tracks import write_split_tracks
from readouts.predict.tables import columns_named, write_rows
from readouts.training.loaded import TrainedRun

BATCH = 64


def predict_split(
    run: TrainedRun,
    readout: str,
    store: FeatureStore,
    out: Path,
    *,
    device: torch.device,
    progress: Progress,
) -> int:
    """Write what the readout says of each clip, in the form of the run's kind.

    Returns:
        How many clips there are.

    Raises:
        CallError: the run takes pixels, or no such file is written.
        StoreError: the store is unfinished, damaged, or of other features than the run learned from.
    """
    what, endings, write = WRITERS[run.gives["takes"]]
    if out.suffix not in endings:
        raise CallError(
            f"--out {out}: of a store there {what}: name a file that ends in one of {', '.join(endings)}."
        )
    if run.takes_pixels:
        raise CallError(
            f"{run.folder.path} tuned its whole backbone, which takes pixels, and a store has none: name the "
            "videos instead of --store."
        )
    _refuse_other(run, store)
    split = split_of(finished(store), run.reads.layers)
    write(run.to(device), readout, split, out, device, progress)
    return split.n_usable


def write_numbers(
    run: TrainedRun, readout: str, split: FeatureSplit, out: Path, device: torch.device, progress: Progress
) -> None:
    """Write `clip` (its id), `file`, `first` (of a video the frame that it begins with), and its scores."""
    names = columns_named(run.output_names)
    fields = [("clip", pa.string()), ("file", pa.string()), ("first", pa.int64())]
    schema = pa.schema(fields + [(name, pa.float32()) for name in names])

    def rows() -> Iterator[pa.Table]:
        done = 0
        for batch in evaluation_batches(split, lambda *_: {}, BATCH, device):
            scores = run.answers(run(batch.tokens)[readout]).cpu().numpy()
            about = split.store.clip_table.take(batch.clips, "id", "source", "record")
            columns = [*about.columns, *(np.ascontiguousarray(column) for column in scores.T)]
            done += len(batch.clips)
            progress("predicting", done, split.n_usable)
            yield pa.table(dict(zip(schema.names, columns, strict=True))).cast(schema)

    write_rows(out, schema, rows())


Write = Callable[[TrainedRun, str, FeatureSplit, Path, torch.device, Progress], None]

WRITERS: Mapping[str, tuple[str, tuple[str, ...], Write]] = {
    "vector": ("is a row a clip, and bouts need videos", tables.ENDINGS, write_numbers),
    "tracks": ("is a row a clip, frame and point", tables.ENDINGS, write_split_tracks),
    "fields": ("are fields a clip", forecasts.ENDINGS, write_forecasts),
}
"""What a run gives -> what of it is written of a store, in which files, by whom."""


def _refuse_other(run: TrainedRun, store: FeatureStore) -> None:
    ours, theirs = (
        {name: part for name, part in of.items() if name not in OF_THE_SPLIT}
        for of in (run.reads.parts, store.parts)
    )
    if unlike := differences(ours, theirs):
        raise StoreError(
            f"{store.path} holds other features than those that {run.folder.path} learned from:\n"
            f"{listed(unlike)}\n(here: the run; asked for: the store.)"
        )
