"""Sizes, parameters and arithmetic against published counts."""

from collections.abc import Callable

import pytest

from featcache.backbones import BACKBONES
from featcache.backbones.catalogue import HUB, INFOS, VIDEOMAE_SIZES, VideoMAESize
from featcache.errors import CallError
from featcache.spec import Layer


@pytest.mark.parametrize(
    ("name", "params_m", "gflop", "grid", "megabytes"),
    [
        ("videomae_b", 86.23, 361, (8, 14, 14, 768), 2.41),
        ("videomae_l", 303.86, 1194, (8, 14, 14, 1024), 3.21),
        ("videomae_h", 631.61, 2382, (8, 14, 14, 1280), 4.01),
        ("resize", 0, 0, (16, 16, 16, 3), 0.02),
    ],
)
def test_published_sizes(
    name: str,
    params_m: float,
    gflop: float,
    grid: tuple[int, int, int, int],
    megabytes: float,
    check_published: Callable[..., None],
) -> None:
    check_published(INFOS[name], params_m, gflop, grid, megabytes)


def test_every_registered_name_is_described() -> None:
    assert list(INFOS) == list(BACKBONES)
    assert all(info.name == name for name, info in INFOS.items())


def test_default_layers_are_those_of_the_public_code() -> None:
    assert INFOS["resize"].default_layers == (Layer(0),)
    assert INFOS["videomae_b"].default_layers == (Layer(12, True),)
    assert INFOS["videomae_l"].default_layers == (Layer(24, True),)
    # Fine-tuned: the file holds no norm for tokens.
    assert INFOS["videomae_h"].default_layers == (Layer(32),)


def test_what_may_not_be_sold_says_so() -> None:
    for name, hub in HUB.items():
        assert INFOS[name].licence == hub.licence == "CC-BY-NC-4.0"
        assert not INFOS[name].commercial


def test_controls_are_labelled() -> None:
    controls = {name: info.control for name, info in INFOS.items() if info.control}
    assert controls == {
        "resize": "no model",
        "videomae_random": "random weights",
        "videomae_random_s": "random weights",
        "videomae_random_b": "random weights",
    }
    assert VIDEOMAE_SIZES["videomae_random_b"] == VIDEOMAE_SIZES["videomae_b"]


@pytest.mark.parametrize("change", [{"input_size": (225, 224)}, {"n_frames": 15}, {"heads": 7}])
def test_sizes_that_do_not_divide(change: dict[str, object]) -> None:
    with pytest.raises(CallError):
        VideoMAESize(**{"width": 768, "depth": 12, "heads": 12, "mlp": 3072, **change})  # type: ignore[arg-type]
