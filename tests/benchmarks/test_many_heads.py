"""A readout trained beside others is the readout trained alone, up to rounding, and the measurement runs."""

import torch

from readouts.tokens.prepared import TokenPreparation
from tests.benchmarks.attention_step import STEPS, draw_tokens
from tests.benchmarks.many_heads import (
    PRODUCTS_A_CLIP,
    draw_runs,
    flops_of,
    measure,
    products_alone,
    step,
)


def test_other_readouts_change_no_more_than_rounding() -> None:
    tokens, together, apart = draw_tokens(small=True), draw_runs(small=True), draw_runs(small=True)
    prepare = TokenPreparation(steps_in=STEPS, steps_out=2 * STEPS, method="linear")
    for _ in range(3):
        losses = step(together, prepare, tokens)
        for name, run in apart.items():
            alone = step({name: run}, prepare, tokens)[name]
            torch.testing.assert_close(alone, losses[name], rtol=1e-6, atol=0)
    for name, (head, _) in apart.items():
        of_both = zip(head.named_parameters(), together[name][0].parameters(), strict=True)
        for (path, own), beside_others in of_both:
            # Softmax ignores a key's bias: its gradient is rounding, of which Adam makes steps like any.
            # Other biases are three small steps away from zero: last bits are a larger share of them.
            if not path.endswith("key.bias"):
                assert (own - beside_others).norm() <= 1e-4 * own.norm(), path


def test_it_measures() -> None:
    assert [claim.target for claim in measure(small=True)] == [0.65, None, None, None]


def test_flops_are_those_of_all_threads() -> None:
    tokens = draw_tokens(small=True)
    n_clips, n_steps, n_tokens, n_channels = tokens.shape
    expected = 2 * PRODUCTS_A_CLIP * n_clips * 5 * n_steps * n_tokens * n_channels
    assert flops_of(lambda: products_alone(tokens, 5)) == expected
