"""What a trained run says of the clips of a store: a row a clip, without the files it came from."""

from collections.abc import Iterator
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
from readouts.features.splits import split_of
from readouts.predict.tables import ENDINGS, columns_named, write_rows
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
    """Write `clip` (its id), `file`, `first` (of a video the frame that it begins with), and its scores.

    Returns:
        How many clips there are.

    Raises:
        CallError: the run needs more than tokens, or no such table is written.
        StoreError: the store is unfinished, damaged, or of other features than the run learned from.
    """
    if out.suffix not in ENDINGS:
        raise CallError(
            f"--out {out}: of a store there is a row a clip, in {' or '.join(ENDINGS)}; bouts need videos."
        )
    if run.takes_pixels:
        raise CallError(
            f"{run.folder.path} tuned its whole backbone, which takes pixels, and a store has none: name the "
            "videos instead of --store."
        )
    if run.gives["takes"] != "vector":
        raise CallError(f"{run.folder.path} gives {run.gives['takes']}, which are no row of numbers a clip.")
    _refuse_other(run, store)
    split, names = split_of(finished(store), run.reads.layers), columns_named(run.output_names)
    fields = [("clip", pa.string()), ("file", pa.string()), ("first", pa.int64())]
    schema = pa.schema(fields + [(name, pa.float32()) for name in names])
    run = run.to(device)

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
    return split.n_usable


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
