"""Small videos of several containers and codecs, written by FFmpeg."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av  # noqa: TID253  (for the tests of the one module that may)
import numpy as np

from featcache.manifest import Dataset, Split

N_FRAMES = 120
B_FRAMES = {"g": "24", "bf": "3"}
KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264.mp4": ("libx264", "yuv420p", B_FRAMES),
    "open_gop.mp4": ("libx264", "yuv420p", {"x264-params": "open-gop=1:keyint=24:bframes=3:log-level=none"}),
    "refresh.mp4": ("libx264", "yuv420p", {"x264-params": "intra-refresh=1:keyint=24:log-level=none"}),
    "stream.ts": ("libx264", "yuv420p", B_FRAMES),
    "mpeg2.ts": ("mpeg2video", "yuv420p", {"g": "24", "bf": "2"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"g": "24", "bf": "2"}),
    "motion.mov": ("mjpeg", "yuvj420p", {}),
    "vp8.webm": ("libvpx", "yuv420p", {"g": "24", "deadline": "realtime"}),
    "lossless.mkv": ("ffv1", "yuv420p", {}),
    "palette.gif": ("gif", "gray", {}),
}


def write_video(
    path: Path,
    n_frames: int = N_FRAMES,
    *,
    gap: int = 0,
    size: tuple[int, int] = (48, 64),
    options: dict[str, str] | None = None,
    codec: str | None = None,
) -> Path:
    """A video whose frame k is grey of level 2 k; `gap` makes its times uneven; `codec` one of RGB."""
    usual_codec, pixels, usual = KINDS.get(path.name, KINDS["h264.mp4"])
    options = usual if options is None else options
    codec, pixels = (codec, "rgb24") if codec else (usual_codec, pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        for k in range(n_frames):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), 2 * k % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = k + gap * (k // 7), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def dataset(files: str = "videos/*.*", clips: str | None = None, **changes: Any) -> Dataset:
    entry: dict[str, Any] = {
        "name": "mine",
        "title": "",
        "source": "",
        "licence": "",
        "citation": "",
        "version": "1",
        "reader": "video_file",
        "splits": {"all": Split(name="all", files=files, clips=clips)},
        "classes": ("run", "rest"),
    }
    return Dataset(**{**entry, **changes})


def remuxed(
    source: Path, path: Path, *, matrix: list[int] | None = None, delay: int = 0, **options: str
) -> Path:
    """The same packets in another container, later by `delay`; a display matrix and options of its writer."""
    with av.open(source) as old, av.open(path, "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream, packet.pts, packet.dts = stream, packet.pts + delay, packet.dts + delay
                new.mux(packet)
    return path


def picture(path: Path, levels: np.ndarray, n_frames: int = 1) -> Path:
    """A lossless video in grey whose frames are all the same."""
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *levels.shape, "gray"
        for k in range(n_frames):
            frame = av.VideoFrame.from_ndarray(levels, format="gray")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
