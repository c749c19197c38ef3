"""Draws: every clip once an epoch, views evenly, nothing but seed and step in it."""

from dataclasses import replace

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


def test_a_split_too_large_for_lists_is_drawn_once_an_epoch_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("readouts.features.draws.MOST_LISTED", 0)
    for n in (1, 2, 3, 10, 997, 1024):
        draws = Draws(n_clips=n, n_views=3, batch=7, seed=5)
        clips, views = (np.concatenate(of) for of in zip(*map(draws.at, range(n)), strict=True))
        assert sorted(clips[:n]) == sorted(clips[n : 2 * n]) == list(range(n))
        assert set(views.tolist()) <= {0, 1, 2}
    first, second = clips[:1024], clips[1024:2048]
    # Of a random order of 1,024, one clip stands where it did before; neighbours stay none.
    assert (first == second).sum() < 8
    assert (np.diff(first) == 1).sum() < 8
    assert np.abs(np.corrcoef(first, np.arange(1024))[0, 1]) < 0.1
    assert np.bincount(views[:1024], minlength=3).min() > 280  # 341 expected, deviation 15
    again = Draws(n_clips=1024, n_views=3, batch=7, seed=5)
    assert np.array_equal(again.at(700), draws.at(700))
    assert not np.array_equal(replace(again, seed=6).at(0)[0], again.at(0)[0])


def test_views_of_each_clip_where_they_are_counted_in_a_large_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("readouts.features.draws.MOST_LISTED", 0)
    counts = np.array([1, 3, 8, 2], np.int16)
    clips, views = Draws(n_clips=4, n_views=counts, batch=400, seed=2).at(0)
    for clip, count in enumerate(counts.tolist()):
        assert set(views[clips == clip].tolist()) == set(range(count))


@pytest.mark.parametrize("mixed", [1, 2, 4])
def test_shards_of_a_large_split_are_mixed_in_groups(mixed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("readouts.features.draws.MOST_LISTED", 0)
    sizes = np.array([8, 8, 5, 8, 3])
    shards = np.repeat(np.arange(5), sizes)
    draws = Draws(n_clips=32, n_views=1, batch=4, seed=1, shard_sizes=sizes, mix_shards=mixed)
    whole = np.concatenate([draws.at(step)[0] for step in range(16)])
    assert sorted(whole[:32]) == sorted(whole[32:]) == list(range(32))
    assert not np.array_equal(whole[:32], whole[32:])
    # A shard that was left is not come back to in that epoch.
    visits = shards[whole[:32]]
    for start in range(0, 5, mixed):
        group = list(dict.fromkeys(visits.tolist()))[start : start + mixed]
        where = np.flatnonzero(np.isin(visits, group))
        assert len(where) == np.ptp(where) + 1
