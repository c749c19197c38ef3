"""Mean and maximum of normalised tokens: by hand, and the same for constants and for what takes gradients."""

import pytest
import torch
from einops import rearrange
from torch import Tensor

from readouts.heads import PooledMLPReadout
from readouts.heads.pooled_mlp import mean_and_max
from readouts.tokens.implicit import TemporalResize
from readouts.tokens.prepared import PreparedTokens, prepared


def tokens(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_mean_and_maximum_by_hand() -> None:
    # Channels 3, 1 have mean 2 and deviation 1, so (1, -1); channels 0, 40 become (-1, 1) for all their size.
    features = torch.tensor([[[[3.0, 1.0], [0.0, 40.0], [5.0, 3.0]], [[9.0, 1.0], [2.0, 0.0], [1.0, 0.0]]]])
    found = mean_and_max(prepared(features))
    torch.testing.assert_close(found, torch.tensor([[4 / 6, -4 / 6, 1.0, 1.0]]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("matrix", [None, torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])])
def test_constants_and_tokens_with_gradients_give_the_same(matrix: Tensor | None) -> None:
    features = tokens(3, 2, 5, 6)
    taking = features.clone().requires_grad_()
    resize = None if matrix is None else TemporalResize.by(matrix)
    found = mean_and_max(PreparedTokens(taking, resize))
    torch.testing.assert_close(mean_and_max(PreparedTokens(features, resize)), found)
    found.sum().backward()
    assert taking.grad is not None and taking.grad.isfinite().all()


def test_neither_order_nor_scale_of_tokens_matters() -> None:
    head = PooledMLPReadout(channels=6, n_outputs=3, generator=torch.Generator().manual_seed(0)).eval()
    features = tokens(2, 2, 5, 6)
    other = rearrange(features, "b t n c -> b n t c") * torch.linspace(1, 50, 10).reshape(5, 2, 1)
    torch.testing.assert_close(head(other), head(features), rtol=1e-3, atol=1e-4)


def test_dropout_acts_in_training_only() -> None:
    head = PooledMLPReadout(channels=6, n_outputs=3, hidden=4, dropout=0.5)
    features = tokens(2, 2, 5, 6)
    assert not torch.equal(head(features), head(features))
    head.eval()
    torch.testing.assert_close(head(features), head(features))
