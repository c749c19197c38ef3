"""Frames of a video file by their numbers: whatever FFmpeg decodes.

Frame k is the k-th frame that decoding from the start gives, always. Looking a frame up by its time, as
players do, is off by some frames in many files; here times only serve to start at a nearby keyframe, and
only in files whose packets map one to one onto the decoded frames.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from jaxtyping import Int64, UInt8

from featcache.data.readers.base import UnreadableError, WholeFileError

_PIXEL_FORMATS = {1: "gray", 3: "rgb24"}


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """When the frames of a video are shown, and at which of them decoding can start."""

    pts: Int64[np.ndarray, " F"]
    """Times in the stream's time base, ascending: entry k belongs to frame k."""
    keyframes: Int64[np.ndarray, " K"]
    """Numbers of the frames that decoding can start at, ascending."""

    def number(self, pts: int | None) -> int | None:
        """The frame that is shown at `pts`, if one is."""
        if pts is None:
            return None
        number = int(np.searchsorted(self.pts, pts))
        return number if number < len(self.pts) and self.pts[number] == pts else None

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


def decode_frames(
    path: Path, numbers: set[int], channels: int, times: FrameTimes | None
) -> dict[int, UInt8[np.ndarray, "Y X C"]]:
    """Frames of a video by their numbers in it, from the keyframes before them where `times` are known.

    Raises:
        WholeFileError: FFmpeg cannot open or read the file, or it ends before the last of them.
        UnreadableError: FFmpeg cannot decode one of them.
    """
    if times is not None:
        decoded = _decode_from_keyframes(path, times, numbers, channels)
        if decoded.keys() == numbers:
            return decoded
    return _decode_from_start(path, numbers, channels)


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
    """As `_decode_from_start`, but without frames that a seek did not give whole.

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
