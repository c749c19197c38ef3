"""What is published of DINOv2, DINOv3, V-JEPA 2 and VideoPrism, against what follows from their sizes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featcache.backbones import BACKBONES, backbone_table
from featcache.backbones.vit_catalogue import FILES, VIT_HUB, VIT_INFOS
from featcache.spec import Layer

PUBLISHED = [
    # name, blocks, parameters (M), GFLOP a clip, grid, MB a clip, blocks at 0.95 and at 0.1
    ("dinov2_s", 12, 22.06, 196, (16, 16, 16, 384), 3.15, 10, 0),
    ("dinov2_b", 12, 86.58, 741, (16, 16, 16, 768), 6.29, 10, 0),
    ("dinov2_l", 24, 304.37, 2592, (16, 16, 16, 1024), 8.39, 21, 0),
    ("dinov2_g", 40, 1136.48, 9580, (16, 16, 16, 1536), 12.58, 36, 2),
    ("videoprism_b", 16, 114.37, 973, (16, 16, 16, 768), 6.29, 14, 0),
    ("videoprism_l", 28, 353.97, 2999, (16, 16, 16, 1024), 8.39, 25, 0),
    ("videoprism_g", 44, 1112.76, 9344, (16, 16, 16, 1408), 11.53, 40, 2),
    ("vjepa2_l", 24, 303.89, 1656, (8, 16, 16, 1024), 4.19, 21, 0),
    ("vjepa2_h", 32, 631.65, 3272, (8, 16, 16, 1280), 5.24, 29, 1),
    ("vjepa2_g", 40, 1012.17, 5088, (8, 16, 16, 1408), 5.77, 36, 2),
    ("vjepa2_g384", 40, 1012.17, 14105, (8, 24, 24, 1408), 12.98, 36, 2),
    ("dinov3_s", 12, 21.60, 150, (16, 14, 14, 384), 2.41, 10, 0),
    ("dinov3_b", 12, 85.66, 574, (16, 14, 14, 768), 4.82, 10, 0),
    ("dinov3_l", 24, 303.13, 2011, (16, 14, 14, 1024), 6.42, 21, 0),
    ("dinov3_hplus", 32, 840.59, 5508, (16, 14, 14, 1280), 8.03, 29, 1),
    ("dinov3_7b", 40, 6716.04, 43608, (16, 14, 14, 4096), 25.69, 36, 2),
]


@pytest.mark.parametrize("row", PUBLISHED, ids=[str(row[0]) for row in PUBLISHED])
def test_published_sizes(row: tuple[Any, ...], check_published: Callable[..., None]) -> None:
    name, n_blocks, *counts, at_095, at_01 = row
    assert VIT_INFOS[name].n_blocks == n_blocks
    assert VIT_INFOS[name].default_layers == (Layer(n_blocks, normed=True),)
    check_published(VIT_INFOS[name], *counts, at={0.95: at_095, 0.1: at_01})


def test_every_model_is_here_and_registered() -> None:
    assert [row[0] for row in PUBLISHED] == list(VIT_INFOS)
    assert set(VIT_INFOS) <= set(BACKBONES)
    assert set(VIT_INFOS) == set(VIT_HUB) | set(FILES)


def test_pixels_and_steps_of_each_family() -> None:
    for name, info in VIT_INFOS.items():
        assert (info.mean is None) == name.startswith("videoprism")
        # Tubelets halve the steps, which the readouts get stretched; the others have a step a frame.
        assert info.upsampling == ("linear" if name.startswith("vjepa2") else None)
        assert info.readout_steps == 16


def test_what_must_be_asked_for_says_so() -> None:
    private = {name for name, info in VIT_INFOS.items() if not info.public}
    assert private == {"videoprism_g", "dinov3_s", "dinov3_b", "dinov3_l", "dinov3_hplus", "dinov3_7b"}
    assert VIT_INFOS["videoprism_g"].source == "not public"


def test_the_table_sees_single_files(tmp_path: Path) -> None:
    def status() -> dict[str, str]:
        return {row.info.name: row.weights for row in backbone_table(tmp_path)}

    assert status()["videoprism_b"] == status()["dinov2_b"] == "missing"
    for name in ("videoprism_b", "dinov2_b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / FILES[name].file).touch()
    assert status()["videoprism_b"] == status()["dinov2_b"] == "here"
    (tmp_path / "dinov2_s").mkdir()
    assert status()["dinov2_s"] == "incomplete"
