"""The tracking readout's forward and backward pass, beside the textbook's.

The textbook projects every up-sampled, normalised token and calls torch's attention, with the same
parameters. Ours projects native steps, half as many, and never holds what it has resized.
"""

from unittest.mock import patch

import torch
from torch import Tensor

from featcache.system.device import choose_device
from readouts.heads import TrackingReadout
from readouts.heads.attention import Trunk
from readouts.tokens.prepared import PreparedTokens, TokenPreparation
from readouts.training.step import backward
from tests.benchmarks.side_by_side import Claim, claim, in_turn

STEPS, CHANNELS = 8, 768


def textbook(trunk: Trunk, tokens: PreparedTokens, query: Tensor) -> Tensor:
    """`Trunk.forward` with the tokens written down, each projected."""
    normed = tokens.standardised.written() * trunk.norm.weight + trunk._shift(tokens.steps)[:, None]
    return trunk._refined(trunk.attention(normed, query), query)


def measure(small: bool) -> list[Claim]:
    """The textbook's time over ours; a batch of a quarter of the benchmark's, on a GPU all of it."""
    device, generator = choose_device("auto"), torch.Generator().manual_seed(0)
    n_clips, n_tokens, n_points = (2, 9, 3) if small else (8 if device.type == "cpu" else 32, 196, 64)
    width = {"width": 64} if small else {}
    head = TrackingReadout(channels=CHANNELS, steps=2 * STEPS, generator=generator, **width).to(device)
    prepare = TokenPreparation(steps_in=STEPS, steps_out=2 * STEPS, method="linear").to(device)
    tokens = torch.randn(n_clips, STEPS, n_tokens, CHANNELS, generator=generator).half().to(device)
    queries = torch.rand(n_clips, n_points, 2, generator=generator).to(device)

    def ours() -> None:
        backward({0: head}, prepare(tokens), {"queries": queries}, lambda _, outputs: outputs.square().sum())

    def theirs() -> None:
        with patch.object(Trunk, "forward", textbook):
            ours()

    times = in_turn({"ours": ours, "textbook": theirs}, rounds=1 if small else 5)
    return [
        claim(
            times, group="tracking step, forward and backward", what="textbook over ours", over="textbook",
            under="ours", detail=f"{n_clips} clips, {n_points} points",
        )
    ]  # fmt: skip
