"""Which frames of a split's clips are the same, so that an image model sees each of them once.

Clips are windows of longer videos, shuffled over many files, so that what they share is known by the frames
themselves: by the bytes they are encoded in, or by their position in the video or time series.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from einops import rearrange
from jaxtyping import Int64, UInt8

from featcache.clips import Clip, ClipIndex
from featcache.data.index_cache import FOLDER, reading_code
from featcache.data.readers.base import SCAN_THREADS, Reader
from featcache.data.sampling import frame_indices, repeat_frames
from featcache.extract.job import Extraction
from featcache.extract.pixels.clip_views import ClipViews
from featcache.fingerprint import FEATURE_VERSION, SHORT, fingerprint
from featcache.store.rows import KEY_BYTES, FrameTable
from featcache.system.console import Progress
from featcache.system.files import keep
from featcache.system.sealed import parquet_sealed, read_parquet

PAYS = 0.5
"""Frames are stored once if these are at most so large a share of all that the model would see otherwise."""

MADE_FROM = b"made_from"
"""In the metadata of a table that is kept, the digest of all that it depends on."""

_BLOCK = 128
"""Clips whose frames are looked at before progress is told."""


def shared_frames(
    job: Extraction, index: ClipIndex, reader: Reader, *, cache_dir: Path, progress: Progress
) -> FrameTable | None:
    """The distinct frames of a split, where the model may see each by itself and storing them once pays.

    What was found is kept below the cache folder: for the official records it takes reading all of them.

    Raises:
        DataError: a record cannot be read.
    """
    if job.frame_steps is None:
        return None
    shape = len(index), job.views.n_views, len(job.frame_steps)
    made_from = _made_from(job, index)
    path = cache_dir / FOLDER / f"{job.dataset.name}-{job.split}-frames-{made_from[:SHORT]}.parquet"
    table = _kept(path, made_from, shape)
    if table is None:
        table = FrameTable.of_keys(_keys(job, index, reader, progress))
        keep(path, _to_bytes(table, made_from), what="the table of distinct frames")
    return table if pays(job, table.n_frames, len(index)) else None


def pays(job: Extraction, n_frames: int, n_clips: int) -> bool:
    """Whether so many distinct frames are worth the reading of a clip frame by frame."""
    return n_frames <= PAYS * n_clips * job.views.n_views * job.backbone.info.n_frames


def fewest_known(job: Extraction, n_clips: int) -> int | None:
    """Distinct frames of clips that share none with each other, by arithmetic; None as `shared_frames`."""
    if job.frame_steps is None:
        return None
    spec, starts = job.clip_spec, range(job.views.n_views)
    n_source = spec.n_frames * spec.stride + len(starts) - 1
    frames = np.stack([frame_indices(spec, n_source, start) for start in starts])
    n_frames = n_clips * len(np.unique(_of_steps(job, frames)))
    return n_frames if pays(job, n_frames, n_clips) else None


def source_frames(views: ClipViews, clip: Clip) -> Int64[np.ndarray, "view step"]:
    """The clip's frame that each stored step of each view is of; views beyond its starts repeat them."""
    plan = views.job.views
    n_distinct = plan.views_of(clip.n_source)
    frames = _of_steps(views.job, views.frames(clip, n_distinct))
    return frames[np.arange(plan.n_views) % n_distinct]


def _of_steps(job: Extraction, frames: np.ndarray) -> Int64[np.ndarray, "view step"]:
    """The frames [view, frame] of a clip that the stored steps are of, after it was stretched in time."""
    assert job.frame_steps is not None
    return frames[:, repeat_frames(job.clip_spec.n_frames)][:, list(job.frame_steps)].astype(np.int64)


def _keys(
    job: Extraction, index: ClipIndex, reader: Reader, progress: Progress
) -> UInt8[np.ndarray, "clip view step key"]:
    views = ClipViews(job, reader)

    def of_block(clips: range) -> list[np.ndarray]:
        return [_clip_keys(views, reader, index.clip(number)) for number in clips]

    blocks = [range(len(index))[start : start + _BLOCK] for start in range(0, len(index), _BLOCK)]
    keys: list[np.ndarray] = []
    with ThreadPoolExecutor(SCAN_THREADS, "frame keys") as pool:
        for found in pool.map(of_block, blocks):
            keys += found
            progress(f"looking for frames that clips of {job.role} share", len(keys), len(index))
    return np.stack(keys)


def _clip_keys(views: ClipViews, reader: Reader, clip: Clip) -> UInt8[np.ndarray, "view step key"]:
    numbers = source_frames(views, clip)
    frames = np.unique(numbers)
    keys = np.frombuffer(b"".join(reader.frame_keys(clip, frames.tolist())), np.uint8)
    of_frame = rearrange(keys, "(frame key) -> frame key", key=KEY_BYTES)
    return np.asarray(of_frame[np.searchsorted(frames, numbers)])


def _made_from(job: Extraction, index: ClipIndex) -> str:
    """The digest of all that the table depends on: the records' bytes, which frames are sampled, the code."""
    parts: dict[str, Any] = {
        "version": FEATURE_VERSION,
        "code": reading_code(),
        "index": index.frames_digest,
        "clip": asdict(job.clip_spec),
        "shuffled": job.shuffle_frames,
        "starts": None if job.views.starts is None else asdict(job.views.starts),
        "n_views": job.views.n_views,
        "steps": list(job.frame_steps or ()),
        "decoding": job.dataset.features,
    }
    return fingerprint(parts)


def _to_bytes(table: FrameTable, made_from: str) -> bytes:
    """The table as Parquet, sealed: a number for each clip, view and step, in this order."""
    return parquet_sealed(pa.table({"frame": table.numbers.ravel()}, metadata={MADE_FROM: made_from}))


def _kept(path: Path, made_from: str, shape: tuple[int, int, int]) -> FrameTable | None:
    """A table that was kept, is whole and was made from the same; for want of one, frames are looked at."""
    try:
        table = read_parquet(path, required=True)
        if (table.schema.metadata or {}).get(MADE_FROM) != made_from.encode():
            return None
        return FrameTable(table.column("frame").to_numpy().reshape(shape))
    except (OSError, ValueError, KeyError):
        return None
