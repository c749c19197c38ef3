"""A scientist's own videos, cut into clips by a rule or by a CSV list: the interface of `base.Reader`."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
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
from featcache.data.readers.video.forward import OpenVideos
from featcache.data.readers.video.frame_values import digest_of, read_values
from featcache.data.readers.video.frames import FrameTimes, decode_from_keyframes, frame_times
from featcache.data.readers.video.survey import Survey, survey
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
        self._sources = find_videos(self._split, data_dir)
        if not self._sources:
            raise DataError(_none_found(self._split, data_dir))
        self._others = _other_case(self._split, data_dir, self._sources)
        self._times: dict[str, FrameTimes | None] = {}
        self._open = OpenVideos()

    @staticmethod
    def status(dataset: Dataset, split: str, data_dir: Path) -> SplitStatus:
        """What there is of a split: the videos' names and sizes, and whether the clip list is in order."""
        entry = dataset.split(split)
        sources = find_videos(entry, data_dir)
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
            notes=(*_left_out(entry, _other_case(entry, data_dir, sources)), *notes),
        )

    def files(self) -> tuple[str, ...]:
        """The split's videos, the list of clips where there is one, and files that are noted as left out."""
        return (*self._sources, *([self._split.clips] if self._split.clips else []), *self._others)

    def scan(self, *, skip_bad: bool = False, progress: Progress | None = None) -> Scan:
        """All clips: in the order of the clip list, or by file name and frame. See `base.Reader.scan`.

        Of a video that is not whole `skip_bad` takes what frames there are, and it leaves out those clips of
        the list whose first frame does not exist; both are noted. A file without a frame is always an error.
        """
        listed: tuple[ClipStart, ...] | None = None
        notes: tuple[str, ...] = ()
        if self._split.clips is not None:
            found = read_clip_list(self._data_dir / self._split.clips, self._sources, self._dataset.classes)
            listed, notes = found.clips, found.notes
        sources = self._sources if listed is None else list(dict.fromkeys(start.source for start in listed))
        videos = self._measured(sources, skip_bad, progress)
        starts = _cut(videos, self._dataset.clip_every) if listed is None else listed
        inside = [start for start in starts if start.first_frame < videos[start.source].n_frames]
        outside = [start for start in starts if start.first_frame >= videos[start.source].n_frames]
        skipped = tuple(_skipped(start, videos[start.source]) for start in outside)
        if skipped and (not skip_bad or not inside):
            what = f"{self._data_dir}/{self._split.clips}, row {outside[0].row}: {skipped[0].reason}"
            way_out = "It is so with every row" if skip_bad else "Or leave such rows out with --skip-bad"
            raise DataError(f"{what}. Correct it. {way_out}.")
        clips = ClipIndex.from_clips(_clip(start, videos[start.source]) for start in inside)
        of_videos = [f"{source}: {remark}" for source in sources for remark in videos[source].remarks]
        return Scan(
            index=clips,
            skipped=skipped,
            notes=(*_left_out(self._split, self._others), *notes, *of_videos),
            lenient=any(video.lost for video in videos.values()),
        )

    def read(self, clip: Clip, frames: FrameNumbers) -> UInt8[np.ndarray, "F Y X C"]:
        """Decode some frames of a clip. See `base.Reader.read`."""
        path = self._data_dir / clip.source
        with named(f"{path}, clip from frame {clip.record}", _WAY_OUT):
            for frame in frames:
                if not 0 <= frame < clip.n_source:
                    raise UnreadableError(f"the clip has {clip.n_source} frames, {frame} is not one of them")
            numbers = [clip.record + int(frame) for frame in frames]
            return stack_frames(self._decoded(clip, path, set(numbers)), numbers)

    def frame_keys(self, clip: Clip, frames: FrameNumbers) -> list[bytes]:
        """A frame is known by its video's digest and its number there. See `base.Reader`."""
        return [
            bytes.fromhex(clip.digest) + (clip.record + int(frame)).to_bytes(8, "little") for frame in frames
        ]

    def targets(self, clip: Clip) -> Mapping[str, np.ndarray]:
        """What is known of the frames from the clip's first on; nothing where there are but labels."""
        return read_values(self._data_dir, clip, self._dataset.features)

    def targets_digest(self, sources: Sequence[str]) -> str:
        """See `base.KeepsTargets`."""
        return digest_of(self._data_dir, sources, self._dataset.features.values())

    def _decoded(self, clip: Clip, path: Path, numbers: set[int]) -> dict[int, UInt8[np.ndarray, "Y X C"]]:
        unmapped, found = clip.digest.endswith(UNMAPPED), dict[int, np.ndarray]()
        near = max(numbers) <= _NEAR_START
        times = None if unmapped or near else self._times_of(clip)
        if times is not None and times.runs(numbers).keys() != {0}:
            found = decode_from_keyframes(path, times, numbers, self._dataset.channels)
        if found.keys() == numbers:
            return found
        keep = unmapped or not near
        return self._open.decode(path, numbers, self._dataset.channels, go_on=unmapped, keep=keep)

    def _measured(
        self, sources: Sequence[str], skip_bad: bool, progress: Progress | None
    ) -> dict[str, "_Video"]:
        """Length and digest of each video."""
        videos = dict[str, _Video]()
        with ThreadPoolExecutor(SCAN_THREADS) as pool:
            found = pool.map(lambda source: self._measure(source, skip_bad), sources)
            for source, video in zip(sources, found, strict=True):
                videos[source] = video
                if progress:
                    progress(len(videos), len(sources))
        return videos

    def _measure(self, source: str, skip_bad: bool) -> "_Video":
        path = self._data_dir / source
        try:
            with path.open("rb") as file:
                digest = file_digest(file, lambda: blake2b(digest_size=8)).hexdigest()
            found = survey(path)
        except (OSError, UnreadableError) as problem:
            raise UnreadableFileError(f"{path}: {problem}. {_WAY_OUT}") from None
        remarks = found.remarks
        if found.lost is not None:
            if not skip_bad:
                raise UnreadableFileError(
                    f"{path}: {found.lost}. {_WAY_OUT} {_OR_SKIP.format(found.n_frames)}"
                )
            taken = f"the {found.n_frames} frames that can be decoded are taken"
            remarks = (
                f"{found.lost}; {taken}, and behind the damage they may have {_OTHER_NUMBERS}",
                *remarks,
            )
        return _Video(found.n_frames, _digest(digest, found), remarks, found.lost is not None)

    def _times_of(self, clip: Clip) -> FrameTimes | None:
        """When the frames of the clip's video are shown; None where that would not find them exactly."""
        if clip.source not in self._times:
            self._times[clip.source] = frame_times(self._data_dir / clip.source)
        times = self._times[clip.source]
        return times if times is not None and len(times.pts) == clip.record + clip.n_source else None


