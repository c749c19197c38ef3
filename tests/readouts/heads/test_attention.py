"""Attention heads: the folding is exact, and a head says what it is tied to."""

import pytest
import torch
from torch import nn

from featcache.errors import CallError
from readouts.heads import AttentionReadout, build_head
from readouts.heads.attention import CrossAttention
from readouts.tokens.implicit import ImplicitTokens
from readouts.tokens.pooling import Pooled, attend


def test_folded_attention_is_projected_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    attention = CrossAttention(channels=12, width=16, heads=4, bias=True, generator=generator).double()
    nn.init.normal_(attention.key.bias, generator=generator)
    nn.init.normal_(attention.value.bias, generator=generator)
    tokens = torch.randn(3, 2, 5, 12, generator=generator, dtype=torch.float64)
    query = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)
    affine = {
        "scale": torch.randn(12, generator=generator, dtype=torch.float64),
        "shift": torch.randn(2, 12, generator=generator, dtype=torch.float64),
    }
    implicit = ImplicitTokens(native=tokens, matrix=None, gain=torch.ones(3, 2, 5, dtype=torch.float64))
    folded_query = attention.pooling_query(query, **affine)
    pooled, mass = attend(implicit, folded_query.keys, folded_query.offset)
    folded = attention.read(Pooled(tokens=pooled, mass=mass), **affine)
    shifted = tokens * affine["scale"] + affine["shift"][:, None]
    projected = attention(shifted, query.expand(3, -1, -1, -1))
    torch.testing.assert_close(folded, projected, rtol=1e-10, atol=1e-12)


def test_the_forward_of_learned_queries_never_projects_a_token() -> None:
    head = build_head("attention", channels=16, steps=2, n_outputs=3, width=32, heads=4)
    assert isinstance(head, AttentionReadout)
    refuse = lambda *_: pytest.fail("a token met a projection")  # noqa: E731
    head.trunk.attention.key.register_forward_hook(refuse)
    head.trunk.attention.value.register_forward_hook(refuse)
    assert head(torch.zeros(2, 2, 5, 16)).shape == (2, 3)


def test_every_parameter_gets_a_gradient() -> None:
    head = build_head("attention", channels=16, steps=2, n_outputs=3, width=32, heads=4, n_queries=2)
    head(torch.randn(2, 2, 5, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_a_head_is_tied_to_its_steps() -> None:
    head = build_head("attention", channels=4, steps=8, n_outputs=1, width=8, heads=2)
    with pytest.raises(CallError, match="embedding of 8 steps and was given 16"):
        head(torch.zeros(1, 16, 3, 4))


def test_a_head_tells_steps_by_its_embedding_alone() -> None:
    """Attention has no order of its own: without the embedding a clip backwards is the same clip."""
    generator = torch.Generator().manual_seed(0)
    head = build_head("attention", channels=8, steps=4, n_outputs=3, width=16, heads=2, generator=generator)
    assert isinstance(head, AttentionReadout)
    tokens = torch.randn(2, 4, 3, 8, generator=generator)
    with torch.no_grad():
        for scale, same in ((0.0, True), (1.0, False)):
            head.trunk.temporal.normal_(generator=generator).mul_(scale)
            apart = (head(tokens) - head(tokens.flip(1))).abs().max()
            assert (apart < 1e-5) == same, f"{apart} apart with an embedding of scale {scale}"
