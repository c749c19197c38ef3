"""The linear readout: the mean token, one dense layer.

The weakest reader of the benchmark: what it finds, the backbone has already laid out.
"""

from jaxtyping import Float
from torch import Generator, Tensor

from readouts.heads.base import Readout
from readouts.heads.layers import dense
from readouts.tokens.prepared import Native, PreparedTokens, prepared


class LinearReadout(Readout):
    """Mean over steps and tokens, then a dense layer (REFERENCE: LinearReadout)."""

    def __init__(self, *, channels: int, n_outputs: int, generator: Generator | None = None) -> None:
        super().__init__()
        self.classifier = dense(channels, n_outputs, generator=generator)

    def forward(self, features: Native | PreparedTokens) -> Float[Tensor, "B O"]:
        """One row of outputs per clip; half-precision tokens are summed in float32."""
        logits: Tensor = self.classifier(prepared(features).average)
        return logits
