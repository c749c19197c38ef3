"""The motion of each fly behaviour is the one its name promises."""

from functools import partial

import numpy as np
import pytest

from featcache.synthetic import flies
from featcache.synthetic.base import stream


def distance(pair: flies.Pair) -> np.ndarray:
    return np.asarray(np.linalg.norm(pair[0].position - pair[1].position, axis=1))


@pytest.mark.parametrize("seed", range(5))
def test_a_lunge_is_a_dash_into_contact(seed: int) -> None:
    gap = distance(flies.lunge(stream(seed)))
    steps = -np.diff(gap)
    fast = np.flatnonzero(steps > flies.DASH / 2)
    assert len(fast) in (3, 4)
    assert np.all(np.diff(fast) == 1)
    assert np.all(np.abs(gap[fast[-1] + 1 :] - flies.CONTACT) < 2)
    assert np.all(gap[: fast[0]] > flies.CONTACT + 20)


@pytest.mark.parametrize("seed", range(5))
def test_circling_goes_round_at_a_constant_rate(seed: int) -> None:
    actor, other = flies.circling(stream(seed))
    arm = actor.position - other.position
    turn = np.diff(np.unwrap(np.arctan2(arm[:, 1], arm[:, 0])))
    assert 0.25 < abs(turn.mean()) < 0.45
    assert turn.std() < 0.05


def test_tussle_moves_and_copulation_keeps_still() -> None:
    rolling, still = flies.tussle(stream(1)), flies.copulation(stream(1))
    speed = [np.linalg.norm(np.diff(pair[0].position, axis=0), axis=1).mean() for pair in (rolling, still)]
    assert speed[0] > 4
    assert speed[1] < 1
    assert max(distance(rolling).mean(), distance(still).mean()) < flies.CONTACT


@pytest.mark.parametrize(
    ("behaviour", "twin"),
    [
        (flies.threat, partial(flies.threat, wings=flies.WINGS_FOLDED)),
        (flies.song, partial(flies.song, wing=flies.WINGS_FOLDED)),
    ],
)
def test_folded_wings_are_the_only_change_of_the_twin(
    behaviour: flies.Behaviour, twin: flies.Behaviour
) -> None:
    rng, twin_rng = stream(3), stream(3)
    (shown, other), (folded, same) = behaviour(rng), twin(twin_rng)
    assert rng.random() == twin_rng.random()  # so that dish and noise are the same too
    np.testing.assert_array_equal(shown.position, folded.position)
    np.testing.assert_array_equal(other.heading, same.heading)
    assert max(shown.left_wing.max(), shown.right_wing.max()) > 0.8
    assert max(folded.left_wing.max(), folded.right_wing.max()) < 0.25


@pytest.mark.parametrize("recipe", range(len(flies.FLIES.recipes)))
def test_flies_stay_in_the_picture(recipe: int) -> None:
    frames = flies.FLIES.recipes[recipe].draw(stream("any", recipe))
    assert frames.shape == (16, flies.SIDE, flies.SIDE)
    dark = (frames < 90).sum(axis=(1, 2))  # two bodies of about 300 dark pixels each, less where they overlap
    assert dark.min() > 250
    assert dark.max() < 1100
