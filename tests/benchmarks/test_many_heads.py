"""A readout trained beside others is the readout trained alone, up to rounding, and the measurement runs."""

import torch

from readouts.tokens.prepared import TokenPreparation
from readouts.training.step import for_each
from tests.benchmarks.attention_step import STEPS, draw_tokens
from tests.benchmarks.many_heads import CPU, draw_runs, measure, products_of, step


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


def test_products_are_those_of_all_threads_and_of_both_directions() -> None:
    left, right = torch.ones(8, 5, requires_grad=True), torch.ones(5, 3)

    def work() -> None:
        for_each(lambda of: (of @ right).sum().backward(), [left] * 4, CPU)

    products = products_of(work)
    # One product forward, one for the gradient of `left`.
    assert products.flops == 4 * 2 * (2 * 8 * 5 * 3)
    assert products_of(lambda: products.again(CPU)).flops == products.flops
