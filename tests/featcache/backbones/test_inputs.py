"""Frames as the models take them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from featcache.backbones import BACKBONES
from featcache.backbones.inputs import model_input

CPU = torch.device("cpu")


def test_golden_pixel_values(golden: SimpleNamespace) -> None:
    info = replace(BACKBONES["videomae_b"].info, input_size=(32, 32), n_frames=8)
    found = model_input(golden.clip, info, CPU).numpy()
    np.testing.assert_allclose(found, golden.pixel_values, atol=1e-6)


def test_mean_and_std_by_hand() -> None:
    info = replace(
        BACKBONES["resize"].info, n_frames=1, input_size=(1, 1), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0)
    )
    pixels = torch.tensor([1.0, 0.5, 1.0]).reshape(1, 1, 3, 1, 1)
    assert model_input(pixels, info, CPU).flatten().tolist() == [1.0, 1.0, 0.5]
    assert torch.equal(model_input(pixels, replace(info, mean=None, std=None), CPU), pixels)


def test_rows_and_columns_are_not_mixed_up() -> None:
    # 9 to 4, where the overlap is more than the two nearest rows that a bilinear resize would take.
    info = replace(BACKBONES["resize"].info, n_frames=2, input_size=(4, 2))
    pixels = torch.rand(3, 2, 3, 9, 2, generator=torch.Generator().manual_seed(0))
    found = model_input(pixels, info, CPU)
    assert found.shape == (3, 2, 3, 4, 2)
    overlaps = torch.tensor([0.25, 1.0, 1.0]) / 2.25
    torch.testing.assert_close(found[2, 1, 0, 3, 1], (overlaps * pixels[2, 1, 0, 6:9, 1]).sum())
