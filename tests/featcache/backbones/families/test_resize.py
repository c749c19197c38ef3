"""The parameter-free baseline against the reference's PassThroughModel."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.backbones import load_backbone
from featcache.backbones.base import preprocessing
from featcache.backbones.catalogue import BACKBONES
from featcache.backbones.families.resize import ResizeTokens, patch_mean
from featcache.errors import CallError
from featcache.spec import Layer, TokenGrid

CPU = torch.device("cpu")


def test_reference_pass_through(shared: Path) -> None:
    with np.load(shared / "golden/reference/pass_through.npz", allow_pickle=False) as file:
        image, expected = file["in/image"], file["out/image"]
    found = patch_mean(torch.from_numpy(np.moveaxis(image, -1, 2)), (1, 4, 2)).numpy()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_whole_path_on_a_gradient() -> None:
    # Columns 0..223 in 16 patches of 14: means 6.5, 20.5, ..., over 223; constant along frames and rows.
    ramp = torch.arange(224).float() / 223
    colour = torch.tensor([1.0, 0.5, 0.25]).reshape(1, 1, 3, 1, 1)
    clip = ramp.expand(2, 16, 3, 224, 224) * colour
    backbone = load_backbone("resize")
    tokens = backbone.load((Layer(0),), CPU, torch.bfloat16)(clip)[Layer(0)]
    assert tokens.shape == (2, 16, 16, 16, 3) and tokens.dtype == torch.float32
    expected = (6.5 + 14 * torch.arange(16).float()) / 223
    torch.testing.assert_close(tokens[1, 3, 5, :, 1], 0.5 * expected, atol=1e-6, rtol=1e-5)


def test_other_sizes_are_resized_by_area() -> None:
    clip = torch.rand(1, 16, 3, 448, 448, generator=torch.Generator().manual_seed(0))
    tokens = load_backbone("resize").load((Layer(0),), CPU, torch.float32)(clip)[Layer(0)]
    torch.testing.assert_close(tokens, patch_mean(clip, (1, 28, 28)), atol=1e-6, rtol=1e-5)


def test_other_patches() -> None:
    info = replace(
        BACKBONES["resize"].info,
        name="coarse",
        input_size=(12, 8),
        n_frames=4,
        grid=TokenGrid(steps=2, rows=3, columns=4, channels=3),
    )
    backbone = ResizeTokens(info=info, patch=(2, 4, 2))
    clip = torch.rand(1, 4, 3, 12, 8, generator=torch.Generator().manual_seed(0))
    tokens = backbone.load((Layer(0),), CPU, torch.float32)(clip)[Layer(0)]
    torch.testing.assert_close(tokens[0, 1, 2, 3], clip[0, 2:, :, 8:, 6:].mean((0, 2, 3)))
    with pytest.raises(CallError, match="do not divide"):
        ResizeTokens(info=info, patch=(2, 5, 2))


def test_what_goes_into_a_fingerprint() -> None:
    backbone = load_backbone("resize")
    assert backbone.weights_digest() == "no weights"
    assert backbone.preprocessing()["mean"] is None
    # Other last bits than two resizes give, so another fingerprint.
    assert backbone.preprocessing()["resize"] == "area, in one with the task's"
    assert preprocessing(replace(backbone.info, resize_once=False))["resize"] == "area"
    assert backbone.architecture() == {
        "family": "patch mean",
        "patch": [1, 1, 1],
        "grid": {"steps": 16, "rows": 16, "columns": 16, "channels": 3},
    }


def test_there_is_one_layer() -> None:
    backbone = load_backbone("resize")
    assert backbone.info.default_layers == (Layer(0),)
    with pytest.raises(CallError, match="layer 1"):
        backbone.load((Layer(1),), CPU, torch.float32)
