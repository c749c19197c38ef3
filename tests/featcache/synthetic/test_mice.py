"""The motion of each mouse behaviour is the one its name promises."""

import numpy as np
import pytest

from featcache.synthetic import mice
from featcache.synthetic.base import stream


def distance(pair: mice.Pair) -> np.ndarray:
    return np.asarray(np.linalg.norm(pair[0].position - pair[1].position, axis=1))


@pytest.mark.parametrize("seed", range(5))
def test_a_mount_thrusts_along_the_body_with_period_8(seed: int) -> None:
    resident, intruder = mice.mount(stream(seed))
    gap = distance((resident, intruder))
    assert np.ptp(gap) > 25
    np.testing.assert_allclose(gap[:8], gap[8:], atol=3)
    arm = intruder.position - resident.position
    angle = np.arctan2(arm[:, 1], arm[:, 0]) - intruder.heading
    assert np.abs(np.angle(np.exp(1j * angle))).max() < 0.2


@pytest.mark.parametrize("seed", range(5))
def test_sniffing_comes_closer_and_stays(seed: int) -> None:
    gap = distance(mice.sniff(stream(seed)))
    assert gap[0] - gap[-1] > 45
    assert np.ptp(gap[-6:]) < 4
    assert np.diff(gap).max() < 3


def test_a_tumble_apart_moves_like_a_tumble_in_contact() -> None:
    near, far = mice.tumble(stream(2)), mice.tumble(stream(2), gap=150.0)
    np.testing.assert_array_equal(near[0].heading, far[0].heading)
    assert distance(near).mean() < 40
    assert distance(far).mean() > 140


@pytest.mark.parametrize("recipe", range(len(mice.MICE.recipes)))
def test_both_mice_are_seen(recipe: int) -> None:
    frames = mice.MICE.recipes[recipe].draw(stream("any", recipe))
    assert frames.shape == (16, mice.HEIGHT, mice.WIDTH)
    floor = frames[:, 60:230, 80:440]
    assert (floor < 50).any(axis=(1, 2)).all()
    assert (floor > 225).any(axis=(1, 2)).all()
