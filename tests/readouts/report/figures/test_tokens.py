"""Tokens as colours: components that find what varies, ranks by hand, strips of the right size."""

import numpy as np
import pytest

from readouts.report.figures.tokens import PCA_TOKENS, Spectrum, principal_components, spectrum, token_strips


def test_the_first_component_is_the_direction_that_varies_most() -> None:
    rng = np.random.default_rng(0)
    along = np.array([3.0, 4.0, 0.0, 0.0]) / 5
    amount = rng.normal(scale=10, size=(2, 2, 3, 3, 1))
    tokens = (amount * along + rng.normal(scale=0.01, size=(2, 2, 3, 3, 4)) + 7).astype(np.float32)
    of = spectrum(tokens)
    found = principal_components(tokens, of)[..., 0]
    expected = amount[..., 0] - amount.mean()
    assert abs(np.corrcoef(found.ravel(), expected.ravel())[0, 1]) > 0.9999
    np.testing.assert_allclose(of.variances[0], amount.var(ddof=1), rtol=1e-2)


def test_two_channels_leave_the_third_component_empty() -> None:
    tokens = np.random.default_rng(0).normal(size=(1, 2, 3, 3, 2)).astype(np.float32)
    components = principal_components(tokens, spectrum(tokens))
    assert components.shape == (1, 2, 3, 3, 3)
    assert not components[..., 2].any()
    assert components[..., 0].std() > 0


@pytest.mark.parametrize(
    ("variances", "participation", "entropy"),
    [
        ([2.0, 2.0, 2.0, 2.0], 4, 4),
        ([5.0, 0.0, 0.0, 0.0], 1, 1),
        ([3.0, 1.0, 0.0, 0.0], 1.6, (3 / 4) ** (-3 / 4) * (1 / 4) ** (-1 / 4)),
        ([0.0, 0.0, 0.0, 0.0], 0, 0),
    ],
)
def test_effective_ranks_by_hand(variances: list[float], participation: float, entropy: float) -> None:
    of = Spectrum(
        mean=np.zeros(4, np.float32), variances=np.array(variances), directions=np.eye(4, dtype=np.float32)
    )
    assert of.participation_ratio == pytest.approx(participation)
    assert of.entropy_rank == pytest.approx(entropy)


def test_one_channel_and_more_tokens_than_are_looked_at() -> None:
    tokens = np.random.default_rng(0).normal(size=(1, PCA_TOKENS + 5, 1, 1, 1)).astype(np.float32)
    assert spectrum(tokens).variances == pytest.approx([1.0], rel=0.05)


@pytest.mark.parametrize(
    ("rows", "size"),
    [(4, (112, 8 * 112, 3)), (120, (120, 8 * 120, 3))],  # 28 pixels a token; more rows than pixels: one
)
def test_a_strip_has_a_tile_for_each_frame_above_it(pixels_of, rows: int, size: tuple[int, ...]) -> None:
    components = np.random.default_rng(0).normal(size=(2, 2, rows, rows, 3)).astype(np.float32)
    strips = token_strips(components)
    assert len(strips) == 2
    assert pixels_of(strips[0]).shape == size


@pytest.mark.parametrize(
    ("steps", "last_only", "shown"),
    [
        (2, False, [0, 0, 0, 0, 1, 1, 1, 1]),
        (8, False, [0, 1, 2, 3, 4, 5, 6, 7]),
        (16, False, [0, 2, 4, 6, 9, 11, 13, 15]),  # as `featcache.data.previews` chooses 8 of 16 frames
        (1, True, [None] * 7 + [0]),
    ],
)
def test_a_tile_is_of_the_step_of_its_frame(pixels_of, steps: int, last_only: bool, shown: list) -> None:
    # Step i is as bright as i, in all three components; the second clip widens the range of a single step.
    components = np.broadcast_to(np.arange(steps)[:, None, None, None], (steps, 4, 4, 3))
    clips = np.stack([components, np.full_like(components, 16)]).astype(np.float32)
    strip = pixels_of(token_strips(clips, last_only=last_only)[0])
    tiles = strip[0, 56::112, 0].astype(float)
    expected = [255 if step is None else 255 * step / 16 for step in shown]
    np.testing.assert_allclose(tiles, expected, atol=3)
