"""The linear readout: the mean token, one dense layer.

The weakest reader of the benchmark: what it finds, the backbone has already laid out.
"""

from jaxtyping import Float
from torch import Generator, Tensor

from readouts.heads.base import Readout
from readouts.heads.layers import dense
from readouts.tokens.prepared import PreparedTokens


class LinearReadout(Readout):
    """Mean over steps and tokens, then a dense layer (REFERENCE: LinearReadout)."""

    def __init__(self, *, channels: int, n_outputs: int, generator: Generator | None = None) -> None:
        super().__init__()
        self.classifier = dense(channels, n_outputs, generator=generator)

    def summary(self, tokens: PreparedTokens) -> Float[Tensor, "B C"]:
        """The mean token; half-precision tokens are summed in float32."""
        return tokens.average

    def read(self, found: Float[Tensor, "B C"]) -> Float[Tensor, "B O"]:
        """One row of outputs per clip."""
        logits: Tensor = self.classifier(found)
        return logits
