"""The reference's resizes in torch: of pixels, with its blur and value range, and of token steps in time.

Each matches the TensorFlow operation the reference runs, which look-alikes do not: `mode="area"` of torch
is another operator when sizes do not divide (0.2 of full range apart), and an anti-aliased bilinear
resize is another image. Area resize and blur are products with small matrices, equal on every device as
long as float32 products are exact (`torch.set_float32_matmul_precision("highest")`, the default).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from featcache.errors import CallError

Method = Literal["linear", "cubic"]
"""How token steps are up-sampled."""

FEW_COLUMNS = 32
"""So few new columns are made faster by a dense product than by turning frames round."""

BLUR_TAPS = 37
"""Width of the blur kernel: the reference's `kernel_size=36` becomes 2 * 18 + 1."""


def resize_bilinear(frames: Float[Tensor, "F C Y X"], height: int, width: int) -> Float[Tensor, "F C y x"]:
    """Bilinear resize at half-pixel centres, not anti-aliased: `tf.image.resize` as the readers call it."""
    if frames.shape[-2:] == (height, width):
        return frames
    return F.interpolate(frames, size=(height, width), mode="bilinear", align_corners=False)


def resize_area(frames: Float[Tensor, "F C Y X"], height: int, width: int) -> Float[Tensor, "F C y x"]:
    """Mean over the exact overlap of old and new pixels, up or down an axis: `tf.image.resize(area)`.

    The model side of the reference brings float frames to the model's size this way (`kd.data.Resize`).
    """
    if frames.shape[-2:] == (height, width):
        return frames
    rows = _area_operator_on(frames.shape[-2], height, frames.device, frames.dtype)
    columns = _area_operator_on(frames.shape[-1], width, frames.device, frames.dtype)
    return _separable(frames, rows, columns)


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)
def constant(numbers: tuple[float, ...], device: torch.device) -> Float[Tensor, " n"]:
    """Some numbers in float32 on `device`: copied there once, for a copy is waited for."""
    return torch.tensor(numbers, dtype=torch.float32).to(device)


def per_channel(numbers: Sequence[float], device: torch.device) -> Float[Tensor, "1 C 1 1"]:
    """A number for each channel of frames, on `device`."""
    return rearrange(constant(tuple(numbers), device), "c -> 1 c 1 1")


def area_operator(n_in: int, n_out: int) -> Float[Tensor, "n_out n_in"]:
    """The area resize of one axis: a row holds the overlaps of a new pixel with the old ones, with sum 1."""
    scale = n_in / n_out
    first = torch.arange(n_out, dtype=torch.float64)[:, None] * scale
    pixel = torch.arange(n_in, dtype=torch.float64)[None, :]
    overlap = (torch.minimum(first + scale, pixel + 1) - torch.maximum(first, pixel)).clamp(min=0)
    return (overlap / overlap.sum(dim=1, keepdim=True)).float()


def resize_once(
    frames: Shaped[Tensor, "F Y X C"], through: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "F y x C"]:
    """`resize_bilinear` to `through`, then `resize_area` to `size`: the same function, rounded less often.

    Two linear maps of an axis are one, whose rows sum a few neighbouring pixels where `size` is small: no
    frame of `through` rows and columns is ever made.
    """
    new_rows = _rows_resized_once(frames, through[0], size[0])
    if size[1] <= FEW_COLUMNS:
        return _columns_resized_once(new_rows, through[1], size[1])
    columns_first = rearrange(new_rows, "f y x c -> f x y c")
    return rearrange(_rows_resized_once(columns_first, through[1], size[1]), "f x y c -> f y x c")


def gaussian_blur(
    frames: Float[Tensor, "F C Y X"], sigma: float, taps: int = BLUR_TAPS
) -> Float[Tensor, "F C Y X"]:
    """Separable Gaussian blur, `sigma` in pixels; outside the frame is zero, so borders darken.

    Source: `GaussianBlur` of the reference's `tf_transforms`.
    """
    rows = _blur_operator(frames.shape[-2], sigma, taps, frames.device).to(frames.dtype)
    columns = _blur_operator(frames.shape[-1], sigma, taps, frames.device).to(frames.dtype)
    return _separable(frames, rows, columns)


def value_range(
    frames: Float[Tensor, "*axes"], low: float, high: float, out: Float[Tensor, "*axes"] | None = None
) -> Float[Tensor, "*axes"]:
    """Values from `low..high` to 0..1, clipped there (`kd.data.ValueRange`); in `out` where it is given."""
    return torch.div((frames - low) if low else frames, high - low, out=out).clamp_(0.0, 1.0)


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)
def _area_operator_on(
    n_in: int, n_out: int, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "n_out n_in"]:
    return area_operator(n_in, n_out).to(device, dtype)


def _rows_resized_once(
    frames: Shaped[Tensor, "F Y X C"], through: int, n_out: int
) -> Float[Tensor, "F n_out X C"]:
    n_frames, n_rows, _, n_channels = frames.shape
    sums = _row_sums(n_frames, n_rows, through, n_out, frames.device)
    table = rearrange(frames, "f y x c -> (f y) (x c)").float()
    # Of torch's ways to add up a few rows each the one that is as fast as memory.
    new = F.embedding_bag(sums.rows, table, sums.begins, mode="sum", per_sample_weights=sums.weights)
    return rearrange(new, "(f y) (x c) -> f y x c", f=n_frames, c=n_channels)


