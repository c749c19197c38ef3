"""Mean and largest token to a small MLP: the reader between linear and attention.

Against the linear readout it says what a non-linear reading of the same mean gives and what a short event
adds, which a mean over 1,568 tokens dilutes and a maximum keeps. Tokens are normalised first: a few tokens of
a transformer have norms far above the rest (Darcet et al. 2024) and would be every maximum.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from readouts.heads.base import Readout
from readouts.heads.layers import Dropout, mlp
from readouts.tokens.implicit import ImplicitTokens
from readouts.tokens.prepared import PreparedTokens


class PooledMLPReadout(Readout):
    """Mean and maximum of the normalised tokens over steps and positions, an MLP with dropout on both."""

    def __init__(
        self,
        *,
        channels: int,
        n_outputs: int,
        hidden: int = 512,
        dropout: float = 0.1,
        generator: Generator | None = None,
    ) -> None:
        """Draw a new head; `dropout` acts on what was pooled."""
        super().__init__()
        self.dropout = Dropout(dropout)
        self.mlp = mlp(2 * channels, hidden, n_outputs, generator=generator)

    def summary(self, tokens: PreparedTokens) -> Float[Tensor, "B K"]:
        """Mean and maximum of the tokens after the resize in time."""
        return mean_and_max(tokens)

    def read(self, found: Float[Tensor, "B K"]) -> Float[Tensor, "B O"]:
        """One row of outputs per clip."""
        logits: Tensor = self.mlp(self.dropout(found))
        return logits


def mean_and_max(tokens: PreparedTokens) -> Float[Tensor, "B K"]:
    """The C means, then the C maxima, over the standardised tokens of each clip: K = 2 C."""
    if tokens.differentiable is not None:
        return _pooled(tokens.standardised)
    n_clips, _, _, n_channels = tokens.native.shape
    found = torch.empty(n_clips, 2 * n_channels, device=tokens.native.device)

    def work(clips: slice, standardised: ImplicitTokens) -> None:
        found[clips] = _pooled(standardised)

    tokens.visit_standardised(work)
    return found


def _pooled(tokens: ImplicitTokens) -> Float[Tensor, "B K"]:
    written = tokens.written()
    return torch.cat([written.mean(dim=(1, 2)), written.amax(dim=(1, 2))], dim=-1)
