"""A backbone's tokens and their way back, in one piece and in parts, and what a run says of it."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featcache.spec import Layer
from readouts.features.batches import Batch
from readouts.tokens.prepared import QuantizedTokens, ScatteredTokens
from readouts.training.tuning import Tuned, Tuning, given_to


class Mixed(nn.Module):
    """Tokens by a matrix, and how often and on how many clips that was done."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(4) + 0.1)
        self.seen: list[int] = []

    def forward(self, given: Tensor) -> Tensor:
        self.seen.append(len(given))
        return torch.tanh(given @ self.matrix)


def test_parts_give_the_tokens_and_the_gradient_of_the_whole() -> None:
    given = torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    found = []
    for micro_batch, seen in ((0, [5]), (2, [2, 2, 1, 2, 2, 1]), (9, [5])):
        module = Mixed()
        tokens, backward = Tuned(module, micro_batch).tokens_and_backward(given)
        tokens.square().sum().backward()
        assert module.matrix.grad is None
        backward()
        assert module.seen == seen and module.matrix.grad is not None
        found.append((tokens.detach(), module.matrix.grad))
    for tokens, gradient in found[1:]:
        torch.testing.assert_close(tokens, found[0][0])
        torch.testing.assert_close(gradient, found[0][1])


def test_tokens_to_be_scored_keep_nothing() -> None:
    module = Mixed()
    tokens = Tuned(module, 2).tokens(torch.ones(3, 1, 1, 4))
    assert not tokens.requires_grad and module.seen == [2, 1]


@pytest.mark.parametrize("kind", ["tensor", "pieces", "int8"])
def test_stored_tokens_of_any_form_are_given(kind: str) -> None:
    whole = torch.arange(48).reshape(2, 2, 3, 4)
    pieces = ScatteredTokens(
        pieces=[piece.half() for piece in whole.flatten(0, 1)[:, None]], pieces_per_clip=2
    )
    natives: dict[str, Any] = {
        "tensor": whole.half(),
        "pieces": pieces,
        "int8": QuantizedTokens(values=whole.to(torch.int8), scales=torch.full((2, 2, 3), 0.5)),
    }
    given = given_to(Batch(clips=np.arange(2), tokens=natives[kind], targets={}))
    torch.testing.assert_close(given.float(), whole * (0.5 if kind == "int8" else 1.0))


def test_a_row_tells_a_part_from_the_whole() -> None:
    about = {"backbone_lr": 0.1, "layer": Layer(3), "build": lambda device, rounds: Mixed()}
    part, whole = Tuning(blocks=2, **about), Tuning(blocks=None, **about)
    assert part.columns == {"tuned": "partial", "tuned_blocks": 2, "backbone_lr": 0.1, "layer": "3"}
    assert whole.columns == {
        "tuned": "whole", "tuned_blocks": None, "backbone_lr": 0.1, "layer": "3", "exactness": "exact",
    }  # fmt: skip
    assert part.decisions == {"blocks": 2, "backbone_lr": 0.1, "layer": "3"}
    assert whole.decisions["blocks"] == "all"