def _columns_resized_once(
    frames: Float[Tensor, "F y X C"], through: int, n_out: int
) -> Float[Tensor, "F y n_out C"]:
    n_frames, _, n_columns, n_channels = frames.shape
    operator = _column_operator(n_columns, through, n_out, n_channels, frames.device)
    new = rearrange(frames, "f y x c -> (f y) (x c)") @ operator
    return rearrange(new, "(f y) (x c) -> f y x c", f=n_frames, c=n_channels)


@dataclass(frozen=True, kw_only=True, slots=True)
class _RowSums:
    """Which rows of all frames, one below the other, are added up for each new row, and how much of each."""

    rows: Int64[Tensor, " n"]
    weights: Float[Tensor, " n"]
    begins: Int64[Tensor, " new"]
    """Index into `rows` at which those of each new row begin."""


@lru_cache(maxsize=16)
def _row_sums(n_frames: int, n_in: int, through: int, n_out: int, device: torch.device) -> _RowSums:
    operator = _one_operator(n_in, through, n_out)
    new, old = torch.nonzero(operator, as_tuple=True)
    frames, begins = torch.arange(n_frames)[:, None], torch.searchsorted(new, torch.arange(n_out))
    return _RowSums(
        rows=(frames * n_in + old).flatten().to(device),
        weights=repeat(operator[new, old].float(), "n -> (f n)", f=n_frames).to(device),
        begins=(frames * len(old) + begins).flatten().to(device),
    )


@lru_cache(maxsize=16)
def _column_operator(
    n_in: int, through: int, n_out: int, n_channels: int, device: torch.device
) -> Float[Tensor, "old new"]:
    """For columns whose channels lie side by side."""
    apart = torch.eye(n_channels, dtype=torch.float64)
    return torch.kron(_one_operator(n_in, through, n_out).T.contiguous(), apart).float().to(device)


def _one_operator(n_in: int, through: int, n_out: int) -> Float64[Tensor, "n_out n_in"]:
    """The product of both resizes of one axis."""
    columns = torch.eye(n_in, dtype=torch.float64)[None, None]
    bilinear = resize_bilinear(columns, through, n_in)[0, 0]
    return area_operator(through, n_out).double() @ bilinear


def _blur_operator(n: int, sigma: float, taps: int, device: torch.device) -> Float[Tensor, "n n"]:
    """A band matrix; its outermost rows sum to less than 1, because what lies outside is black.

    Made where it is used: every view has a `sigma` of its own, and a copy would be waited for.
    """
    pixel = torch.arange(n, device=device)
    distance = pixel[:, None] - pixel[None, :]
    offsets = torch.arange(taps, dtype=torch.float32, device=device) - taps // 2
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights = torch.exp(-(distance.float() ** 2) / (2 * sigma**2)) / kernel.sum()
    return torch.where(distance.abs() <= taps // 2, weights, 0.0)


def _separable(
    frames: Float[Tensor, "F C Y X"], rows: Float[Tensor, "y Y"], columns: Float[Tensor, "x X"]
) -> Float[Tensor, "F C y x"]:
    along_x = einsum(frames, columns, "f c y x, out x -> f c y out")
    return einsum(along_x, rows, "f c y x, out y -> f c out x")


def _triangle(distance: Tensor) -> Tensor:
    return (1.0 - distance).clamp(min=0.0)


def _keys(distance: Tensor) -> Tensor:
    """The cubic of Keys (1981) with a = -0.5; torch's own `bicubic` has -0.75."""
    near = (1.5 * distance - 2.5) * distance**2 + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return torch.where(distance < 1.0, near, torch.where(distance < 2.0, far, 0.0))


_KERNELS: dict[str, Callable[[Tensor], Tensor]] = {"linear": _triangle, "cubic": _keys}


def temporal_matrix(n_in: int, n_out: int, method: Method) -> Float[Tensor, "U T"]:
    """Weights of every native step T in every resized step U, as `jax.image.resize` has them.

    Half-pixel centres; taps outside are dropped and the rest renormalised; where it shrinks, the kernel
    is stretched by the ratio (antialias).

    Raises:
        CallError: `method` is unknown, or a number of steps is not positive.
    """
    if method not in _KERNELS or min(n_in, n_out) < 1:
        raise CallError(
            f"cannot resize {n_in} steps to {n_out} by {method!r}: known are {', '.join(_KERNELS)}."
        )
    ratio = n_in / n_out
    centres = (torch.arange(n_out, dtype=torch.float64) + 0.5) * ratio - 0.5
    distance = (centres[:, None] - torch.arange(n_in, dtype=torch.float64)).abs() / max(ratio, 1.0)
    weights = _KERNELS[method](distance)
    return (weights / weights.sum(dim=1, keepdim=True)).float()
