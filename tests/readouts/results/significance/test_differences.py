"""Verdicts: seeds count beside clips, val does not judge, and equals are rarely told apart."""

import numpy as np
import pytest
from scipy.stats import t as student

from readouts.results.significance.bootstrap import Resampled
from readouts.results.significance.differences import (
    CLEAR,
    LUCK,
    MEANING,
    ONE_SEED,
    SELECTED,
    Trainings,
    difference,
)

CLUSTERS = 20


def resampled_mean(values: np.ndarray, rng: np.random.Generator) -> Resampled:
    """The mean of one number a cluster; the same `rng` state gives the same draws."""
    drawn = values[rng.integers(CLUSTERS, size=(400, CLUSTERS))].mean(axis=1)
    return Resampled(value=float(values.mean()), drawn=drawn, n_clusters=CLUSTERS, kind="videos")


def pair(gap: float, noise: float = 0.1) -> tuple[Resampled, Resampled]:
    values = np.random.default_rng(0).normal(size=CLUSTERS)
    other = values - gap + noise * np.random.default_rng(1).normal(size=CLUSTERS)
    return tuple(resampled_mean(of, np.random.default_rng(2)) for of in (values, other))  # type: ignore[return-value]


def test_the_interval_of_clips_and_seeds_by_hand() -> None:
    a, b = pair(1.0)
    seeds = Trainings(first=(1.0, 1.2, 1.4), second=(0.1, 0.3))
    found = difference(a, b, seeds)
    # Pooled over both: (0.08 + 0.02) / 3 degrees of freedom, and 1/3 + 1/2 of it for the means.
    spread, freedom = (0.08 + 0.02) / 3 * (1 / 3 + 1 / 2), 3
    assert seeds.spread == pytest.approx((spread, freedom))
    clips = (a.drawn - b.drawn).var(ddof=1) * CLUSTERS / (CLUSTERS - 1)
    reach = np.hypot(student.ppf(0.975, 19) * np.sqrt(clips), student.ppf(0.975, freedom) * np.sqrt(spread))
    assert found.interval.high - found.value == pytest.approx(reach)
    alone = difference(a, b)
    assert alone.interval.high - alone.value == pytest.approx(student.ppf(0.975, 19) * np.sqrt(clips))
    assert not alone.counts_seeds


def test_verdicts_say_what_they_stand_on() -> None:
    a, b = pair(1.0)
    several, single = Trainings(first=(1.0, 1.1), second=(0.0, 0.1)), Trainings(first=(1.0,), second=(0.0,))
    assert difference(a, b, several).verdict("test") == CLEAR
    assert difference(a, b, several).verdict("val") == SELECTED
    assert difference(a, b, single).verdict("test") == ONE_SEED
    assert difference(a, b, Trainings(first=(1.0, -1.0), second=(0.0,))).verdict("test") == LUCK
    assert difference(*pair(0.0), single).verdict("test") == LUCK
    assert {CLEAR, LUCK, ONE_SEED, SELECTED} == MEANING.keys()


def test_what_is_fitted_has_no_spread_over_seeds() -> None:
    a, b = pair(1.0)
    fitted = Trainings(first=(1.0,), second=(0.0,), fitted=(True, True))
    assert difference(a, b, fitted).verdict("test") == CLEAR
    assert difference(a, b, fitted).interval == difference(a, b).interval
    one = Trainings(first=(1.0,), second=(0.0,), fitted=(True, False))
    assert difference(a, b, one).verdict("test") == ONE_SEED


@pytest.mark.parametrize("n_seeds", [2, 3])
def test_equals_are_called_clear_no_more_often_than_it_says(n_seeds: int) -> None:
    rng, n_sets, clear = np.random.default_rng(n_seeds), 600, 0
    for _ in range(n_sets):
        hard, seed = rng.normal(size=CLUSTERS), 0.3 * rng.normal(size=(2, n_seeds))
        sides = [hard + 0.5 * rng.normal(size=CLUSTERS) + of.mean() for of in seed]
        state = int(rng.integers(2**31))
        a, b = (resampled_mean(side, np.random.default_rng(state)) for side in sides)
        found = difference(a, b, Trainings(first=seed[0].tolist(), second=seed[1].tolist()))
        clear += found.verdict("test") == CLEAR
    assert clear / n_sets < 0.07  # 5 % expected, standard deviation 0.9 %
