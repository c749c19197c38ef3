"""Contact strips of a few clips, kept in the store as JPEG.

Stage two runs without the videos, yet a report without pictures convinces nobody: a strip shows a clip
as the backbone saw it (after resize and value range, before mean and std).
"""

from io import BytesIO

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

N_PREVIEWS = 24
FRAMES_PER_STRIP = 8
STRIP_HEIGHT = 112
"""Pixels; a strip is FRAMES_PER_STRIP times as wide."""

TRACKED_HEIGHT = 224
"""Where points are drawn on the frames: all the pixels that the backbone saw."""


def preview_clips(n_clips: int) -> list[int]:
    """Evenly spaced clip numbers, the first and the last among them."""
    return sorted(set(np.linspace(0, n_clips - 1, min(N_PREVIEWS, n_clips)).round().astype(int).tolist()))


def clip_strip(pixels: Float[Tensor, "F C Y X"], height: int = STRIP_HEIGHT) -> bytes:
    """Evenly spaced frames of a clip, values outside [0, 1] clipped, side by side, as JPEG."""
    chosen = np.linspace(0, len(pixels) - 1, FRAMES_PER_STRIP).round().astype(int)
    tiles = [_tile(rearrange(pixels[i], "c y x -> y x c").numpy(), height) for i in chosen]
    buffer = BytesIO()
    Image.fromarray(np.concatenate(tiles, axis=1)).save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def _tile(frame: Float[np.ndarray, "Y X C"], height: int) -> UInt8[np.ndarray, "y x C"]:
    image = Image.fromarray((frame.clip(0, 1) * 255).round().astype(np.uint8))
    return np.asarray(image.resize((height, height), Image.Resampling.BOX))
