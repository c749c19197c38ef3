"""Several queries read together: one vector of outputs, which contains the mean of what each would say."""

from typing import Any

import pytest
import torch
from einops import repeat
from torch import Tensor

from featcache.errors import CallError
from readouts.heads import AttentionReadout, MultiQueryReadout
from readouts.tokens.implicit import TemporalResize
from readouts.tokens.prepared import PreparedTokens

SIZES: dict[str, Any] = {"channels": 6, "steps": 2, "n_outputs": 3, "width": 8, "heads": 2}


def tokens(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def head(**config: Any) -> MultiQueryReadout:
    return MultiQueryReadout(**SIZES | config, generator=torch.Generator().manual_seed(0))


def test_outputs_are_one_vector_per_clip() -> None:
    assert head().query.shape == (4, 2, 4)
    assert head(n_queries=5)(tokens(2, 2, 7, 6)).shape == (2, 3)


def test_one_query_is_the_attention_readout() -> None:
    one, attention = head(n_queries=1), AttentionReadout(**SIZES)
    attention.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(tokens(2, 2, 7, 6)), attention(tokens(2, 2, 7, 6)))


def test_equal_weights_give_the_mean_of_what_each_query_says() -> None:
    many, attention = head(n_queries=3), AttentionReadout(**SIZES, n_queries=3)
    attention.trunk.load_state_dict(many.trunk.state_dict())
    attention.query.data = many.query.data
    # The same dense layer for each of three queries, a third of it each.
    many.classifier.weight.data = repeat(attention.classifier.weight.data / 3, "o w -> o (q w)", q=3)
    features = tokens(2, 2, 7, 6)
    torch.testing.assert_close(many(features), attention(features).mean(dim=1))


def test_prepared_tokens_are_resized_in_time() -> None:
    features = tokens(2, 1, 5, 6)
    repeated = head()(features.expand(-1, 2, -1, -1))
    resized = PreparedTokens(features, TemporalResize.by(torch.ones(2, 1)))
    torch.testing.assert_close(head()(resized), repeated)


def test_impossible_heads_are_refused() -> None:
    with pytest.raises(CallError, match="width=8 must be a multiple of heads=3"):
        head(heads=3)
    with pytest.raises(CallError, match="embedding of 2 steps and was given 3"):
        head()(tokens(1, 3, 2, 6))
