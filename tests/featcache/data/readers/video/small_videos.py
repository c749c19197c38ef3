"""Small videos of several containers and codecs, written by FFmpeg."""

from fractions import Fraction
from pathlib import Path

import av  # noqa: TID253  (for the tests of the one module that may)
import numpy as np

N_FRAMES = 120
B_FRAMES = {"g": "24", "bf": "3"}
KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264.mp4": ("libx264", "yuv420p", B_FRAMES),
    "open_gop.mp4": ("libx264", "yuv420p", {"x264-params": "open-gop=1:keyint=24:bframes=3:log-level=none"}),
    "refresh.mp4": ("libx264", "yuv420p", {"x264-params": "intra-refresh=1:keyint=24:log-level=none"}),
    "stream.ts": ("libx264", "yuv420p", B_FRAMES),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"g": "24", "bf": "2"}),
    "motion.mov": ("mjpeg", "yuvj420p", {}),
    "vp8.webm": ("libvpx", "yuv420p", {"g": "24", "deadline": "realtime"}),
    "lossless.mkv": ("ffv1", "yuv420p", {}),
    "palette.gif": ("gif", "gray", {}),
}


def write_video(
    path: Path, n_frames: int = N_FRAMES, *, gap: int = 0, size: tuple[int, int] = (48, 64)
) -> Path:
    """A video whose frame k is grey of level 2 k; `gap` makes its times uneven."""
    codec, pixels, options = KINDS.get(path.name, KINDS["h264.mp4"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        for k in range(n_frames):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), 2 * k, np.uint8), format="rgb24")
            frame.pts, frame.time_base = k + gap * (k // 7), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
