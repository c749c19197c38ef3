"""The online measurement runs, and its arithmetic is right; its times are for `make bench`."""

import numpy as np
import pytest

from tests.benchmarks import online


def test_it_runs_on_small_sizes() -> None:
    assert [claim.ratio > 0 for claim in online.measure(small=True)] == [True] * 3


def test_break_even_by_hand() -> None:
    step, mice, flies = online._claims(
        "b", 32, cached=np.array([0.5]), head=np.array([0.5]), a_clip=np.array([1.0])
    )
    assert step.ratio == (32 + 0.5) / 0.5
    # 26,970 passes of a second; a readout saves 40,000 x 32 of them.
    assert mice.ratio == pytest.approx(26_970 / 1_280_000)
    assert flies.ratio == pytest.approx(1_067_008 / 1_280_000)
