"""Corrupted pixels of a clip: a pure function of the clip's id, the corruption, and the pixels.

Whatever is drawn comes from a counter keyed by the id, so that every worker draws the same; one clip's noise
and place of occlusion are those of all severities.
"""

from collections.abc import Callable
from hashlib import blake2b
from math import ceil

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from featcache.resampling import gaussian_blur
from featcache.spec import Corruption

Pixels = Float[Tensor, "F rgb Y X"]


def corrupted(pixels: Pixels, corruption: Corruption, clip: str) -> Pixels:
    """A clip's frames in [0, 1] as `corruption` leaves them; `clip` is its id."""
    draw = np.random.Generator(np.random.Philox(key=_key(clip)))
    return _KINDS[corruption.kind](pixels, corruption.amount, draw)


def _blurred(pixels: Pixels, sigma: float, draw: np.random.Generator) -> Pixels:
    """Beyond the border lies what is at it."""
    reach = ceil(3 * sigma)
    padded = F.pad(pixels, (reach, reach, reach, reach), mode="replicate")
    return gaussian_blur(padded, sigma, taps=2 * reach + 1)[..., reach:-reach, reach:-reach].contiguous()


def _noisy(pixels: Pixels, sigma: float, draw: np.random.Generator) -> Pixels:
    noise = torch.from_numpy(draw.standard_normal(pixels.shape, np.float32))
    return (pixels + sigma * noise).clamp(0.0, 1.0)


def _occluded(pixels: Pixels, share: float, draw: np.random.Generator) -> Pixels:
    hidden, found = [], pixels.clone()
    for length, at in zip(pixels.shape[-2:], draw.random(2), strict=True):
        side = round(share * length)
        first = round(at * (length - side))
        hidden.append(slice(first, first + side))
    found[..., hidden[0], hidden[1]] = 0.5
    return found


def _compressed(pixels: Pixels, quality: float, draw: np.random.Generator) -> Pixels:
    import simplejpeg

    frames = (rearrange(pixels, "f c y x -> f y x c") * 255).round().to(torch.uint8).numpy()
    coded = [
        simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=int(quality)))
        for frame in frames
    ]
    return rearrange(torch.from_numpy(np.stack(coded)).float() / 255, "f y x c -> f c y x")


def _dropped(pixels: Pixels, share: float, draw: np.random.Generator) -> Pixels:
    """The first frame stays; in a dropped one's place is the last that was not."""
    n = len(pixels)
    lost = 1 + draw.permutation(n - 1)[: round(share * (n - 1))]
    shown = np.where(np.isin(np.arange(n), lost), 0, np.arange(n))
    return _ordered(pixels, np.maximum.accumulate(shown))


def _reversed(pixels: Pixels, share: float, draw: np.random.Generator) -> Pixels:
    n = len(pixels)
    piece = max(2, round(share * n))
    order = [
        number for first in range(0, n, piece) for number in reversed(range(first, min(n, first + piece)))
    ]
    return _ordered(pixels, np.array(order))


def _ordered(pixels: Pixels, order: Int[np.ndarray, " F"]) -> Pixels:
    return pixels[torch.from_numpy(order)]


_KINDS: dict[str, Callable[[Pixels, float, np.random.Generator], Pixels]] = {
    "blur": _blurred,
    "noise": _noisy,
    "occlusion": _occluded,
    "compression": _compressed,
    "dropped": _dropped,
    "reversed": _reversed,
}


def _key(clip: str) -> int:
    digest = blake2b(clip.encode(), digest_size=16, person=b"scivid corrupt").digest()
    return int.from_bytes(digest, "little")
