"""A scientist's own videos: whatever FFmpeg decodes, cut into clips by a rule or by a CSV list.

Frame k is the k-th frame that decoding from the start gives, always. Looking a frame up by its time, as
players do, is off by some frames in many files; here times only serve to start at a nearby keyframe, and
only in files whose packets map one to one onto the decoded frames.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from jaxtyping import Int64, UInt8

from featcache.clips import Clip, ClipIndex
from featcache.data.readers.base import (
    SCAN_THREADS,
    FrameNumbers,
    Progress,
    Scan,
    SkippedClip,
    SplitStatus,
    UnreadableError,
    UnreadableFileError,
    WholeFileError,
    stack_frames,
)
from featcache.data.readers.video.clip_list import read_clip_list
from featcache.errors import CallError, DataError
from featcache.manifest import Dataset, Split

_PIXEL_FORMATS = {1: "gray", 3: "rgb24"}
_NEAR_START = 64
"""Up to this frame, decoding from the start costs less than listing the file's packets."""


class VideoFileReader:
    """One split of a folder of videos; the interface is `base.Reader`."""

    def __init__(self, dataset: Dataset, split: str, data_dir: Path) -> None:
        self._dataset = dataset
        self._split = dataset.split(split)
        self._data_dir = data_dir
        self._sources = _find_videos(self._split, data_dir)
        if not self._sources:
            raise DataError(_none_found(self._split, data_dir))
        self._times: dict[str, FrameTimes | None] = {}

    @staticmethod
    def status(dataset: Dataset, split: str, data_dir: Path) -> SplitStatus:
        """What there is of a split: the videos' names and sizes, and whether the clip list is in order."""
        entry = dataset.split(split)
        sources = _find_videos(entry, data_dir)
        problems, n_clips = ([] if sources else [_none_found(entry, data_dir)]), None
        if entry.clips and sources:
            try:
                n_clips = len(read_clip_list(data_dir / entry.clips, sources, dataset.classes))
            except DataError as problem:
                problems.append(str(problem))
        return SplitStatus(
            files=entry.files,
            n_found=len(sources),
            n_clips=n_clips,
            n_bytes=sum((data_dir / source).stat().st_size for source in sources),
            problems=tuple(problems),
        )

    def files(self) -> tuple[str, ...]:
        """The split's videos, and the list of clips where there is one."""
        return (*self._sources, *([self._split.clips] if self._split.clips else []))

    def scan(self, *, skip_bad: bool = False, progress: Progress | None = None) -> Scan:
        """All clips: in the order of the clip list, or by file name and frame. See `base.Reader.scan`.

        A file that cannot be decoded to its end is an error even with `skip_bad`, which leaves out those
        clips of the list whose first frame does not exist.
        """
        listed = self._listed_clips()
        sources = self._sources if listed is None else list(dict.fromkeys(start.source for start in listed))
        videos = self._measured(sources, progress)
        starts = _cut(videos, self._dataset.clip_every) if listed is None else listed
        inside = [start for start in starts if start.first_frame < videos[start.source].n_frames]
        outside = [start for start in starts if start.first_frame >= videos[start.source].n_frames]
        skipped = tuple(_skipped(start, videos[start.source]) for start in outside)
        if skipped and (not skip_bad or not inside):
            what = f"{outside[0].place}: {skipped[0].reason}"
            way_out = "It is so with every row" if skip_bad else "Or leave such rows out with --skip-bad"
            raise DataError(f"{what}. Correct it. {way_out}.")
        clips = ClipIndex.from_clips(_clip(start, videos[start.source]) for start in inside)
        return Scan(index=clips, skipped=skipped)

    def read(self, clip: Clip, frames: FrameNumbers) -> UInt8[np.ndarray, "F Y X C"]:
        """Decode some frames of a clip. See `base.Reader.read`."""
        try:
            for frame in frames:
                if not 0 <= frame < clip.n_source:
                    raise UnreadableError(f"the clip has {clip.n_source} frames, {frame} is not one of them")
            numbers = [clip.record + int(frame) for frame in frames]
            return stack_frames(self._decode(clip, set(numbers)), numbers)
        except UnreadableError as problem:
            place = f"{self._data_dir / clip.source}, clip from frame {clip.record}"
            raise problem.as_data_error(f"{place}: {problem}. {_WAY_OUT}") from None

    def frame_keys(self, clip: Clip, frames: FrameNumbers) -> list[bytes]:
        """A frame is known by its video's digest and its number there. See `base.FrameKeysReader`."""
        return [
            bytes.fromhex(clip.digest) + (clip.record + int(frame)).to_bytes(8, "little") for frame in frames
        ]

    def targets(self, clip: Clip) -> Mapping[str, np.ndarray]:
        """Nothing: a video holds frames only, and its labels are in the clip list."""
        del clip
        return {}

    def _listed_clips(self) -> list["_Start"] | None:
        if self._split.clips is None:
            return None
        path = self._data_dir / self._split.clips
        rows = read_clip_list(path, self._sources, self._dataset.classes)
        return [_Start(row.source, row.first_frame, row.labels, f"{path}, row {row.row}") for row in rows]

    def _measured(self, sources: Sequence[str], progress: Progress | None) -> dict[str, "_Video"]:
        """Length and digest of each video."""
        videos = dict[str, _Video]()
        with ThreadPoolExecutor(SCAN_THREADS) as pool:
            for source, video in zip(sources, pool.map(self._measure, sources), strict=True):
                videos[source] = video
                if progress:
                    progress(len(videos), len(sources))
        return videos

    def _measure(self, source: str) -> "_Video":
        path = self._data_dir / source
        try:
            with path.open("rb") as file:
                digest = file_digest(file, lambda: blake2b(digest_size=8)).hexdigest()
            return _Video(count_frames(path), digest)
        except (OSError, UnreadableError) as problem:
            raise UnreadableFileError(f"{path}: {problem}. {_WAY_OUT}") from None

    def _decode(self, clip: Clip, numbers: set[int]) -> dict[int, UInt8[np.ndarray, "Y X C"]]:
        """Frames of a video by their numbers in it."""
        path, channels = self._data_dir / clip.source, self._dataset.channels
        if max(numbers) > _NEAR_START:
            if clip.source not in self._times:
                self._times[clip.source] = frame_times(path)
            times = self._times[clip.source]
            if times is not None and len(times.pts) == clip.record + clip.n_source:
                decoded = _decode_from_keyframes(path, times, numbers, channels)
                if decoded.keys() == numbers:
                    return decoded
        return _decode_from_start(path, numbers, channels)


