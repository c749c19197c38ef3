"""What a task's loss and metric need of each clip, made from what the files say: a builder a kind of task.

Written once a split, a few rows at a time: tracks and fields are larger than memory. Padding, and which hours
belong to a view, are settled here; a window of tracks is cut by stage two, whose view v starts at frame v.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int64

from featcache.clips import Clip, ClipIndex, label_blocks
from featcache.data.readers.base import SCAN_THREADS, FieldReader, KeepsTargets, Reader
from featcache.data.readers.video.frame_values import tracks_of_clip
from featcache.data.sampling import frame_indices
from featcache.errors import CallError, DataError
from featcache.extract.job import Extraction
from featcache.extract.subjects import subject_arrays, subjects_of
from featcache.store.target_writer import write_targets
from featcache.store.targets import CLIP_UNITS, TargetArray
from featcache.system.ahead import map_ahead
from featcache.system.console import Progress

RENDERED_TRACKS = 2_048
"""Tracks of a rendered video of MOVi-E, the one data set with tracks: what is planned with."""

MOST_POINTS = 34
"""Rows of points a video; the reference pads to it, and fails beyond."""

PADDING = -1.0
"""Coordinates of rows without a point."""

FIELDS_AT_ONCE = 8

Block = Mapping[str, np.ndarray]
"""Rows of some target arrays, by name."""

Arrays = dict[str, TargetArray]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitTargets:
    """The targets of one split, as `write_targets` takes them."""

    arrays: Arrays
    parts: Mapping[str, Any]
    """What they depend on beside clips and shapes."""
    blocks: Iterable[Block] = field(default=())
    """The rows of those arrays that have no blocks of their own, in order."""


@dataclass(frozen=True, slots=True)
class TargetBuilder:
    """What one kind of task needs of each clip."""

    arrays: Callable[[Extraction, int], Arrays]
    """The arrays' shapes for so many clips, as far as the manifest tells them: files are not opened."""
    build: Callable[[Extraction, ClipIndex, Reader], SplitTargets]
    """The targets of clips that a reader has; what is large is read when it is written."""


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


def _tracking_arrays(job: Extraction, n_clips: int) -> Arrays:
    if not _has_tracks(job):
        return _point_arrays(job, n_clips)
    starts = job.task.starts
    n_frames = job.clip_spec.n_frames if starts is None else starts.span + starts.n_starts - 1
    return _track_arrays(n_clips, n_frames, RENDERED_TRACKS)


def _tracking(job: Extraction, index: ClipIndex, reader: Reader) -> SplitTargets:
    """Whole tracks of a rendered video, or marked points of a real one, by what the data set holds."""
    return (_tracks if _has_tracks(job) else _points)(job, index, reader)


def _has_tracks(job: Extraction) -> bool:
    if "tracks" in job.dataset.features:
        return True
    if {"start_x", "start_y", "end_x", "end_y"} <= set(job.dataset.features):
        return False
    raise CallError(
        f"manifest, datasets.{job.dataset.name}.features: a tracking task needs {{tracks, visibility}} or "
        "{start_x, start_y, end_x, end_y}."
    )


def _track_arrays(n_clips: int, n_frames: int, n_tracks: int) -> Arrays:
    """`tracks` [clip, frame, track, xy] (x over width, y over height), `visibility` [clip, frame, track]."""
    shape, axes = (n_clips, n_frames, n_tracks), ("clip", "frame", "track")
    return {
        "tracks": TargetArray(shape=(*shape, 2), dtype=np.dtype("<f4"), axes=(*axes, "xy")),
        "visibility": TargetArray(shape=shape, dtype=np.dtype("?"), axes=axes),
    }


def _tracks(job: Extraction, index: ClipIndex, reader: Reader) -> SplitTargets:
    first = _tracks_of(job, index.clip(0), reader)["visibility"].shape

    def row(clip: Clip) -> Block:
        found = _tracks_of(job, clip, reader)
        if found["visibility"].shape != first:
            raise DataError(
                f"{clip.location}: tracks {list(found['tracks'].shape)}, those "
                f"before it {[*first, 2]}: all clips of a split have as many frames and tracks."
            )
        return {name: values[None] for name, values in found.items()}

    arrays = _track_arrays(len(index), *first)
    return SplitTargets(arrays=arrays, parts=_about(job, index, reader), blocks=map(row, _clips(index)))


def _tracks_of(job: Extraction, clip: Clip, reader: Reader) -> Block:
    found = reader.targets(clip)
    if job.task.starts is None:
        found = tracks_of_clip(found, frame_indices(job.clip_spec, clip.n_source))
    tracks, visibility = found["tracks"], found["visibility"]
    if tracks.shape != (*visibility.shape, 2):
        raise DataError(
            f"{clip.location}: tracks {list(tracks.shape)} and visibility "
            f"{list(visibility.shape)} do not belong together: copy the file again."
        )
    return {"tracks": tracks.astype("<f4", copy=False), "visibility": visibility > 0.5}


_POINTS = (("queries", "query_mask", "start"), ("ends", "end_mask", "end"))
"""Name of points, name of their mask, and how the manifest's names of them begin."""