_WAY_OUT = "Copy it again from where it was recorded, or move it out of the data folder."
_OTHER_NUMBERS = "other numbers than in the whole video, so that a clip list made on that no longer fits"
_OR_SKIP = (
    "Or take the {} frames that can be decoded with --skip-bad: behind the damage they may have "
    f"{_OTHER_NUMBERS}. It is the same with a copy that ffmpeg mends."
)

UNMAPPED = "f00d"
"""How the digest ends of a video whose frames are found by decoding from its start alone, over all errors.

One in 65,536 other digests ends so by chance: that costs time, and nothing else.
"""


@dataclass(frozen=True, slots=True)
class _Video:
    n_frames: int
    digest: str
    remarks: tuple[str, ...]
    lost: bool


def _digest(of_file: str, found: Survey) -> str:
    """The file's digest; another where earlier versions gave other pixels, so that stores are told apart."""
    digest = of_file
    if found.changes:
        digest = blake2b(" ".join([of_file, *found.changes]).encode(), digest_size=8).hexdigest()
    return digest if found.mapped else digest[: -len(UNMAPPED)] + UNMAPPED


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


def find_videos(split: Split, data_dir: Path) -> tuple[str, ...]:
    """Files below the data folder that match `split.files`, sorted, without hidden ones and the clip list."""
    try:
        paths = [path for path in data_dir.glob(split.files) if path.is_file() and path.name[0] != "."]
        sources = sorted(path.relative_to(data_dir).as_posix() for path in paths)
    except (NotImplementedError, ValueError):
        raise CallError(f"manifest, files: {split.files!r} is not a pattern below the data folder.") from None
    return tuple(source for source in sources if source != split.clips)


def _other_case(split: Split, data_dir: Path, sources: Sequence[str]) -> tuple[str, ...]:
    """Files that the pattern misses by upper and lower case alone: many a camera writes X.MP4."""
    if "[" in split.files:
        return ()
    letters = (f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in split.files)
    found = find_videos(replace(split, files="".join(letters)), data_dir)
    return tuple(sorted(set(found) - set(sources)))


def _left_out(split: Split, others: Sequence[str]) -> tuple[str, ...]:
    if not others:
        return ()
    which = f"{others[0]} is" if len(others) == 1 else f"{others[0]} and {len(others) - 1} more are"
    return (f"{which} left out: `files` in the manifest says {split.files!r}, in upper and lower case",)


def _none_found(split: Split, data_dir: Path) -> str:
    return (
        f"no video matches {split.files!r} below {data_dir}: put the files of {split.name!r} there, correct "
        "`files` in the manifest, or name another data folder (SCIVID_DATA_DIR)."
    )
