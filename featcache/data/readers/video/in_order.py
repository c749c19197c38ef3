"""All frames of a video in their order, one at a time: ten hours take the memory of a minute.

They are the frames that a clip of the video has, and what a scan refuses is refused here as far as it is met:
bytes that the file speaks of and does not have before the first frame, what cannot be decoded when it comes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from featcache.data.readers.base import UnreadableError, WholeFileError
from featcache.data.readers.video.containers import IncompleteError, look_through
from featcache.data.readers.video.frames import explained, opened, pixels_of, try_decoding

if TYPE_CHECKING:
    import av

STREAMS = ("mpegts", "mpeg")
"""Formats that may begin anywhere: what cannot be decoded before their first frame is of no frame."""


def frames_in_order(path: Path, channels: int) -> Iterator[UInt8[np.ndarray, "Y X C"]]:
    """Every frame as it is shown, of the first frame's size.

    Args:
        path: the file.
        channels: 3 or 1.

    Raises:
        WholeFileError: FFmpeg cannot open or read the file, it has no frame, or it is cut short.
        UnreadableError: FFmpeg cannot decode one of them, or makes up a part of it.
    """
    n, size = 0, None
    with opened(path) as (container, stream), explained():
        kind = container.format.name
        _refuse_cut(path, kind)
        stream.thread_type = "AUTO"
        for packet in container.demux(stream):
            for frame in _decoded(packet, after=n, lenient=kind in STREAMS and not n):
                if frame.is_corrupt:
                    raise UnreadableError(f"frame {n} is damaged")
                size = size or (frame.width, frame.height)
                yield pixels_of(frame, channels, size)
                n += 1
    if not n:
        raise WholeFileError("no frame of it can be decoded")


def _refuse_cut(path: Path, kind: str) -> None:
    try:
        look_through(path, kind)
    except IncompleteError as problem:
        raise WholeFileError(str(problem)) from None


def _decoded(packet: "av.Packet", *, after: int, lenient: bool) -> "list[av.VideoFrame]":
    frames = try_decoding(packet)
    if frames is None and not lenient:
        raise UnreadableError(f"what follows its first {after} frames cannot be decoded")
    return frames or []
