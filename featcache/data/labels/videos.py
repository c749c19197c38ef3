r"""The videos at hand, measured without decoding, and which of them a label file means by a name.

Label files name videos as the machine did on which they were made: `D:\\rig2\\arena_02.mp4`, `arena_02.seq`,
`arena_02`. What is not the same path is taken and said, what could be several is asked.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Literal
from unicodedata import normalize

from featcache.data.readers.base import UnreadableError
from featcache.data.readers.video.frames import opened
from featcache.data.readers.video.sample_tables import sample_tables

ENDINGS = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".h264", ".h265", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov",
    ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".seq", ".ts", ".webm", ".wmv",
})  # fmt: skip
"""Names that end so are taken for videos, in upper and lower case."""

_OFF = 0.25
"""Of a frame: by how much a time may be off an even rate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """A video at hand."""

    source: str
    """Its path below the folder of videos."""
    n_frames: int
    rate: Fraction
    """Frames a second, on average."""
    width: int = 0
    height: int = 0
    n_uneven: int = 0
    """Frames that are not where that rate would have them."""

    @property
    def seconds(self) -> Fraction:
        """Its length."""
        return self.n_frames / self.rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """What a name leads to."""

    video: Video | None
    how: Literal["same", "other_path", "other_ending", "several", "none"]
    candidates: tuple[str, ...] = ()


def measure(path: Path, source: str) -> Video:
    """Count a video's frames without decoding; nothing of them is kept, so ten hours take the memory of one.

    A plain MP4 file tells by its tables; of any other all packets are read.

    Raises:
        UnreadableError: FFmpeg cannot open it, or it has no frame or no rate.
        OSError: it cannot be read.
    """
    tables = sample_tables(path)
    if tables is None:
        return _measure_packets(path, source)
    n_uneven, begin = 0, None
    tick = tables.time_base * tables.rate
    for times in tables.times():
        begin = times[0] if begin is None else begin
        frames = (times - begin) * float(tick.numerator) / tick.denominator
        n_uneven += int((abs(frames - frames.round()) > _OFF).sum())
    return Video(
        source=source,
        n_frames=tables.n_frames,
        rate=tables.rate,
        width=tables.width,
        height=tables.height,
        n_uneven=n_uneven,
    )


def _measure_packets(path: Path, source: str) -> Video:
    with opened(path) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise UnreadableError("its header names no rate")
        n = n_uneven = 0
        begin: int | None = None
        tick = stream.time_base * rate if stream.time_base else None
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard:
                continue
            n += 1
            if packet.pts is None or tick is None:
                continue
            begin = packet.pts if begin is None else begin
            frame = float((packet.pts - begin) * tick)
            n_uneven += abs(frame - round(frame)) > _OFF
        if not n:
            raise UnreadableError("it has no frame")
        return Video(
            source=source,
            n_frames=n,
            rate=Fraction(rate),
            width=stream.width,
            height=stream.height,
            n_uneven=n_uneven,
        )


