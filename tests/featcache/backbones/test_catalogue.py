"""What is known of every model against published counts, and what its release says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featcache.backbones import BACKBONES, backbone_table
from featcache.spec import Layer

PUBLISHED: list[tuple[Any, ...]] = [
    # name, blocks, parameters (M), GFLOP a clip, grid, MB a clip, blocks at 0.95 and at 0.1
    ("resize", 0, 0.0, 0, (16, 16, 16, 3), 0.02, None, None),
    ("videomae_b", 12, 86.23, 361, (8, 14, 14, 768), 2.41, 10, 0),
    ("videomae_l", 24, 303.86, 1194, (8, 14, 14, 1024), 3.21, 21, 0),
    ("videomae_h", 32, 631.61, 2382, (8, 14, 14, 1280), 4.01, 29, 1),
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
    ("vjepa21_b", 12, 86.24, 1576, (8, 24, 24, 768), 7.08, 10, 0),
    ("vjepa21_l", 24, 303.89, 4885, (8, 24, 24, 1024), 9.44, 21, 0),
    ("vjepa21_g", 40, 1012.18, 14105, (8, 24, 24, 1408), 12.98, 36, 2),
    ("vjepa21_gigantic", 48, 1843.93, 23767, (8, 24, 24, 1664), 15.34, 44, 2),
    ("dinov3_s", 12, 21.6, 150, (16, 14, 14, 384), 2.41, 10, 0),
    ("dinov3_b", 12, 85.66, 574, (16, 14, 14, 768), 4.82, 10, 0),
    ("dinov3_l", 24, 303.13, 2011, (16, 14, 14, 1024), 6.42, 21, 0),
    ("dinov3_hplus", 32, 840.59, 5508, (16, 14, 14, 1280), 8.03, 29, 1),
    ("dinov3_7b", 40, 6716.04, 43608, (16, 14, 14, 4096), 25.69, 36, 2),
    ("4ds_b_dist_e", 12, 87.44, 361, (8, 14, 14, 768), 2.41, 10, 0),
    ("4ds_l", 24, 305.49, 1194, (8, 14, 14, 1024), 3.21, 21, 0),
    ("4ds_e", 56, 3809.46, 12919, (8, 14, 14, 1792), 5.62, 52, 3),
    ("vjepa_l", 24, 305.49, 1194, (8, 14, 14, 1024), 3.21, 21, 0),
    ("vjepa_h", 32, 633.66, 2382, (8, 14, 14, 1280), 4.01, 29, 1),
    ("vjepa_h384", 32, 637.55, 9295, (8, 24, 24, 1280), 11.8, 29, 1),
    ("videomaev2_b", 12, 86.23, 361, (8, 14, 14, 768), 2.41, 10, 0),
    ("videomaev2_l", 24, 303.86, 1194, (8, 14, 14, 1024), 3.21, 21, 0),
    ("videomaev2_h", 32, 631.61, 2382, (8, 14, 14, 1280), 4.01, 29, 1),
    ("videomaev2_g", 40, 1011.61, 5086, (8, 16, 16, 1408), 5.77, 36, 2),
]
INFOS = {name: model.info for name, model in BACKBONES.items()}
RELEASES = {name: model.release for name, model in BACKBONES.items() if model.release}
CONTROLS = ("resize", "videomae_random", "videomae_random_s", "videomae_random_b")


@pytest.mark.parametrize("row", PUBLISHED, ids=[str(row[0]) for row in PUBLISHED])
def test_published_sizes(row: tuple[Any, ...], check_published: Callable[..., None]) -> None:
    name, n_blocks, *counts, at_095, at_01 = row
    assert INFOS[name].n_blocks == n_blocks
    check_published(INFOS[name], *counts, at={0.95: at_095, 0.1: at_01} if n_blocks else {})


def test_every_model_is_published_or_a_control() -> None:
    assert {row[0] for row in PUBLISHED} | set(CONTROLS) == set(BACKBONES)
    assert all(info.name == name for name, info in INFOS.items())
    assert BACKBONES.keys() - RELEASES.keys() == set(CONTROLS)


def test_default_layers_are_those_of_the_public_code() -> None:
    for name, info in INFOS.items():
        # The model's own output; VideoMAE-H and the hub's VideoMAEv2 have no norm for tokens.
        normed = not name.startswith(("videomaev2", "4ds")) and name not in ("videomae_h", "resize")
        at = {"4ds_b_dist_e": 10, "4ds_l": 21, "4ds_e": 52}.get(name, info.n_blocks)
        assert info.default_layers == (Layer(at, normed),), name


def test_pixels_and_steps_of_each_family() -> None:
    for name, info in INFOS.items():
        # The benchmark normalises pixels for all but these.
        assert (info.mean is None) == name.startswith(("videoprism", "4ds", "resize"))
        # Tubelets halve the steps, which readouts get stretched (4DS: by a cubic); others have one a frame.
        whole = name.startswith(("dino", "videoprism", "resize"))
        assert info.upsampling == (None if whole else "cubic" if name.startswith("4ds") else "linear")
        assert info.readout_steps == 16
        assert info.frame_level == name.startswith("dino")


def test_a_model_says_what_its_release_allows() -> None:
    for name, release in RELEASES.items():
        info = INFOS[name]
        assert (info.licence, info.source) == (release.licence, release.source)
        assert info.commercial == release.commercial
        assert info.public == release.public
        if name != "videoprism_g":  # never released, under no licence
            assert release.commercial == ("NC" not in release.licence), name
    private = {name for name, info in INFOS.items() if not info.public}
    gated = {f"dinov3_{size}" for size in ("s", "b", "l", "hplus", "7b")}
    assert private == gated | {"videoprism_g", "4ds_l"}
    assert {name for name, release in RELEASES.items() if release.gated} == gated
    assert INFOS["videoprism_g"].source == INFOS["4ds_l"].source == "not public"


def test_files_are_as_large_as_what_they_hold() -> None:
    # float32, and a little for names; V-JEPA's and V-JEPA 2.1's hold two encoders and Adam's state beside a
    # predictor, VideoMAE's a decoder, V-JEPA 2's a predictor.
    for name, release in RELEASES.items():
        model = 4e6 * INFOS[name].params_m
        copies = 4 if name.startswith(("vjepa_", "vjepa21")) else 1
        assert model * copies * 0.99 < release.n_bytes < model * copies * 1.3, name
        if name.startswith(("vjepa_", "4ds", "videomaev2")):
            assert release.n_bytes < model * copies * 1.06, name


def test_controls_are_labelled() -> None:
    controls = {name: info.control for name, info in INFOS.items() if info.control}
    assert controls == {"resize": "no model", **dict.fromkeys(CONTROLS[1:], "random weights")}
    assert BACKBONES["videomae_random_b"].size == BACKBONES["videomae_b"].size


def test_what_makes_the_video_vits_differ() -> None:
    for family, positions, gelu, final_norm, biases in (
        ("fourds", "stored", "tanh", False, "qkv"),
        ("vjepa", "stored", "erf", True, "qkv"),
        ("videomaev2", "sinusoid", "erf", True, "qv"),
    ):
        for size in sizes(family):
            assert (size.positions, size.gelu, size.final_norm) == (positions, gelu, final_norm)
            assert (size.block.biases, size.table) == (biases, None)


def test_what_no_key_shape_tells() -> None:
    # A wrong number of heads or another eps loads as well and gives other tokens.
    heads = {
        "dinov2": [6, 12, 16, 24], "dinov3": [6, 12, 16, 20, 32], "videoprism": [12, 16, 16],
        "vjepa2": [16, 16, 22, 22], "fourds": [12, 16, 16], "vjepa": [16, 16, 16],
        "videomaev2": [12, 16, 16, 16],
    }  # fmt: skip
    for family, expected in heads.items():
        assert [size.block.heads for size in sizes(family)] == expected, family
        assert {size.block.eps for size in sizes(family)} == {1e-5 if family == "dinov3" else 1e-6}, family
    assert [size.spatial_depth for size in sizes("videoprism")] == [12, 24, 40]
    assert {size.soft_cap for size in sizes("videoprism")} == {50.0}
    assert {size.registers for size in sizes("dinov3")} == {4}


def sizes(family: str) -> list[Any]:
    return [model.size for model in BACKBONES.values() if model.family == family]


def test_the_table_sees_single_files(tmp_path: Path) -> None:
    def status() -> dict[str, str]:
        return {row.info.name: row.weights for row in backbone_table(tmp_path)}

    assert status()["videoprism_b"] == status()["dinov2_b"] == "missing"
    for name in ("videoprism_b", "dinov2_b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / RELEASES[name].files[0]).touch()
    assert status()["videoprism_b"] == status()["dinov2_b"] == "here"
    (tmp_path / "dinov2_s").mkdir()
    assert status()["dinov2_s"] == "incomplete"
