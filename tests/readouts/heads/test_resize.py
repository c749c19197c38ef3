"""The two forms of the bilinear resize are one function, forward and backward."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from readouts.heads.resize import resize_by_products, resize_maps


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return drawn.contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("n_channels", [3, 12])
@pytest.mark.parametrize("size", [(14, 20), (19, 36), (5, 6), (5, 20)])
def test_products_are_the_resize(n_channels: int, size: tuple[int, int]) -> None:
    maps = draw(2, n_channels, 7, 10, dtype=torch.float64)
    ours, torchs = resize_by_products(maps, *size), resize_maps(maps, *size)
    assert ours.stride() == torchs.stride(), "channels stay last"
    # The operators are those of float32 tokens, of which weights such as 1/3 are rounded.
    torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-6)
    slope = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grads = [torch.autograd.grad(of, maps, slope)[0] for of in (ours, torchs)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-5)


def test_twice_the_size_is_torchs_without_antialias() -> None:
    maps = draw(1, 9, 4, 6)
    expected = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.equal(resize_maps(maps, 8, 12), expected)
    torch.testing.assert_close(resize_by_products(maps, 8, 12), expected, rtol=0, atol=1e-6)


def test_operators_of_an_evaluation_serve_training() -> None:
    maps = draw(1, 9, 3, 5)
    with torch.inference_mode():
        resize_by_products(maps, 11, 13)
    resize_by_products(maps, 11, 13).sum().backward()
    assert maps.grad is not None
    assert maps.grad.sum() == pytest.approx(9 * 11 * 13, rel=1e-5)
