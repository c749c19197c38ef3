"""Deterministic views of a clip: what was drawn, and the pixels it gives.

The reference draws a new view of a training clip each time it is read. A cache holds a few of them, so a
view here is a pure function of (clip id, view number, seed): any worker, in any order, on any device draws
the same. View 0 is the evaluation view, nothing drawn. The numbers come straight from a hash, so no
release of a random number library can change them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import blake2b
from math import prod
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from featcache.data.sampling import repeat_frames
from featcache.errors import CallError
from featcache.manifest import Augmentation, Pixels
from featcache.resampling import (
    gaussian_blur,
    per_channel,
    resize_area,
    resize_bilinear,
    resize_once,
    value_range,
)
from featcache.spec import ClipSpec, Starts

BLUR_SIGMA = (0.1, 2.0)
"""Range of the blur's standard deviation in pixels."""

CACHE_BYTES = 2**21
"""That a core has nearest to itself, roughly; twice or half of it costs a tenth of the speed."""

BUFFER_BYTES = 2**24
"""Size of frames in float32 that are resized at a time: in more pieces they would take longer."""

DEVICE_BYTES = 2**28
"""Size of frames in float32, and what they become, that a GPU has at a time: little beside a model's."""

BYTES = Pixels()
"""Frames decoded from images, 0 to 255."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewPlan:
    """How many views of each clip a store holds, and how those after the first are drawn."""

    augmentation: Augmentation
    n_views: int = 1
    seed: int = 0
    starts: Starts | None = None
    """Where a view is a start and nothing else: then all there are make the cache exact."""

    def __post_init__(self) -> None:
        if self.n_views < 1:
            raise CallError(f"n_views={self.n_views} must be at least 1: view 0 is the evaluation view.")
        if not 0 <= self.seed < 2**64:
            raise CallError(f"seed={self.seed} must be a number from 0 to 2^64 - 1.")
        if self.starts is not None and not (
            self.augmentation.is_identity and self.n_views == self.starts.n_starts
        ):
            raise CallError("a task with `starts` stores a view a start, and has no `augmentation`.")

    def views_of(self, n_source: int) -> int:
        """How many of the views differ for a clip of `n_source` frames; view v then equals view v - views_of.

        Raises:
            DataError: the clip has more starts than views.
        """
        return self.n_views if self.starts is None else len(self.starts.choices(n_source))

    def as_dict(self) -> dict[str, Any]:
        """What of the plan changes a feature, for the fingerprint; with one view nothing is drawn."""
        drawn_not = {"n_views": self.n_views, "seed": None, "augmentation": None}
        if self.starts is not None:
            return drawn_not | {"starts": asdict(self.starts)}
        if self.n_views == 1:
            return drawn_not
        augmentation = {**asdict(self.augmentation), "scale": list(self.augmentation.scale)}
        return {"n_views": self.n_views, "seed": self.seed, "augmentation": augmentation}


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """One draw: frames from `start`, resize by `scale`, crop at (`top`, `left`), blur by `sigma`, flip."""

    start: int = 0
    scale: float = 1.0
    top: int = 0
    left: int = 0
    sigma: float | None = None
    flip: bool = False


def draw_view(plan: ViewPlan, clip_id: str, view: int, height: int, width: int) -> View:
    """The view number `view` of a clip that is `height` x `width` before and after.

    Source: `RandomResize`, `RandomCrop`, `GaussianBlur` and flip of the reference's `tf_transforms`. As
    there, the last crop offset that would fit is never drawn.
    """
    assert 0 <= view < plan.n_views, f"view {view} of a plan with {plan.n_views} views"
    if view == 0 or plan.starts is not None:
        return View(start=view)
    # One number a choice, drawn whether it is used or not: changing one probability moves no other choice.
    scale_at, top_at, left_at, blur_at, sigma_at, flip_at = _uniforms(f"{plan.seed}/{view}/{clip_id}")[:6]
    scale = _between(plan.augmentation.scale, scale_at)
    rows, columns = _scaled(scale, height), _scaled(scale, width)
    return View(
        scale=scale,
        top=int(top_at * (rows - height)),
        left=int(left_at * (columns - width)),
        sigma=_between(BLUR_SIGMA, sigma_at) if blur_at < plan.augmentation.blur else None,
        flip=flip_at < plan.augmentation.flip,
    )


def apply_view(
    frames: Float[Tensor, "F C Y X"], view: View, height: int, width: int
) -> Float[Tensor, "F C Y X"]:
    """Frames of `height` x `width` and 0..255 as `view` shows them: resize, crop, blur, flip."""
    frames = resize_bilinear(frames, _scaled(view.scale, height), _scaled(view.scale, width))
    frames = frames[..., view.top : view.top + height, view.left : view.left + width]
    if view.sigma is not None:
        frames = gaussian_blur(frames, view.sigma)
    return frames.flip(-1) if view.flip else frames


def clip_pixels(
    frames: UInt8[Tensor, "F Y X C"] | Float[Tensor, "F Y X C"],
    spec: ClipSpec,
    view: View,
    pixels: Pixels = BYTES,
    size: tuple[int, int] | None = None,
) -> Float[Tensor, "frames 3 height width"]:
    """A clip's frames as the model sees them: resized, viewed, scaled, stretched in time.

    Runs on the device `frames` are on; `size` as in `frame_pixels`.
    """
    return stretched(frame_pixels(frames, spec, view, pixels, size))


def frame_pixels(
    frames: UInt8[Tensor, "F Y X C"] | Float[Tensor, "F Y X C"],
    spec: ClipSpec,
    view: View,
    pixels: Pixels = BYTES,
    size: tuple[int, int] | None = None,
) -> Float[Tensor, "F C height width"]:
    """Frames resized, viewed and scaled to 0..1 or standardised, each by itself.

    With `size`, then resized to it by area: in one with the first resize where nothing lies between them.
    """
    if size is None:
        return _full_pixels(frames, spec, view, pixels)
    if view != View(start=view.start) or not pixels.are_bytes:
        return resize_area(_full_pixels(frames, spec, view, pixels), *size)
    at_once = max(1, BUFFER_BYTES // (4 * prod(frames.shape[1:])))
    small = [resize_once(some, (spec.height, spec.width), size) for some in torch.split(frames, at_once)]
    joined = small[0] if len(small) == 1 else torch.cat(small)
    return rearrange(value_range(joined, pixels.low, pixels.high, out=joined), "f y x c -> f c y x")


def _full_pixels(
    frames: UInt8[Tensor, "F Y X C"] | Float[Tensor, "F Y X C"], spec: ClipSpec, view: View, pixels: Pixels
) -> Float[Tensor, "F C height width"]:
    planes = rearrange(frames, "f y x c -> f c y x")
    # Laid out as the frames are, channels last: models meet other kernels, so other last bits, otherwise.
    shape = (len(planes), spec.height, spec.width, planes.shape[1])
    buffer = torch.empty(shape, dtype=torch.float32, device=frames.device)
    viewed = rearrange(buffer, "f y x c -> f c y x")
    at_once = _frames_at_once(planes, viewed, view)
    for some, out in zip(torch.split(planes, at_once), torch.split(viewed, at_once), strict=True):
        resized = resize_bilinear(some.float(), spec.height, spec.width)
        _scale_values(apply_view(resized, view, spec.height, spec.width), pixels, out)
    return viewed


def _frames_at_once(
    frames: Shaped[Tensor, "F C Y X"], viewed: Float[Tensor, "F C height width"], view: View
) -> int:
    """On a CPU as few frames as keep what lies between bytes and pixels in a core's cache."""
    # A blur is a matrix product, whose last bits depend on how many rows it has.
    if view.sigma is not None:
        return len(frames)
    bytes_each = viewed.element_size() * (prod(frames.shape[1:]) + prod(viewed.shape[1:]))
    return max(1, (CACHE_BYTES if frames.device.type == "cpu" else DEVICE_BYTES) // bytes_each)


def stretched(frames: Float[Tensor, "F C Y X"]) -> Float[Tensor, "frames 3 Y X"]:
    """A clip of the next multiple of 16 frames, which video backbones are made for, in three channels."""
    repeats = repeat_frames(len(frames))
    if len(repeats) > len(frames):
        frames = frames[_on_device(tuple(repeats.tolist()), frames.device)]
    return in_three_channels(frames)


@lru_cache(maxsize=16)
def _on_device(numbers: tuple[int, ...], device: torch.device) -> Int64[Tensor, " n"]:
    return torch.tensor(numbers, device=device)


def in_three_channels(frames: Float[Tensor, "F C Y X"]) -> Float[Tensor, "F 3 Y X"]:
    """Grey frames are resized as one channel and repeated here, last.

    Channels are treated alike, so the order makes no difference and two thirds of the work are saved.
    """
    return repeat(frames, "f c y x -> f (rgb c) y x", rgb=3 // frames.shape[1])


def _scale_values(frames: Float[Tensor, "F C Y X"], pixels: Pixels, out: Float[Tensor, "F C Y X"]) -> None:
    """`ValueRange` or, for fields, `Normalize` of the reference, into `out`."""
    if not pixels.mean:
        value_range(frames, pixels.low, pixels.high, out=out)
        return
    mean, std = (per_channel(values, frames.device) for values in (pixels.mean, pixels.std))
    torch.div(frames - mean, std, out=out)


def _scaled(scale: float, n: int) -> int:
    return int(scale * n)


def _between(bounds: tuple[float, float], at: float) -> float:
    return bounds[0] + at * (bounds[1] - bounds[0])


def _uniforms(name: str) -> Sequence[float]:
    """Eight numbers in [0, 1), each from 53 bits of the name's hash."""
    digest = blake2b(name.encode(), digest_size=64, person=b"scivid view").digest()
    return [(int.from_bytes(digest[i : i + 8], "little") >> 11) * 2.0**-53 for i in range(0, 64, 8)]