class Videos:
    """The videos below a folder, by the names a label file may have for them."""

    def __init__(
        self,
        folder: Path,
        videos: Iterable[Video],
        *,
        broken: Iterable[tuple[str, str]] = (),
        others: Iterable[str] = (),
    ) -> None:
        """Take videos as they were measured.

        Args:
            folder: where they lie.
            videos: their measures.
            broken: paths of files with a video's ending that cannot be read, and why.
            others: paths of files that are no videos by their name.
        """
        self.folder = folder
        self.all = tuple(sorted(videos, key=lambda video: video.source))
        self.broken = tuple(sorted(broken))
        self.others = tuple(sorted(others))
        self._sources: dict[str, list[Video]] = {}
        self._names: dict[str, list[Video]] = {}
        self._stems: dict[str, list[Video]] = {}
        for video in self.all:
            self._sources.setdefault(_key(video.source), []).append(video)
            self._names.setdefault(_key(PurePosixPath(video.source).name), []).append(video)
            self._stems.setdefault(_key(PurePosixPath(video.source).stem), []).append(video)

    def __iter__(self) -> Iterator[Video]:
        return iter(self.all)

    @classmethod
    def below(cls, folder: Path, *, progress: Callable[[int, int], None] | None = None) -> "Videos":
        """Measure all videos below a folder, without hidden folders."""
        sources, others = list[str](), list[str]()
        for parent, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                path = Path(parent, name)
                source = path.relative_to(folder).as_posix()
                (sources if path.suffix.lower() in ENDINGS else others).append(source)
        videos, broken = list[Video](), list[tuple[str, str]]()
        for n, source in enumerate(sources, 1):
            try:
                videos.append(measure(folder / source, source))
            except (OSError, UnreadableError) as problem:
                broken.append((source, str(problem)))
            if progress:
                progress(n, len(sources))
        return cls(folder, videos, broken=broken, others=others)

    def beside(self, path: Path) -> str:
        """A label file's folder as a path below the folder of videos; empty where it lies elsewhere."""
        try:
            below = path.resolve().relative_to(self.folder.resolve())
        except ValueError:
            return ""
        return "" if below.parent == Path() else below.parent.as_posix()

    def find(self, name: str, *, beside: str = "", by_stem: bool = False) -> Match:
        """The video that a label file calls `name`.

        Args:
            name: a path of any machine, a file's name, or one without its ending.
            beside: the label file's folder, below which a relative path is looked for first.
            by_stem: whether the format names videos without their ending, so that it is no surprise.
        """
        path = _plain(name)
        for whole in (f"{beside}/{path}" if beside else path, path):
            same = self._sources.get(_key(whole), [])
            if len(same) == 1:
                return Match(video=same[0], how="same")
        named = PurePosixPath(path)
        named_so = self._names.get(_key(named.name), [])
        how: Literal["same", "other_path", "other_ending"] = "same" if named.name == path else "other_path"
        if not named_so:
            stem = named.stem if named.suffix.lower() in ENDINGS else named.name
            named_so = self._stems.get(_key(stem), [])
            how = "same" if by_stem else "other_ending"
        if len(named_so) > 1:
            near = [video for video in named_so if beside and video.source.startswith(f"{beside}/")]
            named_so = _closest(path, near or named_so)
        if len(named_so) > 1:
            return Match(video=None, how="several", candidates=tuple(v.source for v in named_so))
        return Match(video=named_so[0], how=how) if named_so else Match(video=None, how="none")


def _plain(name: str) -> str:
    path = name.strip().replace("\\", "/").removeprefix("file://")
    return path.removeprefix("./")


def _key(name: str) -> str:
    """The same for one name in any Unicode form and case."""
    return normalize("NFC", name).casefold()


def meant_by(source: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of the names that lead to one video those that mean it, and those that mean others, not at hand.

    `day1/cam.mp4` and `D:/day2/cam.mp4` are two videos, `cam.mp4` is either. Which of two is at hand is told
    where one of them ends as the whole of `source`; where none does, no name is among those that mean it.

    Args:
        source: the video's path below the folder of videos.
        names: of any machine, as a label file has them.
    """
    paths = {name: _plain(name) for name in names}
    longest = max(paths.values(), key=lambda path: path.count("/"), default="")
    if all(_agree(path, longest) for path in paths.values()):
        return list(names), []
    whole = [
        path
        for path in paths.values()
        if _key(path) == _key(source) or ("/" in source and _key(path).endswith("/" + _key(source)))
    ]
    meant = [name for name, path in paths.items() if whole and all(_agree(path, one) for one in whole)]
    return meant, [name for name in names if name not in meant]


def _agree(one: str, other: str) -> bool:
    """Whether two paths are the same as far as both go, upwards from the file; an ending may lack."""
    ones, others = (_key(path).split("/")[::-1] for path in (one, other))
    first, second = PurePosixPath(ones[0]), PurePosixPath(others[0])
    if {first.suffix, second.suffix} <= ENDINGS:
        same = first == second
    else:
        stems = (path.stem if path.suffix in ENDINGS else path.name for path in (first, second))
        same = next(stems) == next(stems)
    return same and all(a == b for a, b in zip(ones[1:], others[1:], strict=False))


def _closest(path: str, videos: list[Video]) -> list[Video]:
    """Those whose folders agree with the named path's over the most levels, from the file upwards."""

    def levels(video: Video) -> int:
        pairs = zip(reversed(path.split("/")), reversed(video.source.split("/")), strict=False)
        n = 0
        for one, other in pairs:
            if _key(one) != _key(other):
                break
            n += 1
        return n

    most = max(levels(video) for video in videos)
    return [video for video in videos if levels(video) == most]
