"""Orders that are computed: every number once, each place as likely as any, alike for alike keys."""

import numpy as np
import pytest

from readouts.features.orders import Bijection, hashed


@pytest.mark.parametrize("n", [1, 2, 5, 64, 65, 1000, 30_011])
def test_a_bijection_gives_every_number_once(n: int) -> None:
    numbers = Bijection(n, [3, 4]).at(np.arange(n))
    assert np.array_equal(np.sort(numbers), np.arange(n))
    # Each place is computed by itself.
    assert Bijection(n, [3, 4]).at(np.array([n - 1, 0])).tolist() == [numbers[-1], numbers[0]]


def test_a_bijection_of_a_hundred_million_costs_what_is_asked_for() -> None:
    n = 10**8
    numbers = Bijection(n, [0, 0]).at(np.arange(100_000))
    assert len(np.unique(numbers)) == 100_000
    counts, _ = np.histogram(numbers, bins=10, range=(0, n))
    assert 9_500 < counts.min() <= counts.max() < 10_500  # 10,000 expected, standard deviation 95
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.02


def test_every_place_of_a_small_bijection_is_taken_about_as_often() -> None:
    orders = np.stack([Bijection(6, [0, epoch]).at(np.arange(6)) for epoch in range(3000)])
    counts = np.stack([np.bincount(of_place, minlength=6) for of_place in orders.T])
    assert counts.min() > 400  # 500 expected, standard deviation 20
    assert counts.max() < 600
    # All of the 720 orders come up, or nearly: a network that reaches few of them is no shuffle.
    assert len(np.unique(orders, axis=0)) > 600


def test_hashed_numbers_fill_their_range_evenly() -> None:
    drawn = hashed(np.arange(60_000), np.uint64(7), 6)
    assert np.abs(np.bincount(drawn, minlength=6) - 10_000).max() < 400  # standard deviation 91
    assert not np.array_equal(drawn, hashed(np.arange(60_000), np.uint64(8), 6))
