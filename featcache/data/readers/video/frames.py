"""Frames of a video file by their numbers: whatever FFmpeg decodes, as it would show it.

Frame k is the k-th frame that decoding from the start gives, always. Looking a frame up by its time, as
players do, is off by some frames in many files; here times only serve to start at a nearby keyframe, and
only in files whose packets map one to one onto the decoded frames.
"""

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.stream import Disposition
from av.video.frame import PictureType
from jaxtyping import Int32, Int64, UInt8

from featcache.data.readers.base import UnreadableError, WholeFileError

_PIXEL_FORMATS = {1: "gray", 3: "rgb24"}

_OF_ONE_PACKET = (av.InvalidDataError, av.ExternalError, av.PatchWelcomeError, av.BugError)
"""What decoders say of a packet that they can make nothing of; they go on with the next."""

UPRIGHT = np.array([1, 0, 0, 1], np.int32) << 16
"""The part of a display matrix that turns and mirrors, where it does neither."""


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """When the frames of a video are shown, and at which of them decoding can start."""

    pts: Int64[np.ndarray, " F"]
    """Times in the stream's time base, ascending: entry k belongs to frame k."""
    keyframes: Int64[np.ndarray, " K"]
    """Numbers of the frames that decoding can start at, ascending."""

    @classmethod
    def of_packets(cls, pts: Sequence[int | None], is_key: Sequence[bool]) -> "FrameTimes | None":
        """By the packets in their order in the file; None where one has no time of its own."""
        if None in pts:
            return None
        times, order = np.unique(np.array(pts, np.int64), return_index=True)
        if len(times) < len(pts):
            return None
        return cls(times, np.flatnonzero(np.array(is_key, bool)[order]))

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
    pts, keys = list[int | None](), list[bool]()
    with opened(path) as (container, stream):
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                pts.append(packet.pts)
                keys.append(packet.is_keyframe)
    return FrameTimes.of_packets(pts, keys)


def count_frames(path: Path) -> int:
    """The number of frames that decoding a video gives, going on over what cannot be decoded.

    Raises:
        UnreadableError: FFmpeg cannot read the file.
    """
    with opened(path) as (container, stream):
        return sum(1 for _ in decoded(container, stream, go_on=True))


def decoded(
    container: av.container.InputContainer, stream: av.VideoStream, *, go_on: bool
) -> Generator[av.VideoFrame, None, None]:
    """All frames from where the container is; `go_on` leaves out what cannot be decoded."""
    for packet in container.demux(stream):
        yield from (try_decoding(packet) or ()) if go_on else packet.decode()


def try_decoding(packet: av.Packet) -> list[av.VideoFrame] | None:
    """The frames that come out of the decoder for a packet; None where it is not one of its codec."""
    try:
        frames: list[av.VideoFrame] = packet.decode()
    except _OF_ONE_PACKET:
        return None
    return frames


def decode_from_keyframes(
    path: Path, times: FrameTimes, numbers: set[int], channels: int
) -> dict[int, UInt8[np.ndarray, "Y X C"]]:
    """Frames by their numbers, from the keyframes before them: those that a seek gave whole and in order.

    A keyframe counts as one only where it is coded on its own: with H.264's intra refresh a stream claims
    keyframes from which the picture only recovers slowly. Some containers land behind the frame they seek.

    Raises:
        WholeFileError: FFmpeg cannot open or read the file.
        UnreadableError: FFmpeg cannot decode one of them.
    """
    found = dict[int, np.ndarray]()
    with opened(path) as (container, stream):
        for keyframe, run in times.runs(numbers).items():
            container.seek(int(times.pts[keyframe]), stream=stream)
            last = None
            for frame in container.decode(stream):
                number = times.number(frame.pts)
                if last is None and number == keyframe and frame.pict_type == PictureType.I:
                    last = keyframe - 1
                if last is not None and number != last + 1:
                    break
                if last is not None and number in run and not frame.is_corrupt:
                    found[number] = pixels_of(frame, channels)
                last = number if last is not None else None
                if number is not None and number >= max(run):
                    break
    return found


def pixels_of(
    frame: av.VideoFrame, channels: int, size: tuple[int, int] | None = None
) -> UInt8[np.ndarray, "Y X C"]:
    """A frame as it is shown: turned and mirrored as its display matrix says, in RGB or grey.

    Args:
        frame: as it was decoded.
        channels: 3 or 1.
        size: width and height to scale to before, where the frame has others.
    """
    other: dict[str, object] = {}
    if size is not None and size != (frame.width, frame.height):
        # FFmpeg's command line scales what changes its size within a video so.
        other = {"width": size[0], "height": size[1], "interpolation": "BICUBIC"}
    pixels: np.ndarray = frame.to_ndarray(format=_PIXEL_FORMATS[channels], **other)
    return oriented(pixels if channels == 3 else pixels[..., None], display_matrix(frame))


def display_matrix(frame: av.VideoFrame) -> Int32[np.ndarray, "4"]:
    """Where a stored pixel is shown: a, b, c, d of x' = ax + cy, y' = bx + dy."""
    try:
        # Not `frame.side_data`, which the frame keeps and which keeps the frame: the collector would free
        # hundreds of frames at a time, for it counts objects and not their megabytes.
        data = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    except ValueError:
        # A frame with data beside it of a kind that PyAV does not know tells its angle alone.
        cos, sin = (round(f(math.radians(frame.rotation)) * 2**16) for f in (math.cos, math.sin))
        return np.array([cos, -sin, sin, cos], np.int32)
    return UPRIGHT if data is None else np.frombuffer(bytes(data), np.int32)[[0, 1, 3, 4]]


def oriented(
    pixels: UInt8[np.ndarray, "y x C"], matrix: Int32[np.ndarray, "4"]
) -> UInt8[np.ndarray, "Y X C"]:
    """Pixels turned by quarters and mirrored, as the matrix says: the nearest of the eight ways."""
    a, b, c, d = matrix.tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def video_of(container: av.container.InputContainer) -> av.VideoStream:
    """The first video of a file that is no picture attached to it.

    Raises:
        WholeFileError: there is none, or none that FFmpeg can decode.
    """
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise WholeFileError("FFmpeg cannot decode its video: damaged, or of a codec not known")
            return stream
    raise WholeFileError("it holds no video")


def open_video(path: Path) -> av.container.InputContainer:
    """The file, open.

    Raises:
        WholeFileError: FFmpeg cannot open it.
    """
    try:
        return av.open(path, metadata_errors="replace")
    except (av.FFmpegError, OSError) as problem:
        raise WholeFileError(f"FFmpeg cannot open it ({problem})") from None


@contextmanager
def explained() -> Iterator[None]:
    """Say what FFmpeg could not do.

    Raises:
        WholeFileError: reading on fails in the block.
        UnreadableError: FFmpeg meets what it cannot decode in the block.
    """
    try:
        yield
    except OSError as problem:
        raise WholeFileError(f"FFmpeg cannot read it ({problem})") from None
    except av.FFmpegError as problem:
        raise UnreadableError(f"FFmpeg cannot decode it ({problem})") from None


@contextmanager
def opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The file and its video, as `video_of` chooses it.

    Raises:
        WholeFileError: FFmpeg cannot open it, there is no video in it, or reading on fails in the block.
        UnreadableError: FFmpeg meets what it cannot decode in the block.
    """
    with open_video(path) as container:
        stream = video_of(container)
        with explained():
            yield container, stream
