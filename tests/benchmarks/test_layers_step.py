"""The measurement runs, and its readouts do take a step: every layer's gradient is there."""

import torch

from readouts.tokens.prepared import TokenPreparation
from tests.benchmarks.attention_step import STEPS, draw_tokens
from tests.benchmarks.layers_step import JOINT, LAYERS, draw_head, measure, step


def test_a_step_reaches_every_weight_of_every_layer() -> None:
    tokens = {layer: draw_tokens(small=True) for layer in LAYERS}
    prepare = TokenPreparation(steps_in=STEPS, steps_out=2 * STEPS, method="linear")
    for kind in JOINT:
        head = draw_head(kind, True, LAYERS)
        step({"all": head}, tokens, prepare)
        assert all(
            weight.grad is not None and torch.isfinite(weight.grad).all() for weight in head.parameters()
        )


def test_it_measures() -> None:
    assert [claim.target for claim in measure(small=True)] == [1.2, 1.2, None]