def _point_arrays(job: Extraction, n_clips: int) -> Arrays:
    """`queries` and `ends` [clip, point, xy] padded with -1, `query_mask` and `end_mask` [clip, point]."""
    shape, axes = (n_clips, MOST_POINTS), ("clip", "point")
    arrays: Arrays = {}
    for points, mask, _ in _POINTS:
        arrays[points] = TargetArray(shape=(*shape, 2), dtype=np.dtype("<f4"), axes=(*axes, "xy"))
        arrays[mask] = TargetArray(shape=shape, dtype=np.dtype("?"), axes=axes)
    return arrays | _cluster_arrays(job, n_clips)


def _points(job: Extraction, index: ClipIndex, reader: Reader) -> SplitTargets:
    def row(clip: Clip) -> Block:
        found = reader.targets(clip)
        block: dict[str, np.ndarray] = {}
        for points, mask, side in _POINTS:
            xy = _joined(clip, found[f"{side}_x"], found[f"{side}_y"])
            block[points], block[mask] = padded_points(xy)
        return {name: values[None] for name, values in block.items()} | _clusters(job, clip, found)

    arrays = _point_arrays(job, len(index))
    return SplitTargets(arrays=arrays, parts=_about(job, index, reader), blocks=map(row, _clips(index)))


def _joined(clip: Clip, x: np.ndarray, y: np.ndarray) -> Float32[np.ndarray, "n 2"]:
    if len(x) != len(y) or len(x) > MOST_POINTS:
        raise DataError(
            f"{clip.location}: {len(x)} x and {len(y)} y coordinates of points; as many "
            f"of both, and at most {MOST_POINTS}, can be used."
        )
    return np.stack([x, y], axis=-1).astype("<f4")


def padded_points(
    points: Float32[np.ndarray, "n 2"],
) -> tuple[Float32[np.ndarray, "Q 2"], Bool[np.ndarray, " Q"]]:
    """Points and a mask of `MOST_POINTS` rows, padded with -1 (`_process_points` of the reference)."""
    rows = np.full((MOST_POINTS, 2), PADDING, np.float32)
    rows[: len(points)] = points
    return rows, np.arange(MOST_POINTS) < len(points)


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
    return {"series": array} | _cluster_arrays(job, n_clips)


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
        return {"series": series[np.stack(frames)].astype("<f4")[None]} | _clusters(job, clip, found)

    parts = _about(job, index, reader) | {"clip": job.clip_spec.n_frames, "views": job.views.as_dict()}
    return SplitTargets(arrays=arrays, parts=parts, blocks=map(row, _clips(index)))


def _cluster_arrays(job: Extraction, n_clips: int) -> dict[str, TargetArray]:
    """An array [clip] of each of `CLIP_UNITS` that the data set has."""
    axes, dtype = ("clip",), np.dtype("<i8")
    names = [name for name in CLIP_UNITS if name in job.dataset.features]
    return {name: TargetArray(shape=(n_clips,), dtype=dtype, axes=axes) for name in names}


def _clusters(job: Extraction, clip: Clip, found: Block) -> dict[str, np.ndarray]:
    clusters = {name: found[name] for name in CLIP_UNITS if name in job.dataset.features}
    for name, values in clusters.items():
        if values.shape != (1,) or values.dtype.kind != "i":
            raise DataError(
                f"{clip.location}: {name} is {values.tolist()}, not one whole number: "
                "correct `features` in the manifest."
            )
    return {name: values.astype("<i8") for name, values in clusters.items()}


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
    used = np.stack([reader.time_steps(clip, range(first_used, clip.n_source)) for clip in _clips(index)])
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
    parts = _about(job, index, reader) | ({"region": region} if region else {})
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


def _about(job: Extraction, index: ClipIndex, reader: Reader) -> dict[str, Any]:
    """What targets of any kind depend on beside the clips: which of the records' features they are."""
    dataset = job.dataset
    about = {"kind": job.task.kind, "data_version": dataset.version, "features": dict(dataset.features)}
    if isinstance(reader, KeepsTargets):
        sources = index.column("source").unique().to_pylist()
        about |= {"frames": asdict(job.clip_spec), "values": reader.targets_digest(sources)}
    return about


def _clips(index: ClipIndex) -> Iterator[Clip]:
    return (index.clip(number) for number in range(len(index)))


def _counted(targets: SplitTargets, progress: Callable[[int, int], None]) -> Iterator[Block]:
    done, total = 0, max((array.shape[0] for array in targets.arrays.values() if not array.blocks), default=0)
    for block in targets.blocks:
        done += max(map(len, block.values()))
        progress(done, total)
        yield block


BUILDERS: Mapping[str, TargetBuilder] = {
    "classification": TargetBuilder(_label_arrays, _labels),
    "tracking": TargetBuilder(_tracking_arrays, _tracking),
    "regression": TargetBuilder(_series_arrays, _series),
    "forecast": TargetBuilder(_forecast_arrays, _forecast),
}
"""Kind of task -> what makes its targets."""