_WAY_OUT = "Copy it again, mend it with `ffmpeg -i broken.mp4 mended.mp4`, or move it out of the data folder."


@dataclass(frozen=True, slots=True)
class _Video:
    n_frames: int
    digest: str


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a clip begins, and which line of which file says so."""

    source: str
    first_frame: int
    labels: tuple[int, ...] = ()
    place: str = ""

    @property
    def id(self) -> str:
        return f"{self.source}/{self.first_frame}"


def _cut(videos: Mapping[str, _Video], clip_every: int | None) -> list[_Start]:
    """A clip every so many frames, or one a video."""
    return [
        _Start(source, first)
        for source, video in videos.items()
        for first in range(0, video.n_frames, clip_every or video.n_frames)
    ]


def _clip(start: _Start, video: _Video) -> Clip:
    return Clip(
        id=start.id,
        source=start.source,
        record=start.first_frame,
        n_source=video.n_frames - start.first_frame,
        labels=start.labels,
        digest=video.digest,
    )


def _skipped(start: _Start, video: _Video) -> SkippedClip:
    reason = f"{start.source} has {video.n_frames} frames, {start.first_frame} is not one of them"
    return SkippedClip(id=start.id, source=start.source, record=start.first_frame, reason=reason)


def _find_videos(split: Split, data_dir: Path) -> tuple[str, ...]:
    """Files below the data folder that match `split.files`, sorted, without hidden ones and the clip list."""
    try:
        paths = [path for path in data_dir.glob(split.files) if path.is_file() and path.name[0] != "."]
        sources = sorted(path.relative_to(data_dir).as_posix() for path in paths)
    except (NotImplementedError, ValueError):
        raise CallError(f"manifest, files: {split.files!r} is not a pattern below the data folder.") from None
    return tuple(source for source in sources if source != split.clips)


def _none_found(split: Split, data_dir: Path) -> str:
    return (
        f"no video matches {split.files!r} below {data_dir}: put the files of {split.name!r} there, correct "
        "`files` in the manifest, or name another data folder (SCIVID_DATA_DIR)."
    )


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """When the frames of a video are shown, and at which of them decoding can start."""

    pts: Int64[np.ndarray, " F"]
    """In the stream's time base, ascending: entry k belongs to frame k."""
    keyframes: Int64[np.ndarray, " K"]
    """Frame numbers, ascending."""

    def number(self, pts: int | None) -> int | None:
        """The frame that is shown at `pts`, if one is."""
        if pts is None:
            return None
        at = int(np.searchsorted(self.pts, pts))
        return at if at < len(self.pts) and self.pts[at] == pts else None

    def runs(self, numbers: set[int]) -> dict[int, set[int]]:
        """Frames by the keyframe to decode them from: the last one at or before each."""
        runs: dict[int, set[int]] = {}
        for number in sorted(numbers):
            before = self.keyframes[self.keyframes <= number]
            runs.setdefault(int(before[-1]) if before.size else 0, set()).add(number)
        return runs


