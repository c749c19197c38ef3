"""A scientist's own videos, cut into clips by a rule or by a CSV list: the interface of `base.Reader`."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

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
    named,
    stack_frames,
)
from featcache.data.readers.video.clip_list import ClipStart, read_clip_list
from featcache.data.readers.video.frames import FrameTimes, count_frames, decode_frames, frame_times
from featcache.errors import CallError, DataError
from featcache.manifest import Dataset, Split

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
        notes: tuple[str, ...] = ()
        if entry.clips and sources:
            try:
                found = read_clip_list(data_dir / entry.clips, sources, dataset.classes)
                n_clips, notes = len(found.clips), found.notes
            except DataError as problem:
                problems.append(str(problem))
        return SplitStatus(
            files=entry.files,
            n_found=len(sources),
            n_clips=n_clips,
            n_bytes=sum((data_dir / source).stat().st_size for source in sources),
            problems=tuple(problems),
            notes=notes,
        )

    def files(self) -> tuple[str, ...]:
        """The split's videos, and the list of clips where there is one."""
        return (*self._sources, *([self._split.clips] if self._split.clips else []))

    def scan(self, *, skip_bad: bool = False, progress: Progress | None = None) -> Scan:
        """All clips: in the order of the clip list, or by file name and frame. See `base.Reader.scan`.

        A file that cannot be decoded to its end is an error even with `skip_bad`, which leaves out those
        clips of the list whose first frame does not exist.
        """
        listed: tuple[ClipStart, ...] | None = None
        notes: tuple[str, ...] = ()
        if self._split.clips is not None:
            found = read_clip_list(self._data_dir / self._split.clips, self._sources, self._dataset.classes)
            listed, notes = found.clips, found.notes
        sources = self._sources if listed is None else list(dict.fromkeys(start.source for start in listed))
        videos = self._measured(sources, progress)
        starts = _cut(videos, self._dataset.clip_every) if listed is None else listed
        inside = [start for start in starts if start.first_frame < videos[start.source].n_frames]
        outside = [start for start in starts if start.first_frame >= videos[start.source].n_frames]
        skipped = tuple(_skipped(start, videos[start.source]) for start in outside)
        if skipped and (not skip_bad or not inside):
            what = f"{self._data_dir}/{self._split.clips}, row {outside[0].row}: {skipped[0].reason}"
            way_out = "It is so with every row" if skip_bad else "Or leave such rows out with --skip-bad"
            raise DataError(f"{what}. Correct it. {way_out}.")
        clips = ClipIndex.from_clips(_clip(start, videos[start.source]) for start in inside)
        return Scan(index=clips, skipped=skipped, notes=notes)

    def read(self, clip: Clip, frames: FrameNumbers) -> UInt8[np.ndarray, "F Y X C"]:
        """Decode some frames of a clip. See `base.Reader.read`."""
        path, channels = self._data_dir / clip.source, self._dataset.channels
        with named(f"{path}, clip from frame {clip.record}", _WAY_OUT):
            for frame in frames:
                if not 0 <= frame < clip.n_source:
                    raise UnreadableError(f"the clip has {clip.n_source} frames, {frame} is not one of them")
            numbers = [clip.record + int(frame) for frame in frames]
            times = self._times_of(clip) if max(numbers) > _NEAR_START else None
            return stack_frames(decode_frames(path, set(numbers), channels, times), numbers)

    def frame_keys(self, clip: Clip, frames: FrameNumbers) -> list[bytes]:
        """A frame is known by its video's digest and its number there. See `base.Reader`."""
        return [
            bytes.fromhex(clip.digest) + (clip.record + int(frame)).to_bytes(8, "little") for frame in frames
        ]

    def targets(self, clip: Clip) -> Mapping[str, np.ndarray]:
        """Nothing: a video holds frames only, and its labels are in the clip list."""
        del clip
        return {}

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

    def _times_of(self, clip: Clip) -> FrameTimes | None:
        """When the frames of the clip's video are shown; None where that would not find them exactly."""
        if clip.source not in self._times:
            self._times[clip.source] = frame_times(self._data_dir / clip.source)
        times = self._times[clip.source]
        return times if times is not None and len(times.pts) == clip.record + clip.n_source else None


_WAY_OUT = "Copy it again, mend it with `ffmpeg -i broken.mp4 mended.mp4`, or move it out of the data folder."


@dataclass(frozen=True, slots=True)
class _Video:
    n_frames: int
    digest: str


def _cut(videos: Mapping[str, _Video], clip_every: int | None) -> list[ClipStart]:
    """A clip every so many frames, or one a video."""
    return [
        ClipStart(source=source, first_frame=first)
        for source, video in videos.items()
        for first in range(0, video.n_frames, clip_every or video.n_frames)
    ]


def _clip(start: ClipStart, video: _Video) -> Clip:
    return Clip(
        id=start.id,
        source=start.source,
        record=start.first_frame,
        n_source=video.n_frames - start.first_frame,
        labels=start.labels,
        digest=video.digest,
    )


def _skipped(start: ClipStart, video: _Video) -> SkippedClip:
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
