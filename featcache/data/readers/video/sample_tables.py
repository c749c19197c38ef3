"""What an MP4 or QuickTime file says of its video's frames, read from its tables alone.

FFmpeg keeps an entry of every frame of an open file, and packets come with all their bytes. Of a plain file
both are not needed to count frames and to know when they are shown: boxes as in ISO/IEC 14496-12, chapter 8.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int64

_CODECS = frozenset((b"av01", b"avc1", b"avc3", b"hev1", b"hvc1", b"mp4v", b"vp09"))
"""Of which FFmpeg can decode what its box describes, of the size that is there."""
_AT_ONCE = 2**15
"""Entries of a table that are in memory."""
_MOST = 2**31 - 1
"""What FFmpeg's fractions hold."""
_INSIDE = (b"trak", b"mdia", b"minf", b"stbl", b"edts")

_Place = tuple[int, int]
"""Where a box's content begins and ends."""


class _OddError(ValueError):
    """The file is not one of those that can be read so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleTables:
    """The only video of a file, every sample of which is a frame that is shown."""

    path: Path
    n_frames: int
    rate: Fraction
    """Frames a second on average, as FFmpeg rounds it."""
    time_base: Fraction
    """Seconds a unit of times."""
    width: int
    height: int
    durations: _Place
    offsets: _Place | None

    def times(self) -> Iterator[Int64[np.ndarray, " n"]]:
        """When frames are shown, in the order of the file, some thousands at a time."""
        with self.path.open("rb") as file:
            durations = _Runs(file, self.durations)
            offsets = None if self.offsets is None else _Runs(file, self.offsets)
            now = 0
            for first in range(0, self.n_frames, _AT_ONCE):
                n = min(_AT_ONCE, self.n_frames - first)
                steps = durations.take(n)
                decoded = now + np.concatenate(([0], np.cumsum(steps)))
                now = int(decoded[-1])
                yield decoded[:-1] if offsets is None else decoded[:-1] + offsets.take(n)


def sample_tables(path: Path) -> SampleTables | None:
    """The tables of a plain file: one video, whole, no fragments, nothing cut out by an edit list.

    Returns:
        None of any other file: FFmpeg has to say what is in it.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _tables(path, file, path.stat().st_size)
    except (KeyError, ValueError, ZeroDivisionError, struct.error):
        return None  # a box is missing, odd or cut off


def _tables(path: Path, file: BinaryIO, size: int) -> SampleTables:
    top = dict(_boxes(file, (0, size)))
    movie = list(_boxes(file, top[b"moov"]))
    tracks = (_track(file, place) for kind, place in movie if kind == b"trak")
    videos = [track for track in tracks if track is not None]
    if len(videos) != 1 or b"moof" in top or any(kind == b"mvex" for kind, _ in movie):
        raise _OddError
    (video,) = videos
    codec, width, height = _description(file, video)
    (unit,) = _numbers(file, _after_times(file, video[b"mdhd"]), ">I")
    n_frames, duration = _Runs(file, video[b"stts"]).totals(least=0)
    if codec not in _CODECS or not (width and height and unit and duration and n_frames):
        raise _OddError
    _check_samples(file, video, n_frames, size)
    found = SampleTables(
        path=path,
        n_frames=n_frames,
        rate=_rounded(Fraction(unit * n_frames, duration)),
        time_base=Fraction(1, unit),
        width=width,
        height=height,
        durations=video[b"stts"],
        offsets=video.get(b"ctts"),
    )
    if (edit := video.get(b"elst")) is not None:
        (per_second,) = _numbers(file, _after_times(file, dict(movie)[b"mvhd"]), ">I")
        _check_edit(file, edit, found, Fraction(unit, per_second))
    return found


def _boxes(file: BinaryIO, place: _Place) -> Iterator[tuple[bytes, _Place]]:
    """The boxes one after the other in a place, all of them whole."""
    position, end = place
    while position < end:
        length, kind = _numbers(file, position, ">I4s")
        head = 8
        if length == 1:
            (length,), head = _numbers(file, position + 8, ">Q"), 16
        elif length == 0 and kind == b"mdat":
            length = end - position
        if length < head or position + length > end:
            raise _OddError
        yield kind, (position + head, position + length)
        position += length


def _track(file: BinaryIO, place: _Place) -> dict[bytes, _Place] | None:
    """The boxes in a track that can be read so, by their names; None if it is no video."""
    found, open_boxes = dict[bytes, _Place](), [place]
    while open_boxes:
        for kind, at in _boxes(file, open_boxes.pop()):
            if kind in _INSIDE:
                open_boxes.append(at)
            elif kind == b"hdlr" and kind in found:
                continue  # QuickTime has a second one, of the data
            else:
                found[kind] = at
    if b"hdlr" not in found or _numbers(file, found[b"hdlr"][0] + 8, ">4s") != (b"vide",):
        return None
    return found


