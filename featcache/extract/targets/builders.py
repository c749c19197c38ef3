"""What a task's loss and metric need of each clip, made from what the files say: a builder a kind of task.

Written once a split, a few rows at a time: tracks and fields are larger than memory. Padding, and which hours
belong to a view, are settled here; a window of tracks is cut by stage two, whose view v starts at frame v.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from featcache.clips import Clip, ClipIndex, label_blocks
from featcache.data.readers.base import SCAN_THREADS, FieldReader, Reader
from featcache.data.sampling import frame_indices
from featcache.errors import CallError, DataError
from featcache.extract.job import Extraction
from featcache.extract.targets.base import (
    Arrays,
    Block,
    SplitTargets,
    TargetBuilder,
    about,
    clips_of,
    cluster_arrays,
    clusters,
)
from featcache.extract.targets.subjects import subject_arrays, subjects_of
from featcache.extract.targets.tracking import tracking, tracking_arrays
from featcache.store.target_writer import write_targets
from featcache.store.targets import TargetArray
from featcache.system.ahead import map_ahead
from featcache.system.console import Progress

FIELDS_AT_ONCE = 8


def planned_targets(job: Extraction, n_clips: int) -> Arrays:
    """The target arrays of a split by arithmetic alone, by name; none for a `features` task.

    Raises:
        CallError: the manifest's entries lack what the task's kind needs.
    """
    if job.task.kind == "features":
        return {}
    return BUILDERS[job.task.kind].arrays(job, n_clips) | subject_arrays(job.dataset.subjects, n_clips)


def targets_of(job: Extraction, index: ClipIndex, reader: Reader) -> SplitTargets | None:
    """The targets of a split, of which what is large is read when it is written; None for a `features` task.

    Raises:
        DataError: the first clip's targets are missing or broken; names it.
        CallError: the manifest's task lacks what its kind needs.
    """
    if job.task.kind == "features":
        return None
    targets = BUILDERS[job.task.kind].build(job, index, reader)
    if not job.dataset.subjects:
        return targets
    arrays, parts = subjects_of(index, job.dataset.subjects)
    return replace(targets, arrays=targets.arrays | arrays, parts={**targets.parts, **parts})


def write_split_targets(
    targets: SplitTargets, index: ClipIndex, folder: Path, role: str, progress: Progress
) -> str:
    """Write the targets of a split beside its stores, or find them; returns the group's name.

    Raises:
        DataError: a clip's targets are missing, or of another form than those before; names the clip.
    """
    blocks = _counted(targets, partial(progress, f"writing the targets of {role}"))
    return write_targets(folder, index, targets.arrays, targets.parts, blocks).name


def _label_arrays(job: Extraction, n_clips: int) -> Arrays:
    """`labels` [clip, class], 1 where a clip has the class."""
    shape = (n_clips, len(job.dataset.classes))
    return {"labels": TargetArray(shape=shape, dtype=np.dtype("u1"), axes=("clip", "class"))}


def _labels(job: Extraction, index: ClipIndex, reader: Reader) -> SplitTargets:
    del reader  # the clip index has them
    array = _label_arrays(job, len(index))["labels"]
    labels = replace(array, blocks=_Labels(index, len(job.dataset.classes)))
    parts = {"clips": index.digest, "classes": list(job.dataset.classes)}
    return SplitTargets(arrays={"labels": labels}, parts=parts)


@dataclass(frozen=True, slots=True)
class _Labels:
    """The rows of `labels`, made as they are written; of few clips all are looked at now, for a mistake."""

    index: ClipIndex
    n_classes: int

    def __post_init__(self) -> None:
        if isinstance(self.index.clips, pa.Table):
            deque(self, maxlen=0)

    def __iter__(self) -> Iterator[np.ndarray]:
        return label_blocks(self.index, self.n_classes)


def _series_arrays(job: Extraction, n_clips: int) -> Arrays:
    """`series` [clip, view, hour]: the values of a view's input frames, then of its target frames.

    Or, of a user's own videos, [clip, view, frame]: what the clip's own frames show, or its whole video.
    """
    if "series" not in job.dataset.features:
        raise CallError(f"manifest, datasets.{job.dataset.name}.features: a regression needs `series`.")
    starts, values = job.task.starts, job.dataset.values
    if values is not None and starts is None:
        shape = (n_clips, 1, job.clip_spec.n_frames if values.of == "frame" else 1)
        return {"series": TargetArray(shape=shape, dtype=np.dtype("<f4"), axes=("clip", "view", "frame"))}
    if starts is None or starts.span <= job.task.clip.n_frames:
        raise CallError(
            f"manifest, tasks.{job.task.name}: a regression needs `starts` with a span of input and target "
            f"frames, more than the clip's {job.task.clip.n_frames}."
        )
    shape = (n_clips, job.views.n_views, starts.span)
    array = TargetArray(shape=shape, dtype=np.dtype("<f4"), axes=("clip", "view", "hour"))
    return {"series": array} | cluster_arrays(job, n_clips)


def _series(job: Extraction, index: ClipIndex, reader: Reader) -> SplitTargets:
    arrays = _series_arrays(job, len(index))
    _, n_views, span = arrays["series"].shape
    spec = replace(job.clip_spec, n_frames=span)

    def row(clip: Clip) -> Block:
        found = reader.targets(clip)
        series = found["series"]
        if series.shape == (1,) == (span,):
            return {"series": series.astype("<f4")[None, None]}
        if series.shape != (clip.n_source,):
            raise DataError(
                f"{clip.location}: a series {list(series.shape)} for {clip.n_source} "
                "frames: one value a frame is needed; correct `features` in the manifest."
            )
        n_starts = job.views.views_of(clip.n_source)
        frames = [frame_indices(spec, clip.n_source, view % n_starts) for view in range(n_views)]
        return {"series": series[np.stack(frames)].astype("<f4")[None]} | clusters(job, clip, found)

    parts = about(job, index, reader) | {"clip": job.clip_spec.n_frames, "views": job.views.as_dict()}
    return SplitTargets(arrays=arrays, parts=parts, blocks=map(row, clips_of(index)))


def _forecast_arrays(job: Extraction, n_clips: int) -> Arrays:
    windows, grid = job.dataset.split(job.split).windows, job.dataset.frame_size
    if windows is None or grid is None:
        raise CallError(
            f"manifest, datasets.{job.dataset.name}: fields are counted by `windows` and `frame_size`."
        )
    frames = np.arange(job.clip_spec.n_frames - 1, windows.n_frames)
    hours = np.add.outer(windows.every_hours * np.arange(n_clips), windows.step_hours * frames)
    return _field_arrays(n_clips, len(frames), len(np.unique(hours)), (*grid, job.dataset.channels))


def _forecast(job: Extraction, index: ClipIndex, reader: Reader) -> SplitTargets:
    if not isinstance(reader, FieldReader):
        raise CallError(
            f"manifest, tasks.{job.task.name}: a forecast needs a data set of fields, not {job.dataset.name}."
        )
    first_used = job.clip_spec.n_frames - 1
    used = np.stack([reader.time_steps(clip, range(first_used, clip.n_source)) for clip in clips_of(index)])
    steps = np.unique(used)
    grid = (len(reader.latitude), len(reader.longitude), job.dataset.channels)
    known = {
        "places": np.searchsorted(steps, used).astype("<i4"),
        "time": reader.times(steps).astype("datetime64[h]").astype("<i8"),
        "latitude": reader.latitude.astype("<f4"),
        "longitude": reader.longitude.astype("<f4"),
    }
    arrays = _field_arrays(len(index), used.shape[1], len(steps), grid)
    filled = arrays | {name: replace(arrays[name], blocks=[values]) for name, values in known.items()}
    region = {key: list(ends) for key in ("latitude", "longitude") if (ends := getattr(job.dataset, key))}
    parts = about(job, index, reader) | ({"region": region} if region else {})
    return SplitTargets(arrays=filled, parts=parts, blocks=_fields(reader, steps))


def _field_arrays(n_clips: int, n_leads: int, n_times: int, grid: tuple[int, int, int]) -> Arrays:
    """`fields` [time, row, column, variable] once a time step, and where in them a clip's are.

    `places` [clip, lead] counts along `time`: the last input frame, and the target frames after it. Beside
    them are `time` (hours since 1970), `latitude` and `longitude`. `grid` is (rows, columns, variables).
    """
    rows, columns, _ = grid
    shapes = {
        "fields": ((n_times, *grid), "<f4", ("time", "row", "column", "variable")),
        "places": ((n_clips, n_leads), "<i4", ("clip", "lead")),
        "time": ((n_times,), "<i8", ("time",)),
        "latitude": ((rows,), "<f4", ("row",)),
        "longitude": ((columns,), "<f4", ("column",)),
    }
    return {
        name: TargetArray(shape=shape, dtype=np.dtype(dtype), axes=axes)
        for name, (shape, dtype, axes) in shapes.items()
    }


def _fields(reader: FieldReader, steps: Int64[np.ndarray, " n"]) -> Iterator[Block]:
    blocks = (steps[start : start + FIELDS_AT_ONCE] for start in range(0, len(steps), FIELDS_AT_ONCE))
    with ThreadPoolExecutor(SCAN_THREADS, "fields") as pool:
        # A few blocks ahead: decoding takes ten times as long as writing.
        for _, fields in map_ahead(pool, reader.fields, blocks, window=SCAN_THREADS):
            yield {"fields": fields.result().astype("<f4", copy=False)}


def _counted(targets: SplitTargets, progress: Callable[[int, int], None]) -> Iterator[Block]:
    done, total = 0, max((array.shape[0] for array in targets.arrays.values() if not array.blocks), default=0)
    for block in targets.blocks:
        done += max(map(len, block.values()))
        progress(done, total)
        yield block


BUILDERS: Mapping[str, TargetBuilder] = {
    "classification": TargetBuilder(_label_arrays, _labels),
    "tracking": TargetBuilder(tracking_arrays, tracking),
    "regression": TargetBuilder(_series_arrays, _series),
    "forecast": TargetBuilder(_forecast_arrays, _forecast),
}
"""Kind of task -> what makes its targets."""
