"""Sizes, costs and files of 4DS, V-JEPA and VideoMAEv2 against published counts."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from featcache.backbones.video_catalogue import (
    FOURDS_SIZES,
    VIDEO_FILES,
    VIDEO_INFOS,
    VIDEOMAEV2_SIZES,
    VJEPA_SIZES,
)
from featcache.errors import CallError

PUBLISHED = [
    # name, parameters (M), GFLOP a clip, grid, MB a clip, blocks at 0.95 and at 0.1
    ("4ds_b_dist_e", 87.44, 361, (8, 14, 14, 768), 2.41, 10, 0),
    ("4ds_l", 305.49, 1194, (8, 14, 14, 1024), 3.21, 21, 0),
    ("4ds_e", 3809.46, 12919, (8, 14, 14, 1792), 5.62, 52, 3),
    ("vjepa_l", 305.49, 1194, (8, 14, 14, 1024), 3.21, 21, 0),
    ("vjepa_h", 633.66, 2382, (8, 14, 14, 1280), 4.01, 29, 1),
    ("vjepa_h384", 637.55, 9295, (8, 24, 24, 1280), 11.80, 29, 1),
    ("videomaev2_b", 86.23, 361, (8, 14, 14, 768), 2.41, 10, 0),
    ("videomaev2_l", 303.86, 1194, (8, 14, 14, 1024), 3.21, 21, 0),
    ("videomaev2_h", 631.61, 2382, (8, 14, 14, 1280), 4.01, 29, 1),
    ("videomaev2_g", 1011.61, 5086, (8, 16, 16, 1408), 5.77, 36, 2),
]


@pytest.mark.parametrize("row", PUBLISHED, ids=[str(row[0]) for row in PUBLISHED])
def test_published_sizes(row: tuple[Any, ...], check_published: Callable[..., None]) -> None:
    name, *counts, at_095, at_01 = row
    check_published(VIDEO_INFOS[name], *counts, at={0.95: at_095, 0.1: at_01})


def test_what_makes_the_families_differ() -> None:
    for sizes, positions, gelu, final_norm, biases in (
        (FOURDS_SIZES, "stored", "tanh", False, "qkv"),
        (VJEPA_SIZES, "stored", "erf", True, "qkv"),
        (VIDEOMAEV2_SIZES, "sinusoid", "erf", True, "qv"),
    ):
        for name, size in sizes.items():
            assert (size.positions, size.gelu, size.final_norm) == (positions, gelu, final_norm), name
            assert (size.block.biases, size.block.eps, size.table) == (biases, 1e-6, None), name
    assert [sizes.block.heads for sizes in FOURDS_SIZES.values()] == [12, 16, 16]
    assert [sizes.block.heads for sizes in VJEPA_SIZES.values()] == [16, 16, 16]
    assert [sizes.block.heads for sizes in VIDEOMAEV2_SIZES.values()] == [12, 16, 16, 16]
    # The benchmark normalises pixels for all but 4DS, and stretches 4DS's tokens by a cubic.
    for name, info in VIDEO_INFOS.items():
        assert (info.mean is None) == (info.upsampling == "cubic") == name.startswith("4ds")


def test_every_model_has_a_file_and_says_what_it_allows() -> None:
    assert VIDEO_INFOS.keys() == VIDEO_FILES.keys()
    for name, info in VIDEO_INFOS.items():
        file = VIDEO_FILES[name]
        assert info.name == name and info.licence == file.licence
        assert info.commercial == ("NC" not in file.licence)
        assert info.public == (file.url is not None)
        if file.url is not None:
            assert file.url.endswith(file.file)
    assert [name for name, info in VIDEO_INFOS.items() if not info.public] == ["4ds_l"]


def test_files_are_as_large_as_what_they_hold() -> None:
    # float32, and a little for names; V-JEPA's hold two encoders and two moments of Adam beside a predictor.
    for name, file in VIDEO_FILES.items():
        model = 4e6 * VIDEO_INFOS[name].params_m
        copies = 4 if name.startswith("vjepa") else 1
        assert model * copies * 0.99 < file.n_bytes < model * copies * 1.06, name


@pytest.mark.parametrize("table", [(0, 14, 14), (8, 14, -1)])
def test_a_table_without_entries_is_refused(table: tuple[int, int, int]) -> None:
    with pytest.raises(CallError, match="must be positive"):
        replace(FOURDS_SIZES["4ds_l"], table=table)


def test_sizes_that_do_not_divide() -> None:
    with pytest.raises(CallError, match="do not divide"):
        replace(FOURDS_SIZES["4ds_l"], input_size=(225, 224))