def frame_times(path: Path) -> FrameTimes | None:
    """Read a video's packets without decoding; None where a packet has no time of its own.

    Raises:
        UnreadableError: FFmpeg cannot open the file.
    """
    pts, keys = list[int](), list[bool]()
    with _opened(path) as (container, stream):
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                if packet.pts is None:
                    return None
                pts.append(packet.pts)
                keys.append(packet.is_keyframe)
    times, order = np.unique(np.array(pts, np.int64), return_index=True)
    return FrameTimes(times, np.flatnonzero(np.array(keys, bool)[order])) if len(times) == len(pts) else None


def count_frames(path: Path) -> int:
    """The number of frames that decoding a video gives.

    Raises:
        UnreadableError: FFmpeg cannot decode the file, or it holds fewer frames than its header says.
    """
    n_packets = n_frames = 0
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        for packet in container.demux(stream):
            n_packets += packet.size > 0
            n_frames += len(packet.decode())
        if n_packets < stream.frames:
            raise UnreadableError(f"it is cut short: {n_packets} of the {stream.frames} frames it announces")
    if not n_frames:
        raise UnreadableError("no frame of it can be decoded")
    return n_frames


def _decode_from_start(path: Path, numbers: set[int], channels: int) -> dict[int, UInt8[np.ndarray, "Y X C"]]:
    decoded = dict[int, np.ndarray]()
    with _opened(path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            if number in numbers:
                decoded[number] = _pixels(frame, channels)
            if number == max(numbers):
                return decoded
    # The scan decoded it to its end, and FFmpeg takes many a failure of the disk for the end of a file.
    raise WholeFileError(f"it ends before frame {max(numbers)}; if it had more, scan it again")


def _decode_from_keyframes(
    path: Path, times: FrameTimes, numbers: set[int], channels: int
) -> dict[int, UInt8[np.ndarray, "Y X C"]]:
    """As `_decode_from_start`, but leaves out frames that a seek did not give whole.

    A keyframe counts as one only where it is coded on its own: with H.264's intra refresh a stream claims
    keyframes from which the picture only recovers slowly. Some containers land behind the frame they seek.
    """
    decoded = dict[int, np.ndarray]()
    with _opened(path) as (container, stream):
        for keyframe, run in times.runs(numbers).items():
            container.seek(int(times.pts[keyframe]), stream=stream)
            whole = False
            for frame in container.decode(stream):
                number = times.number(frame.pts)
                whole = whole or (number == keyframe and frame.pict_type == PictureType.I)
                if number in run and whole and not frame.is_corrupt:
                    decoded[number] = _pixels(frame, channels)
                if number is not None and number >= max(run):
                    break
    return decoded


def _pixels(frame: av.VideoFrame, channels: int) -> UInt8[np.ndarray, "Y X C"]:
    pixels: np.ndarray = frame.to_ndarray(format=_PIXEL_FORMATS[channels])
    return pixels if channels == 3 else pixels[..., None]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The file and its first video stream.

    Raises:
        WholeFileError: FFmpeg cannot open it, there is no video in it, or reading on fails in the block.
        UnreadableError: FFmpeg meets what it cannot decode in the block.
    """
    try:
        container = av.open(path, metadata_errors="replace")
    except (av.FFmpegError, OSError) as problem:
        raise WholeFileError(f"FFmpeg cannot open it ({problem})") from None
    with container:
        if not container.streams.video:
            raise WholeFileError("it holds no video")
        try:
            yield container, container.streams.video[0]
        except OSError as problem:
            raise WholeFileError(f"FFmpeg cannot read it ({problem})") from None
        except av.FFmpegError as problem:
            raise UnreadableError(f"FFmpeg cannot decode it ({problem})") from None
