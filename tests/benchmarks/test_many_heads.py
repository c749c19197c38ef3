"""A readout trained in company is the same bits as alone, and the measurement runs."""

import torch

from readouts.tokens.prepared import TokenPreparation
from tests.benchmarks.attention_step import STEPS, draw_tokens
from tests.benchmarks.many_heads import draw_runs, measure, step


def test_company_changes_no_bit() -> None:
    tokens, together, apart = draw_tokens(small=True), draw_runs(small=True), draw_runs(small=True)
    prepare = TokenPreparation(steps_in=STEPS, steps_out=2 * STEPS, method="linear")
    for _ in range(3):
        losses = step(together, prepare, tokens)
        for name, run in apart.items():
            assert torch.equal(step({name: run}, prepare, tokens)[name], losses[name])
    for name, (head, _) in apart.items():
        of_both = zip(head.parameters(), together[name][0].parameters(), strict=True)
        assert all(torch.equal(*pair) for pair in of_both)


def test_it_measures() -> None:
    assert [claim.target for claim in measure(small=True)] == [4.0, None]
