"""Targets of tracking: whole tracks of rendered videos, or points that somebody marked in real ones."""

import numpy as np
from jaxtyping import Bool, Float32

from featcache.clips import Clip, ClipIndex
from featcache.data.readers.base import Reader
from featcache.data.readers.video.frame_values import tracks_of_clip
from featcache.data.sampling import frame_indices
from featcache.errors import CallError, DataError
from featcache.extract.job import Extraction
from featcache.extract.targets.base import (
    Arrays,
    Block,
    SplitTargets,
    about,
    clips_of,
    cluster_arrays,
    clusters,
)
from featcache.store.targets import TargetArray

RENDERED_TRACKS = 2_048
"""Tracks of a rendered video of MOVi-E, the one data set with tracks: what is planned with."""

MOST_POINTS = 34
"""Rows of points a video; the reference pads to it, and fails beyond."""

PADDING = -1.0
"""Coordinates of rows without a point."""


def tracking_arrays(job: Extraction, n_clips: int) -> Arrays:
    """The shapes of what `tracking` gives."""
    if not _has_tracks(job):
        return _point_arrays(job, n_clips)
    starts = job.task.starts
    n_frames = job.clip_spec.n_frames if starts is None else starts.span + starts.n_starts - 1
    return _track_arrays(n_clips, n_frames, RENDERED_TRACKS)


def tracking(job: Extraction, index: ClipIndex, reader: Reader) -> SplitTargets:
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
    return SplitTargets(arrays=arrays, parts=about(job, index, reader), blocks=map(row, clips_of(index)))


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
    return arrays | cluster_arrays(job, n_clips)


def _points(job: Extraction, index: ClipIndex, reader: Reader) -> SplitTargets:
    def row(clip: Clip) -> Block:
        found = reader.targets(clip)
        block: dict[str, np.ndarray] = {}
        for points, mask, side in _POINTS:
            xy = _joined(clip, found[f"{side}_x"], found[f"{side}_y"])
            block[points], block[mask] = padded_points(xy)
        return {name: values[None] for name, values in block.items()} | clusters(job, clip, found)

    arrays = _point_arrays(job, len(index))
    return SplitTargets(arrays=arrays, parts=about(job, index, reader), blocks=map(row, clips_of(index)))


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
