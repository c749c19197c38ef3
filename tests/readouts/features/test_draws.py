"""Draws: every clip once an epoch, views evenly, nothing but seed and step in it."""

import numpy as np
import pytest

from readouts.features.draws import Draws, evenly


def test_an_epoch_draws_every_clip_once_and_the_next_in_another_order() -> None:
    draws = Draws(n_clips=10, n_views=1, batch=4, seed=5)
    drawn = np.concatenate([draws.at(step)[0] for step in range(5)])
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert not np.array_equal(drawn[:10], drawn[10:])
    # Batch 2 holds draws 8..11, so the end of one epoch and the start of the next.
    assert np.array_equal(draws.at(2)[0], drawn[8:12])


def test_every_view_is_drawn_about_as_often() -> None:
    draws = Draws(n_clips=1000, n_views=4, batch=1000, seed=0)
    counts = np.bincount(draws.at(0)[1], minlength=4)
    assert counts.min() > 200  # 250 expected, standard deviation 14


def test_each_clip_draws_from_its_own_views() -> None:
    counts = (1, 3, 8, 2)
    draws = Draws(n_clips=4, n_views=counts, batch=400, seed=2)
    clips, views = draws.at(0)
    for clip, count in enumerate(counts):
        assert set(views[clips == clip].tolist()) == set(range(count))


def test_as_many_views_of_each_clip_are_drawn_as_one_number_of_all() -> None:
    alike, each = (Draws(n_clips=5, n_views=n, batch=7, seed=3) for n in (4, (4,) * 5))
    for step in range(4):
        assert np.array_equal(alike.at(step), each.at(step))


@pytest.mark.parametrize("mixed", [1, 2, 5])
def test_shards_are_read_group_by_group_and_mixed_within(mixed: int) -> None:
    shards = np.repeat(np.arange(5), 8)
    draws = Draws(n_clips=40, n_views=1, batch=8 * mixed, seed=1, shards=shards, mix_shards=mixed)
    whole = np.concatenate([draws.at(step)[0] for step in range(5)])
    assert sorted(whole[:40]) == list(range(40))
    first = draws.at(0)[0]
    assert len(set(shards[first])) == mixed
    # Mixed: in file order, or one shard after the other, hardly any clip would come before its neighbour.
    assert (np.diff(first) < 0).sum() > 2
    assert not np.array_equal(
        first, Draws(n_clips=40, n_views=1, batch=8 * mixed, seed=2, shards=shards, mix_shards=mixed).at(0)[0]
    )


def test_a_few_are_taken_from_all_over_with_both_ends() -> None:
    cases = [(10, 4), (3, 5), (1, 2), (0, 3), (5, 1)]
    assert [evenly(n, most).tolist() for n, most in cases] == [[0, 3, 6, 9], [0, 1, 2], [0], [], [0]]