def _description(file: BinaryIO, video: dict[bytes, _Place]) -> tuple[bytes, int, int]:
    """Codec, width and height, where all samples have one description and are shown of that size."""
    (n,) = _numbers(file, video[b"stsd"][0] + 4, ">I")
    _, codec = _numbers(file, video[b"stsd"][0] + 8, ">I4s")
    width, height = _numbers(file, video[b"stsd"][0] + 40, ">HH")
    if n != 1 or _numbers(file, video[b"tkhd"][1] - 8, ">II") != (width << 16, height << 16):
        raise _OddError
    return codec, width, height


def _check_samples(file: BinaryIO, video: dict[bytes, _Place], n_frames: int, size: int) -> None:
    """Refuse samples of no bytes, or that are not all in the file."""
    place = video[b"stsz"]
    each, n = _numbers(file, place[0] + 4, ">II")
    n_bytes = each * n
    for sizes in _entries(file, (place[0] + 12, place[1]), 0 if each else n, ">u4"):
        n_bytes += int(sizes.sum(dtype=np.int64)) if sizes.all() else size + 1
    kind, dtype = (b"co64", ">u8") if b"co64" in video else (b"stco", ">u4")
    place = video[kind]
    (n_chunks,) = _numbers(file, place[0] + 4, ">I")
    begin = max(int(some.max()) for some in _entries(file, (place[0] + 8, place[1]), n_chunks, dtype))
    if n != n_frames or max(n_bytes, begin) >= size:
        raise _OddError
    if b"ctts" in video and _Runs(file, video[b"ctts"]).totals(least=-_MOST)[0] != n_frames:
        raise _OddError


def _check_edit(file: BinaryIO, place: _Place, tables: SampleTables, units: Fraction) -> None:
    """Refuse an edit list that leaves out a frame, shows one twice or waits before the first.

    Args:
        file: to read it from.
        place: of the list.
        tables: of all samples.
        units: of the video's time for one of the movie's, in which lists count.
    """
    version, n = _numbers(file, place[0], ">B3xI")
    if n != 1:
        raise _OddError
    duration, begin, speed = _numbers(file, place[0] + 8, ">QqI" if version == 1 else ">IiI")
    if begin < 0 or speed != 2**16:
        raise _OddError
    end = begin + int(duration * units) if duration else None
    for times in tables.times():
        if times.min() < begin or (end is not None and times.max() >= end):
            raise _OddError


def _after_times(file: BinaryIO, place: _Place) -> int:
    """Where a header has its units a second, behind when it was made and changed."""
    (version,) = _numbers(file, place[0], ">B")
    return place[0] + (20 if version == 1 else 12)


def _rounded(rate: Fraction) -> Fraction:
    """As a fraction of two signed integers of 32 bits."""
    return 1 / (1 / rate).limit_denominator(_MOST) if rate > 1 else rate.limit_denominator(_MOST)


class _Runs:
    """A table that says a value and of how many samples it is."""

    def __init__(self, file: BinaryIO, place: _Place) -> None:
        (n,) = _numbers(file, place[0] + 4, ">I")
        self._blocks = _entries(file, (place[0] + 8, place[1]), n, np.dtype((">i4", 2)))
        self._left = np.zeros((0, 2), np.int64)

    def totals(self, least: int) -> tuple[int, int]:
        """How many samples it is of, and the sum of their values, none below `least`; instead of `take`."""
        n = total = 0
        for block in self._blocks:
            counts, values = block.astype(np.int64).T
            if counts.min() < 0 or values.min() < least:
                raise _OddError
            n, total = n + int(counts.sum()), total + int(counts @ values)
        return n, total

    def take(self, n: int) -> Int64[np.ndarray, " n"]:
        """The values of the next `n` samples."""
        taken = [np.zeros(0, np.int64)]
        while n:
            if not len(self._left):
                if (block := next(self._blocks, None)) is None:
                    raise _OddError
                self._left = block.astype(np.int64)
            counts, values = self._left.T
            before = np.cumsum(counts) - counts
            ours = np.clip(n - before, 0, counts)
            taken.append(np.repeat(values, ours))
            n -= int(ours.sum())
            counts -= ours
            self._left = self._left[counts > 0]
        return np.concatenate(taken)


def _entries(file: BinaryIO, place: _Place, n: int, dtype: "np.typing.DTypeLike") -> Iterator[np.ndarray]:
    """Entries of a table, some thousands at a time, as they are in the file."""
    of_one = np.dtype(dtype)
    if n * of_one.itemsize > place[1] - place[0]:
        raise _OddError
    for first in range(0, n, _AT_ONCE):
        file.seek(place[0] + first * of_one.itemsize)
        n_bytes = min(_AT_ONCE, n - first) * of_one.itemsize
        yield np.frombuffer(file.read(n_bytes), of_one)


def _numbers(file: BinaryIO, position: int, form: str) -> tuple[Any, ...]:
    """What stands at a place of the file; struct.error behind its end."""
    file.seek(position)
    return struct.unpack(form, file.read(struct.calcsize(form)))
