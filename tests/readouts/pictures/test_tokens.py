"""Tokens as colours: components that find what varies, ranks by hand, strips of the right size."""

import numpy as np
import pytest

from readouts.pictures import PCA_TOKENS, Spectrum, principal_components, spectrum, token_strips


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
    [(4, (112, 2 * 112, 3)), (120, (120, 2 * 120, 3))],  # 28 pixels a token; more rows than pixels: one
)
def test_a_strip_has_a_tile_for_each_step(pixels_of, rows: int, size: tuple[int, ...]) -> None:
    components = np.random.default_rng(0).normal(size=(2, 2, rows, rows, 3)).astype(np.float32)
    strips = token_strips(components)
    assert len(strips) == 2
    assert pixels_of(strips[0]).shape == size
