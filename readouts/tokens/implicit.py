"""Tokens resized in time and standardised over channels, without writing either down.

The reference resizes a clip's T native steps to U, then normalises each token over its channels. Given the
deviations, both are linear in the native tokens, and all that attention does with tokens is two products. So
the resize and the deviations fold into small tensors: see `ImplicitTokens`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from readouts.tokens.products import product

LAYER_NORM_EPS = 1e-6
"""Flax's default; torch's 1e-5 shifts a readout by 1e-4 and more (REFERENCE: tolerances)."""


@dataclass(frozen=True, kw_only=True)
class ImplicitTokens:
    """Tokens `z[u, n] = gain[u, n] * sum_t matrix[u, t] * native[t, n]`, used but never written.

    Scores are products with a key k, pooling is a sum under weights a:

        z[u, n] . k              = gain[u, n] * sum_t matrix[u, t] * (native[t, n] . k)
        sum_un a[u, n] * z[u, n] = sum_tn (sum_u matrix[u, t] * gain[u, n] * a[u, n]) * native[t, n]

    so only native tokens meet C channels; the resize and the gain act on one number per key and token. A
    layer norm after the resize has this form. A resize of tokens with mean 0 over channels has mean 0, so of
    centred native tokens only the deviation is left to divide by, and it needs T x T numbers per token:

        gain[u, n] = (sum_ts matrix[u, t] * covariance[n, t, s] * matrix[u, s] + eps) ** -0.5
        covariance[n, t, s] = native[t, n] . native[s, n] / C
    """

    native: Float[Tensor, "B T N C"]
    matrix: Float[Tensor, "U T"] | None
    """The resize in time; None where T = U."""
    gain: Float[Tensor, "B U N"]

    @property
    def steps(self) -> int:
        """U, the number of steps after the resize."""
        return self.gain.shape[1]

    def dot(self, keys: Float[Tensor, "*B K C"]) -> Float[Tensor, "B K U N"]:
        """The products of every token with every key; keys may differ by clip."""
        flat = self.native.flatten(1, 2)
        products = product(torch.bmm, keys.expand(len(flat), -1, -1), flat.mT)
        products = rearrange(products, "b k (t n) -> b k t n", t=self.native.shape[1])
        return _mixed(self.matrix, products) * self.gain[:, None]

    def pool(self, weights: Float[Tensor, "B K U N"]) -> Float[Tensor, "B K C"]:
        """The sums of all tokens of a clip under `weights`."""
        matrix = None if self.matrix is None else self.matrix.mT
        by_native = _mixed(matrix, weights * self.gain[:, None])
        return product(torch.bmm, by_native.flatten(2), self.native.flatten(1, 2))

    def written(self) -> Float[Tensor, "B U N C"]:
        """The tokens written down."""
        return self.resized(self.native)

    def projected(self, weight: Float[Tensor, "D C"]) -> Float[Tensor, "B U N D"]:
        """The products of every token with the rows of `weight`, written down: native ones are projected."""
        return self.resized(product(F.linear, self.native, weight))

    def resized(self, native: Float[Tensor, "B T N D"]) -> Float[Tensor, "B U N D"]:
        """What the native tokens were mapped to linearly, as the tokens would have been."""
        if self.matrix is not None:
            native = einsum(self.matrix, native, "u t, b t n d -> b u n d")
        return native * self.gain[..., None]


def _mixed(matrix: Float[Tensor, "O I"] | None, values: Float[Tensor, "B K I N"]) -> Float[Tensor, "B K O N"]:
    if matrix is None:
        return values
    flat = values.flatten(0, 1)
    # bmm, not matmul, which would fold the batch into the rows and give back a transposed layout.
    mixed = torch.bmm(matrix.expand(len(flat), -1, -1), flat)
    unfolded: Tensor = rearrange(mixed, "(b k) o n -> b k o n", b=len(values))
    return unfolded


@dataclass(frozen=True, kw_only=True)
class TemporalResize:
    """A resize of T steps to U, with what the deviations of resized tokens need of it."""

    matrix: Float[Tensor, "U T"]
    lags: tuple[Float[Tensor, "U _"], ...]
    """For lag = 0, 1, ...: the weight of native[t] . native[t + lag] in the square of each resized token.
    Only lags that the resize mixes: two of eight for a linear one."""

    @classmethod
    def by(cls, matrix: Float[Tensor, "U T"]) -> "TemporalResize":
        """Make the resize that multiplies steps by `matrix`."""
        # The first batch may be an evaluation's, and training can do nothing with inference tensors.
        with torch.inference_mode(False), torch.no_grad():
            n_steps = matrix.shape[1]
            lags = [matrix[:, : n_steps - lag] * matrix[:, lag:] for lag in range(n_steps)]
            last = max((lag for lag, weights in enumerate(lags) if weights.any()), default=0)
            # Each pair of steps stands twice in the square, each step with itself once.
            return cls(matrix=matrix, lags=(lags[0], *(2.0 * weights for weights in lags[1 : last + 1])))

    def variance(self, centred: Float[Tensor, "B T N C"]) -> Float[Tensor, "B U N"]:
        """The variance over channels of each resized token, given native tokens of mean 0 over channels."""
        n_steps, n_channels = centred.shape[1], centred.shape[3]
        squares = einsum(self.lags[0], _squared_norm(centred), "u t, b t n -> b u n")
        for lag, weights in enumerate(self.lags[1:], start=1):
            products = torch.linalg.vecdot(centred[:, : n_steps - lag], centred[:, lag:])
            squares = squares + einsum(weights, products, "u t, b t n -> b u n")
        # Rounding may not make it negative.
        variance: Tensor = (squares / n_channels).clamp(min=0.0)
        return variance


def gain_of(centred: Float[Tensor, "B T N C"], resize: TemporalResize | None) -> Float[Tensor, "B U N"]:
    """One over the deviation, over channels, of each resized token."""
    variance = _squared_norm(centred) / centred.shape[-1] if resize is None else resize.variance(centred)
    return (variance + LAYER_NORM_EPS).rsqrt()


def average_of(
    centred: Float[Tensor, "B T N C"], mean: Float[Tensor, "B T N"], resize: TemporalResize | None
) -> Float[Tensor, "B C"]:
    """The mean over all N tokens of all U steps of a clip."""
    by_step = centred.mean(dim=2) + mean.mean(dim=2)[..., None]
    if resize is None:
        return by_step.mean(dim=1)
    average: Tensor = einsum(resize.matrix.mean(dim=0), by_step, "t, b t c -> b c")
    return average


def _squared_norm(centred: Float[Tensor, "B T N C"]) -> Float[Tensor, "B T N"]:
    norm: Tensor = torch.linalg.vector_norm(centred, dim=-1)
    return norm.square()
