"""Points of a store's clips as a table: where a readout sees those that the clips' targets ask for."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from einops import rearrange

from featcache.errors import CallError
from featcache.system.console import Progress
from readouts.features.batches import Batch, evaluation_batches
from readouts.features.splits import FeatureSplit
from readouts.heads.tracking import as_tracks
from readouts.predict.tables import write_rows
from readouts.predict.track_tables import SEEN
from readouts.tasks.tracking import Tracking
from readouts.training.loaded import TrainedRun

BATCH = 16
_COLUMNS = (
    ("clip", pa.string()), ("file", pa.string()), ("first", pa.int64()), ("shown", pa.int64()),
    ("point", pa.int64()), ("x", pa.float32()), ("y", pa.float32()), ("visible", pa.bool_()),
)  # fmt: skip


def write_split_tracks(
    run: TrainedRun, readout: str, split: FeatureSplit, out: Path, device: torch.device, progress: Progress
) -> None:
    """Write a row a clip, frame and point: shares of width and height, as a store knows no pixels.

    `first` is the frame that the clip begins with, `shown` counts the frames of it that the model sees, and
    `point` the targets' points, from 0.

    Raises:
        CallError: the run is of a task of a user's own file.
        StoreError: the store has no points.
    """
    decided = run.decisions["task"]
    if "n_tracks" not in decided:
        raise CallError(f"{run.folder.path}: a task of your own file does not say what it is asked.")
    of_task = {name: decided[name] for name in ("name", "n_frames", "rows", "n_tracks")}
    task, schema = Tracking(**of_task), pa.schema(list(_COLUMNS))

    def tables() -> Iterator[pa.Table]:
        done = 0
        for batch in evaluation_batches(split, task.select, BATCH, device):
            yield _table(run, readout, split, task, batch, schema)
            done += len(batch.clips)
            progress("predicting", done, split.n_usable)

    write_rows(out, schema, tables())


def _table(
    run: TrainedRun, readout: str, split: FeatureSplit, task: Tracking, batch: Batch, schema: pa.Schema
) -> pa.Table:
    tracks = as_tracks(run(batch.tokens, **task.inputs(batch.targets))[readout])
    asked = rearrange(batch.targets["query_mask"] != 0, "b q 1 -> b 1 q").cpu().numpy()
    clip, shown, point = np.nonzero(np.broadcast_to(asked, tracks.points.shape[:3]))
    xy = tracks.points.cpu().numpy()[clip, shown, point]
    seen = np.full(len(clip), np.nan)
    if tracks.visible is not None:
        seen = tracks.visible.cpu().numpy()[clip, shown, point, 0]
    about = split.store.clip_table.take(batch.clips, "id", "source", "record")
    columns = [
        *(column.take(pa.array(clip)) for column in about.columns), pa.array(shown), pa.array(point),
        pa.array(np.ascontiguousarray(xy[:, 0])), pa.array(np.ascontiguousarray(xy[:, 1])),
        pa.array(seen > SEEN, mask=np.isnan(seen)),
    ]  # fmt: skip
    return pa.table(dict(zip(schema.names, columns, strict=True))).cast(schema)
