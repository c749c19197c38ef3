"""Resizes, blur and value range against the reference's TensorFlow, and against sums done by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange

from featcache.resampling import (
    area_operator,
    gaussian_blur,
    resize_area,
    resize_bilinear,
    resize_once,
    value_range,
)


def golden(shared: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(shared / "golden" / "reference" / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def channels_first(video: np.ndarray) -> torch.Tensor:
    return rearrange(torch.from_numpy(video).float(), "... y x c -> (...) c y x")


def test_operators_equal_the_reference(shared: Path) -> None:
    for key, expected in golden(shared, "data_resize_operators").items():
        _, method, sizes = key.split("/")
        n_in, n_out = map(int, sizes.split("to"))
        identity = rearrange(torch.eye(n_in), "y x -> 1 1 y x")
        resize = resize_area if method == "area" else resize_bilinear
        found = resize(identity, n_out, n_in)[0, 0]
        # 3e-5: the reference computes its overlaps in float32.
        np.testing.assert_allclose(found, expected, rtol=0, atol=3e-5, err_msg=key)
        if method == "area":
            np.testing.assert_allclose(area_operator(n_in, n_out), expected, rtol=0, atol=3e-5)


def test_images_equal_the_reference(shared: Path) -> None:
    cases = golden(shared, "data_resize_images")
    for i in range(3):
        frames = channels_first(cases[f"in/{i}"])
        for method, resize in (("area", resize_area), ("bilinear", resize_bilinear)):
            expected = channels_first(cases[f"out/{i}/{method}"])
            found = resize(frames, expected.shape[-2], expected.shape[-1])
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-3, err_msg=f"{i} {method}")


def test_area_by_hand() -> None:
    # Three pixels to two: each new one covers one and a half old ones.
    np.testing.assert_allclose(area_operator(3, 2), np.array([[2, 1, 0], [0, 1, 2]]) / 3, atol=1e-7)
    # Two to three: the middle one straddles both.
    np.testing.assert_allclose(area_operator(2, 3), np.array([[2, 0], [1, 1], [0, 2]]) / 2, atol=1e-7)


def test_equal_sizes_are_left_alone() -> None:
    frames = torch.rand(2, 3, 5, 7)
    assert resize_area(frames, 5, 7) is frames
    assert resize_bilinear(frames, 5, 7) is frames


def test_blur_equals_the_reference(shared: Path) -> None:
    cases = golden(shared, "data_gaussian_blur")
    for i in range(3):
        taps = 2 * (int(cases[f"in/{i}/kernel_size"]) // 2) + 1
        frames = channels_first(cases[f"in/{i}/video"])
        found = gaussian_blur(frames, float(cases[f"in/{i}/sigma"]), taps)
        expected = channels_first(cases[f"out/{i}"])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-3, err_msg=str(i))


@pytest.mark.parametrize("sigma", ["0.1", "0.5", "1.0", "2.0"])
def test_wide_blur_equals_the_reference(shared: Path, sigma: str) -> None:
    with np.load(shared / "golden" / "records" / "expected_augment.npz", allow_pickle=False) as cases:
        found = gaussian_blur(channels_first(cases["input"]), float(sigma))
        np.testing.assert_allclose(found, channels_first(cases[f"blur37/{sigma}"]), rtol=1e-5, atol=2e-3)


def test_blur_darkens_borders_and_keeps_the_middle() -> None:
    blurred = gaussian_blur(torch.full((1, 1, 21, 21), 100.0), sigma=1.0, taps=9)[0, 0]
    assert blurred[10, 10] == pytest.approx(100.0, abs=1e-3)
    # On an edge nearly half the kernel lies outside: half of 1 plus the middle tap's share, 0.399 / 2.
    assert blurred[0, 10] == pytest.approx(100 * (0.5 + 0.39894 / 2), abs=0.05)


def test_value_range_equals_the_reference(shared: Path) -> None:
    cases = golden(shared, "data_value_transforms")
    found = value_range(torch.from_numpy(cases["in/uint8"]).float(), 0.0, 255.0)
    np.testing.assert_allclose(found, cases["out/value_range_0_255_to_0_1"], rtol=1e-6, atol=2e-6)
    found = value_range(torch.from_numpy(cases["in/infrared"]), 170.0, 300.0)
    np.testing.assert_allclose(found, cases["out/value_range_infrared"], rtol=1e-6, atol=2e-6)


def test_value_range_clips() -> None:
    assert value_range(torch.tensor([150.0, 170.0, 235.0, 300.0, 337.0]), 170.0, 300.0).tolist() == [
        0,
        0,
        0.5,
        1,
        1,
    ]


def test_two_resizes_in_one_by_hand() -> None:
    # 2 -> 4 at half-pixel centres: a, (3a + b) / 4, (a + 3b) / 4, b; then the means of pairs.
    frames = torch.tensor([[0, 8], [16, 240]], dtype=torch.uint8)[None, :, :, None]
    assert resize_once(frames, (2, 4), (2, 2)).flatten().tolist() == [1, 7, 44, 212]
    assert resize_once(frames, (4, 2), (1, 2)).flatten().tolist() == [8, 124]


@pytest.mark.parametrize("through", [(224, 224), (50, 31), (9, 7)])
@pytest.mark.parametrize("size", [(16, 16), (5, 112), (9, 7)])
def test_two_resizes_in_one_are_the_two(through: tuple[int, int], size: tuple[int, int]) -> None:
    frames = torch.randint(256, (3, 37, 52, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = resize_once(frames, through, size)
    two = resize_area(resize_bilinear(frames.movedim(-1, 1).double(), *through), *size)
    torch.testing.assert_close(found.movedim(-1, 1).double(), two, atol=1e-4, rtol=0)
