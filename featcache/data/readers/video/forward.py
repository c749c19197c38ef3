"""Videos that are decoded from their start and stay open where they are, for the frames that come next.

Not every video lets decoding start at a nearby keyframe. Its clips, one after the other, then cost one pass
over the file together, not one each.
"""

import os
from collections import deque
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from featcache.data.readers.base import UnreadableError, WholeFileError
from featcache.data.readers.video.frames import decoded, explained, open_video, pixels_of, video_of

if TYPE_CHECKING:
    import av

_MOST_OPEN = 8
"""Videos that stay open, as many as threads read at a time."""
_RECENT_BYTES = 32 * 2**20
"""Of the last decoded frames of each, which clips that overlap read again."""


class OpenVideos:
    """What is open, for any number of threads; a copy in another process has its own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process = os.getpid()
        self._idle = list[_OpenVideo]()

    def __reduce__(self) -> tuple[type["OpenVideos"], tuple[()]]:
        return OpenVideos, ()

    def decode(
        self, path: Path, numbers: Set[int], channels: int, *, go_on: bool, keep: bool
    ) -> dict[int, UInt8[np.ndarray, "Y X C"]]:
        """Frames by their numbers, decoded from the start or from where an open video is.

        Args:
            path: the file.
            numbers: of frames, counted from 0 as they are decoded.
            channels: 3 or 1.
            go_on: over what cannot be decoded; else that is an error.
            keep: the file open, for frames that come later.

        Raises:
            WholeFileError: FFmpeg cannot open or read the file, or it ends before the last of them.
            UnreadableError: FFmpeg cannot decode one of them.
        """
        found = dict[int, np.ndarray]()
        with self._borrowed(path, min(numbers), go_on, keep) as video, explained():
            for number, frame in video.frames(max(numbers)):
                if number in numbers:
                    if frame.is_corrupt and not go_on:
                        raise UnreadableError(f"frame {number} is damaged")
                    found[number] = pixels_of(frame, channels, video.size)
        if len(found) < len(numbers):
            # The scan decoded it to its end; FFmpeg takes many a failure of the disk for the end of a file.
            raise WholeFileError(f"it ends before frame {max(numbers)}; if it had more, scan it again")
        return found

    @contextmanager
    def _borrowed(self, path: Path, first: int, go_on: bool, keep: bool) -> Iterator["_OpenVideo"]:
        video = self._taken(path, first, go_on) if keep else None
        video = video or _OpenVideo(path, go_on)
        try:
            yield video
        except BaseException:
            video.close()
            raise
        if keep:
            self._give_back(video)
        else:
            video.close()

    def _taken(self, path: Path, first: int, go_on: bool) -> "_OpenVideo | None":
        with self._lock:
            if self._process != os.getpid():
                # The threads that decode were not copied with the process: closing would wait for them.
                _OF_ANOTHER_PROCESS.append(self._idle)
                self._process, self._idle = os.getpid(), []
            fit = [video for video in self._idle if video.fits(path, first, go_on)]
            if not fit:
                return None
            video = max(fit, key=lambda video: video.n_decoded)
            self._idle.remove(video)
            return video

    def _give_back(self, video: "_OpenVideo") -> None:
        with self._lock:
            self._idle.append(video)
            too_many = self._idle[:-_MOST_OPEN]
            del self._idle[:-_MOST_OPEN]
        for old in too_many:
            old.close()


_OF_ANOTHER_PROCESS = list[list["_OpenVideo"]]()


class _OpenVideo:
    def __init__(self, path: Path, go_on: bool) -> None:
        self._which = path, _state(path), go_on
        self._container = open_video(path)
        stream = video_of(self._container)
        self._decoded = decoded(self._container, stream, go_on=go_on)
        self._recent = deque[tuple[int, "av.VideoFrame", int]]()
        self._recent_bytes = 0
        self.n_decoded = 0
        self.size: tuple[int, int] | None = None
        """Width and height of the first frame as stored, which all are shown in."""

    def fits(self, path: Path, first: int, go_on: bool) -> bool:
        """Whether frame `first` of the file, as it is now, can still be had."""
        return self._which == (path, _state(path), go_on) and first >= self.n_decoded - len(self._recent)

    def frames(self, last: int) -> Iterator[tuple[int, "av.VideoFrame"]]:
        """Number and frame of the recent ones and those after, up to number `last`."""
        for number, frame, _ in tuple(self._recent):
            yield number, frame
        while self.n_decoded <= last and (frame := next(self._decoded, None)) is not None:
            self.size = self.size or (frame.width, frame.height)
            self._keep(frame)
            self.n_decoded += 1
            yield self.n_decoded - 1, frame

    def _keep(self, frame: "av.VideoFrame") -> None:
        n_bytes = sum(plane.buffer_size for plane in frame.planes)
        self._recent.append((self.n_decoded, frame, n_bytes))
        self._recent_bytes += n_bytes
        while self._recent_bytes > _RECENT_BYTES:
            self._recent_bytes -= self._recent.popleft()[2]

    def close(self) -> None:
        self._recent.clear()
        self._decoded.close()
        self._container.close()


def _state(path: Path) -> tuple[int, int, int]:
    """What changes with a file that is replaced; nothing of it where it is gone."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_size, found.st_mtime_ns, found.st_ino
