"""Tokens that are resized and standardised without being written, against those that are."""

import pytest
import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor

from featcache.resampling import temporal_matrix
from readouts.tokens.implicit import ImplicitTokens, TemporalResize
from readouts.tokens.prepared import (
    PreparedTokens,
    prepared,
)

C = 12


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def resized(features: Tensor, matrix: Tensor | None) -> PreparedTokens:
    return PreparedTokens(features, None if matrix is None else TemporalResize.by(matrix))


def test_implicit_tokens_by_hand() -> None:
    # Steps 1 and 3 make 1, 2, 3 by the matrix, and 1, 4, 9 with the gain; a key of 10, weights of 1, 1, 2.
    implicit = ImplicitTokens(
        native=torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1),
        matrix=torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]),
        gain=torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1),
    )
    assert implicit.steps == 3
    assert implicit.written().flatten().tolist() == [1, 4, 9]
    assert implicit.dot(torch.tensor([[10.0]])).flatten().tolist() == [10, 40, 90]
    weights = torch.tensor([1.0, 1.0, 2.0]).reshape(1, 1, 3, 1)
    assert implicit.pool(weights).item() == 1 + 4 + 18


def test_standardised_tokens_have_mean_0_and_variance_1() -> None:
    # (1, 3): mean 2, variance 1.
    found = prepared(torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2)).standardised.written()
    torch.testing.assert_close(found.flatten(), torch.tensor([-1.0, 1.0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", [None, "linear", "cubic"])
@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 2e-3), (30.0, 1.0), (0.0, 0.0)])
def test_standardising_is_a_layer_norm_of_resized_tokens(
    method: str | None, mean: float, deviation: float
) -> None:
    # Variance 4e-6 beside an epsilon of 1e-6, means that E[x^2] - E[x]^2 would drown in, no variance at all.
    features = (mean + deviation * draw(2, 8, 3, 64)).float()
    matrix = torch.eye(8) if method is None else temporal_matrix(8, 16, method)
    in_full = einsum(matrix.double(), features.double(), "u t, b t n c -> b u n c")
    expected = F.layer_norm(in_full, (64,), eps=1e-6)
    found = resized(features, None if method is None else matrix).standardised.written()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_steps_that_cancel_in_the_resize_have_no_negative_variance() -> None:
    # The second of four steps is 3/4 of the first native one and 1/4 of the other.
    first = 100 * draw(1, 1, 200, C).float()
    found = resized(torch.cat([first, -3 * first], dim=1), temporal_matrix(2, 4, "linear")).standardised
    assert found.gain.isfinite().all()
