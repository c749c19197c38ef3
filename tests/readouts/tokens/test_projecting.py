"""Projections of native tokens, of int8 ones as of what they stand for."""

import torch

from readouts.tokens.prepared import PreparedTokens, QuantizedTokens
from readouts.tokens.projecting import project


def test_int8_tokens_are_projected_as_what_they_stand_for() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-127, 128, (2, 2, 4, 12), generator=generator, dtype=torch.int8)
    scales = torch.rand(2, 2, 4, generator=generator)
    weight = torch.randn(3, 12, generator=generator)
    found = project(PreparedTokens(QuantizedTokens(values=values, scales=scales)), weight)
    whole = values.float() * scales[..., None]
    expected = (whole - whole.mean(dim=-1, keepdim=True)) @ weight.T
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)
