"""The two forms are one function, gradients included, and the measurement runs."""

from unittest.mock import patch

import torch

from readouts.heads import TrackingReadout
from readouts.heads.attention import Trunk
from readouts.tokens.prepared import TokenPreparation
from tests.benchmarks.tracking_step import CHANNELS, STEPS, measure, textbook


def test_outputs_and_gradients_are_the_textbooks() -> None:
    generator = torch.Generator().manual_seed(0)
    head = TrackingReadout(channels=CHANNELS, steps=2 * STEPS, width=64, generator=generator)
    prepare = TokenPreparation(steps_in=STEPS, steps_out=2 * STEPS, method="linear")
    tokens = torch.randn(2, STEPS, 9, CHANNELS, generator=generator).half()
    queries = torch.rand(2, 3, 2, generator=generator)
    found = []
    for forward in (Trunk.forward, textbook):
        head.zero_grad()
        with patch.object(Trunk, "forward", forward):
            outputs = head(prepare(tokens), queries)
        outputs.square().sum().backward()
        found.append({"outputs": outputs.detach(), **{n: p.grad for n, p in head.named_parameters()}})
    ours, theirs = found
    for name, expected in theirs.items():
        # A key bias has no effect, and so a gradient of rounding only.
        size = 1.0 if name.endswith("key.bias") else expected.abs().max().item()
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=1e-5 * size, msg=name)


def test_it_measures() -> None:
    assert [claim.what for claim in measure(small=True)] == ["textbook over ours"]
