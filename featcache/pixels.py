"""The reference's pixel arithmetic in torch: two resizes, the blur, the value range.

Each matches the TensorFlow operation the reference runs, which look-alikes do not: `mode="area"` of torch
is another operator when sizes do not divide (0.2 of full range apart), and an anti-aliased bilinear
resize is another image. Area resize and blur are products with small matrices, equal on every device as
long as float32 products are exact (`torch.set_float32_matmul_precision("highest")`, the default).
"""

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float
from torch import Tensor

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
    rows = area_operator(frames.shape[-2], height).to(frames)
    columns = area_operator(frames.shape[-1], width).to(frames)
    return _separable(frames, rows, columns)


def area_operator(n_in: int, n_out: int) -> Float[Tensor, "n_out n_in"]:
    """The area resize of one axis: a row holds the overlaps of a new pixel with the old ones, with sum 1."""
    scale = n_in / n_out
    first = torch.arange(n_out, dtype=torch.float64)[:, None] * scale
    pixel = torch.arange(n_in, dtype=torch.float64)[None, :]
    overlap = (torch.minimum(first + scale, pixel + 1) - torch.maximum(first, pixel)).clamp(min=0)
    return (overlap / overlap.sum(dim=1, keepdim=True)).float()


def gaussian_blur(
    frames: Float[Tensor, "F C Y X"], sigma: float, taps: int = BLUR_TAPS
) -> Float[Tensor, "F C Y X"]:
    """Separable Gaussian blur, `sigma` in pixels; outside the frame is zero, so borders darken.

    Source: `GaussianBlur` of the reference's `tf_transforms`.
    """
    rows = _blur_operator(frames.shape[-2], sigma, taps).to(frames)
    columns = _blur_operator(frames.shape[-1], sigma, taps).to(frames)
    return _separable(frames, rows, columns)


def value_range(
    frames: Float[Tensor, "*axes"], low: float, high: float, out: Float[Tensor, "*axes"] | None = None
) -> Float[Tensor, "*axes"]:
    """Values from `low..high` to 0..1, clipped there (`kd.data.ValueRange`); in `out` where it is given."""
    return torch.div((frames - low) if low else frames, high - low, out=out).clamp_(0.0, 1.0)


def _blur_operator(n: int, sigma: float, taps: int) -> Float[Tensor, "n n"]:
    """A band matrix; its outermost rows sum to less than 1, because what lies outside is black."""
    distance = torch.arange(n)[:, None] - torch.arange(n)[None, :]
    offsets = torch.arange(taps, dtype=torch.float32) - taps // 2
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights = torch.exp(-(distance.float() ** 2) / (2 * sigma**2)) / kernel.sum()
    return torch.where(distance.abs() <= taps // 2, weights, torch.zeros(()))


def _separable(
    frames: Float[Tensor, "F C Y X"], rows: Float[Tensor, "y Y"], columns: Float[Tensor, "x X"]
) -> Float[Tensor, "F C y x"]:
    along_x = einsum(frames, columns, "f c y x, out x -> f c y out")
    return einsum(along_x, rows, "f c y x, out y -> f c out x")
