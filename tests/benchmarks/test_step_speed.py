"""A readout's training step beside the straightforward one: up-sampled tokens, per-token keys and values."""

import pytest
import torch
from torch import nn

from featcache.upsample import temporal_matrix
from readouts.heads import AttentionReadout
from readouts.tokens import TokenPreparation

BATCH, STEPS, TOKENS, CHANNELS, WIDTH, HEADS = 4, 8, 196, 768, 1024, 16


class PlainAttention(nn.Module):
    """The textbook form: every up-sampled token meets a key and a value matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("matrix", temporal_matrix(STEPS, 2 * STEPS, "linear"))
        self.temporal = nn.Parameter(torch.zeros(2 * STEPS, 1, CHANNELS))
        self.norm = nn.LayerNorm(CHANNELS, eps=1e-6)
        self.query = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, kdim=CHANNELS, vdim=CHANNELS, batch_first=True)
        self.classifier = nn.Linear(WIDTH, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        upsampled = torch.einsum("ut,btnc->bunc", self.matrix, tokens.float())
        flat = (self.norm(upsampled) + self.temporal).flatten(1, 2)
        found, _ = self.attention(self.query.expand(len(flat), -1, -1), flat, flat, need_weights=False)
        return self.classifier(found[:, 0])


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randn(BATCH, STEPS, TOKENS, CHANNELS).half()


@pytest.mark.benchmark(group="attention step, forward and backward")
def test_plain(benchmark, tokens: torch.Tensor) -> None:
    head = PlainAttention()
    benchmark(lambda: head(tokens).square().sum().backward())


@pytest.mark.benchmark(group="attention step, forward and backward")
def test_folded(benchmark, tokens: torch.Tensor) -> None:
    head = AttentionReadout(channels=CHANNELS, steps=2 * STEPS, n_outputs=4, width=WIDTH, heads=HEADS)
    prepare = TokenPreparation(steps_in=STEPS, steps_out=2 * STEPS, method="linear")
    benchmark(lambda: head(prepare(tokens)).square().sum().backward())
