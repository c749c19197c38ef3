"""What rounding costs is measured: nothing between equals, by hand, and every family is recorded."""

import pytest
import torch

from featcache.backbones.catalogue import BACKBONES
from featcache.backbones.model import BFLOAT16_OFF
from tests.benchmarks.bfloat16_cost import ONE_A_FAMILY, main, off_float32, rms_over_spread

CPU = torch.device("cpu")


def test_rms_over_spread_by_hand() -> None:
    exact = torch.tensor([0.0, 2.0])
    assert rms_over_spread(exact, exact) == 0
    assert rms_over_spread(exact + torch.tensor([1.0, -1.0]), exact) == pytest.approx(1 / 2**0.5)


def test_every_family_with_blocks_is_recorded_and_measured() -> None:
    families = {model.family for model in BACKBONES.values()} - {"resize"}
    assert BFLOAT16_OFF.keys() == families == {BACKBONES[name].family for name in ONE_A_FAMILY}


def test_a_small_model_is_off_by_what_bfloat16_holds(capsys: pytest.CaptureFixture[str]) -> None:
    first, last = off_float32("videomae_random", CPU).values()
    assert 2**-10 < first < last < 2**-5  # eight bits, rounded a few dozen times
    main(["--backbones", "videomae_random", "--device", "cpu"])
    assert f"| videomae_random | {first:.2%} | {last:.2%} (2_normed) |" in capsys.readouterr().out
