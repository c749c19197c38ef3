"""The readout's step is the textbook's, gradients included, and its measurement runs."""

import torch

from readouts.tokens.prepared import TokenPreparation
from tests.benchmarks.attention_step import STEPS, PlainAttention, draw_head, draw_tokens, measure


def test_outputs_and_gradients_are_the_textbooks() -> None:
    head, tokens = draw_head(small=True), draw_tokens(small=True)
    for number, parameter in enumerate(head.parameters()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        parameter.data += 0.05 * noise
    prepare = TokenPreparation(steps_in=STEPS, steps_out=2 * STEPS, method="linear")
    found = []
    for forward in (lambda: head(prepare(tokens)), lambda: PlainAttention(head)(tokens)):
        head.zero_grad()
        outputs = forward()
        outputs.square().sum().backward()
        found.append({"outputs": outputs.detach(), **{n: p.grad for n, p in head.named_parameters()}})
    ours, textbook = found
    for name, expected in textbook.items():
        # A key bias has no effect, and so a gradient of rounding only.
        size = 1.0 if name.endswith("key.bias") else expected.abs().max().item()
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=1e-5 * size, msg=name)


def test_it_measures() -> None:
    assert [claim.target for claim in measure(small=True)] == [20.0, None, None]
