"""What every reader does: list a split's clips once, then give the frames that are asked for.

Sampling, resizing and views are not a reader's business: it turns (clip, frame numbers) into the bytes of
those frames as they were stored, decoded.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int, Int64, UInt8

from featcache.clips import CLIP_SCHEMA, Clip, ClipIndex
from featcache.errors import DataError
from featcache.manifest import Dataset
from featcache.system.row_groups import Spool

Progress = Callable[[int, int], None]
"""Called with (done, total) as a scan goes on, from the thread that called it."""

FrameNumbers = Sequence[int] | Int[np.ndarray, " F"]
"""Numbers of frames in a clip, from 0: as `featcache.data.sampling.frame_indices` gives them, or others."""

Frames = UInt8[np.ndarray, "F Y X C"] | Float32[np.ndarray, "F Y X C"]
"""Decoded images, or fields in the unit they are stored in (`Dataset.pixels` says how to scale them)."""

SCAN_THREADS = 4
"""Reading, hashing and decoding release the interpreter; more threads than this only wait for the disk."""


class UnreadableError(ValueError):
    """Why a piece of a file cannot be read; `named` adds which file, record and frame, and the way out."""


class WholeFileError(UnreadableError):
    """Why nothing of a file can be read, or can be trusted to be what was scanned."""


class UnreadableFileError(DataError):
    """A whole file is missing, cut short, or refused by the disk: never skippable once a scan took it.

    A clip that was skipped stays out of the store. What is wrong with a file is often over in a minute (a
    mount that went away, a quota, a copy that still runs), and would take all of its clips along.
    """


@contextmanager
def named(which: str, way_out: str, or_skip: str = "") -> Iterator[None]:
    """Raise what is wrong with a piece of a file, `which`, as the user is told it.

    Args:
        which: file, record and frame.
        way_out: sentences on what to do.
        or_skip: what else to do where the piece may be skipped, after a space.

    Raises:
        UnreadableFileError: for a `WholeFileError`.
        DataError: for any other `UnreadableError`.
    """
    try:
        yield
    except WholeFileError as problem:
        raise UnreadableFileError(f"{which}: {problem}. {way_out}") from None
    except UnreadableError as problem:
        raise DataError(f"{which}: {problem}. {way_out}{or_skip}") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedClip:
    """A clip that a scan skipped because it cannot be read, and why."""

    id: str
    source: str
    record: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """Every clip of a split in file order, the skipped ones, and what the user should know of the files."""

    index: ClipIndex
    skipped: tuple[SkippedClip, ...] = ()
    notes: tuple[str, ...] = ()
    lenient: bool = False
    """Whether it took parts of broken files, which only `skip_bad` allows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitStatus:
    """The files of one split as they lie on disk."""

    files: str
    """The pattern they were looked for by, below the data folder."""
    n_found: int = 0
    n_expected: int | None = None
    """How many the official release has; None where there is none."""
    n_clips: int | None = None
    """Counted from the files; None where that would mean reading them."""
    n_bytes: int = 0
    problems: tuple[str, ...] = ()
    """Why the split cannot be read: each says what is missing or broken and where to get it."""
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the split can be scanned."""
        return not self.problems


@runtime_checkable
class Reader(Protocol):
    """One split of one data set. Safe to use from several threads, and in forked or spawned workers."""

    def scan(self, *, skip_bad: bool = False, progress: Progress | None = None) -> Scan:
        """Read everything once and list the clips in file order.

        Raises:
            UnreadableFileError: a file cannot be read, `skip_bad` or not.
            DataError: a clip cannot be read, unless `skip_bad`.
        """

    def read(self, clip: Clip, frames: FrameNumbers) -> Frames:
        """Decode the frames with these numbers, in their order, repeats allowed; others are not touched.

        Raises:
            UnreadableFileError: the file cannot be read.
            DataError: the clip, or one of these frames, cannot be decoded; names file, record and frame.
        """

    def targets(self, clip: Clip) -> Mapping[str, np.ndarray]:
        """What the file says of a clip beside its frames and labels, by the manifest's names, as stored.

        Raises:
            UnreadableFileError: the file cannot be read.
            DataError: the clip lacks one of them, or it cannot be decoded; names file, record and feature.
        """

    def frame_keys(self, clip: Clip, frames: FrameNumbers) -> list[bytes]:
        """Sixteen bytes a frame, without decoding: equal for two of a split only where `read` is equal.

        Raises:
            DataError: as `read`, but that the frames' bytes need not be an image.
        """


@runtime_checkable
class FilesReader(Reader, Protocol):
    """A reader whose scan reads whole files, so what it finds is kept as long as they do not change."""

    def files(self) -> Sequence[str]:
        """All that a scan reads, as paths below the data folder."""


@runtime_checkable
class KeepsTargets(Reader, Protocol):
    """A reader whose targets have files of their own, which may change while the clips' stay."""

    def targets_digest(self, sources: Sequence[str]) -> str:
        """A digest of the targets of all clips of these sources."""


@runtime_checkable
class FieldReader(Reader, Protocol):
    """A reader of fields at regular times, whose clips are overlapping windows of one series."""

    @property
    def latitude(self) -> Float32[np.ndarray, " Y"]:
        """Latitude of each row, in degrees, as stored."""

    @property
    def longitude(self) -> Float32[np.ndarray, " X"]:
        """Longitude of each column, in degrees, as stored."""

    def time_steps(self, clip: Clip, frames: FrameNumbers) -> Int64[np.ndarray, " F"]:
        """Where frames of a clip stand in the whole series."""

    def times(self, steps: Int64[np.ndarray, " n"]) -> np.ndarray:
        """The times of positions in the series, datetime64[h]."""

    def fields(self, steps: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n Y X C"]:
        """The fields at positions in the series, in physical units; raises as `read`."""


@runtime_checkable
class ReaderType(Protocol):
    """The class of a reader: made for one split of one data set."""

    def __call__(self, dataset: Dataset, split: str, data_dir: Path) -> Reader:
        """Find the split's files; raises DataError where they are not all there."""

    def status(self, dataset: Dataset, split: str, data_dir: Path) -> SplitStatus:
        """What there is of the split, without reading a clip; never raises for what it finds."""


Block = TypeVar("Block")


def scan_in_blocks(
    blocks: Sequence[Block],
    scan: Callable[[Block], Sequence[Clip | SkippedClip]],
    *,
    n_clips: int,
    progress: Progress | None,
) -> Scan:
    """What `scan` finds in each of `blocks`, `n_clips` in all, in their order; threads take one each."""
    clips, skipped, done = Spool(CLIP_SCHEMA), list[SkippedClip](), 0
    with ThreadPoolExecutor(SCAN_THREADS) as pool:
        for found in pool.map(scan, blocks):
            # A table is a tenth of the clips' size as objects, and there may be a million.
            clips.add(ClipIndex.from_clips(clip for clip in found if isinstance(clip, Clip)).clips)
            skipped += [clip for clip in found if isinstance(clip, SkippedClip)]
            done += len(found)
            if progress:
                progress(done, n_clips)
    return Scan(index=ClipIndex(clips.finish()), skipped=tuple(skipped))


def stack_frames(decoded: Mapping[int, np.ndarray], frames: Sequence[int]) -> Frames:
    """The decoded frames [Y X C] of these numbers as one array, those that repeat repeated.

    Raises:
        UnreadableError: they differ in size.
    """
    sizes = {decoded[frame].shape for frame in frames}
    if len(sizes) != 1:
        raise UnreadableError(f"its frames differ in size: {sorted(size[:2] for size in sizes)}")
    return np.stack([decoded[frame] for frame in frames])
