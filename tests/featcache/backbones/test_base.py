"""Layer choice against the reference's own list, and the checks on what is known of a backbone."""

import subprocess
import sys
from dataclasses import replace

import pytest

from featcache.backbones.base import BackboneInfo, block_at_fraction, preprocessing, resolve_layers
from featcache.errors import CallError
from featcache.spec import Layer, TokenGrid

INFO = BackboneInfo(
    name="small",
    title="Small",
    source="here",
    licence="Apache-2.0",
    commercial=True,
    public=True,
    params_m=1.0,
    n_blocks=12,
    input_size=(224, 224),
    grid=TokenGrid(steps=8, rows=14, columns=14, channels=768),
    default_layers=(Layer(12, True),),
)


@pytest.mark.parametrize(
    ("n_blocks", "at_095", "at_01"),
    [
        (12, 10, 0),
        (24, 21, 0),
        (32, 29, 1),
        (40, 36, 2),
        (56, 52, 3),
        (16, 14, 0),
        (28, 25, 0),
        (44, 40, 2),
        (4, 2, 3),
    ],
)
def test_fraction_of_every_published_depth(n_blocks: int, at_095: int, at_01: int) -> None:
    assert block_at_fraction(0.95, n_blocks) == at_095
    assert block_at_fraction(0.1, n_blocks) == at_01


def test_fraction_indexes_the_list_the_reference_builds() -> None:
    for n_blocks in range(60):
        blocks_run = [0, *range(n_blocks)]  # tokens, then the input of every block
        for fraction in (0.05, 0.1, 0.25, 0.33, 0.5, 0.75, 0.9, 0.95, 1.0):
            reference = blocks_run[int((n_blocks + 1) * fraction) - 1]
            assert block_at_fraction(fraction, n_blocks) == reference, (n_blocks, fraction)


def test_layers_come_sorted_and_once() -> None:
    assert resolve_layers("0.95, 0.1,10,12_normed,12", INFO) == (
        Layer(0),
        Layer(10),
        Layer(12),
        Layer(12, True),
    )
    assert resolve_layers("default", INFO) == (Layer(12, True),)
    # A point makes a fraction: the 1st block is not the whole depth.
    assert resolve_layers("1", INFO) == (Layer(1),)
    assert resolve_layers("1.0", INFO) == (Layer(11),)


@pytest.mark.parametrize(
    "text", ["13", "-1", "11_normed", "1.5", "0.0", "nan.0", "last", "", "3,", "12_norm"]
)
def test_wrong_layers_say_the_range(text: str) -> None:
    with pytest.raises(CallError, match=r"blocks 0 \(the token embedding\) to 12 and 12_normed"):
        resolve_layers(text, INFO)


def test_a_model_without_final_norm_has_no_normed_layer() -> None:
    info = replace(INFO, final_norm=False, default_layers=(Layer(12),))
    with pytest.raises(CallError, match="ends without a norm"):
        resolve_layers("12_normed", info)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a/b"},
        {"name": ""},
        {"mean": (0.5, 0.5, 0.5)},
        {"default_layers": ()},
        {"default_layers": (Layer(13),)},
        {"n_blocks": -1},
        {"input_size": (0, 224)},
    ],
)
def test_info_is_checked_at_birth(change: dict[str, object]) -> None:
    with pytest.raises(CallError):
        replace(INFO, **change)  # type: ignore[arg-type]


def test_preprocessing_is_plain_json() -> None:
    info = replace(INFO, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    assert preprocessing(info) == {
        "n_frames": 16,
        "input_size": [224, 224],
        "resize": "area",
        "range": [0.0, 1.0],
        "mean": [0.1, 0.2, 0.3],
        "std": [1.0, 2.0, 3.0],
    }
    assert preprocessing(INFO)["mean"] is None


def test_listing_imports_neither_torch_nor_transformers() -> None:
    code = "import sys; from featcache import backbones; backbones.backbone_table(); print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert "featcache.backbones.base" in loaded
    assert not {"torch", "transformers"} & set(loaded)
