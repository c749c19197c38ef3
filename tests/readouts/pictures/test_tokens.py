"""Tokens as colours: components that find what varies, strips of the right size."""

import numpy as np
import pytest

from readouts.pictures import principal_components, token_strips


def test_the_first_component_is_the_direction_that_varies_most() -> None:
    rng = np.random.default_rng(0)
    along = np.array([3.0, 4.0, 0.0, 0.0]) / 5
    amount = rng.normal(scale=10, size=(2, 2, 3, 3, 1))
    tokens = (amount * along + rng.normal(scale=0.01, size=(2, 2, 3, 3, 4)) + 7).astype(np.float32)
    found = principal_components(tokens)[..., 0]
    expected = amount[..., 0] - amount.mean()
    assert abs(np.corrcoef(found.ravel(), expected.ravel())[0, 1]) > 0.9999


def test_two_channels_leave_the_third_component_empty() -> None:
    tokens = np.random.default_rng(0).normal(size=(1, 2, 3, 3, 2)).astype(np.float32)
    components = principal_components(tokens)
    assert components.shape == (1, 2, 3, 3, 3)
    assert not components[..., 2].any()
    assert components[..., 0].std() > 0


@pytest.mark.parametrize(
    ("rows", "size"),
    [(4, (112, 2 * 112, 3)), (120, (120, 2 * 120, 3))],  # 28 pixels a token; more rows than pixels: one
)
def test_a_strip_has_a_tile_for_each_step(make_split, pixels_of, rows: int, size: tuple[int, ...]) -> None:
    tokens = np.random.default_rng(0).normal(size=(4, 1, 2, rows, rows, 5))
    store = make_split("val", tokens, np.eye(7, dtype=int)[:4])
    strips = token_strips(store, [0, 3])
    assert sorted(strips) == [0, 3]
    assert pixels_of(strips[0]).shape == size
