"""Tokens as heads read them: resized in time and standardised, without writing either down.

The reference resizes a clip's T native steps to U, then normalises each token over its channels. Given the
deviations, both are linear in the native tokens, and all that attention does with tokens is two products. So
a batch is cast and centred once, for all its heads, and the rest folds into small tensors: see
`ImplicitTokens`.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn

from featcache.errors import CallError
from featcache.upsample import Method, temporal_matrix

LAYER_NORM_EPS = 1e-6
"""Flax's default; torch's 1e-5 shifts a readout by 1e-4 and more (REFERENCE: tolerances)."""


@dataclass(frozen=True, kw_only=True)
class ImplicitTokens:
    """Tokens `z[u, n] = gain[u, n] * sum_t matrix[u, t] * native[t, n]`, used but never written.

    Scores are products with a key k, pooling is a sum under weights a:

        z[u, n] . k              = gain[u, n] * sum_t matrix[u, t] * (native[t, n] . k)
        sum_un a[u, n] * z[u, n] = sum_tn (sum_u matrix[u, t] * gain[u, n] * a[u, n]) * native[t, n]

    so only native tokens meet C channels; the resize and the gain act on one number a key and token. A layer
    norm after the resize has this form. A resize of tokens with mean 0 over channels has mean 0, so of
    centred native tokens only the deviation is left to divide by, and it needs T x T numbers a token:

        gain[u, n] = (sum_ts matrix[u, t] * covariance[n, t, s] * matrix[u, s] + eps) ** -0.5
        covariance[n, t, s] = native[t, n] . native[s, n] / C
    """

    native: Float[Tensor, "B T N C"]
    matrix: Float[Tensor, "U T"] | None = None
    """The resize in time; None where T = U."""
    gain: Float[Tensor, "B U N"] | None = None
    """None for 1."""

    @property
    def steps(self) -> int:
        """U."""
        return self.native.shape[1] if self.matrix is None else len(self.matrix)

    def dot(self, keys: Float[Tensor, "K C"]) -> Float[Tensor, "B K U N"]:
        """The products of every token with every key."""
        flat = rearrange(self.native, "b t n c -> b c (t n)")
        products = torch.bmm(keys.expand(len(flat), -1, -1), flat)
        products = _mix(self.matrix, rearrange(products, "b k (t n) -> b k t n", t=self.native.shape[1]))
        return products if self.gain is None else products * self.gain[:, None]

    def pool(self, weights: Float[Tensor, "B K U N"]) -> Float[Tensor, "B K C"]:
        """The sums of all tokens of a clip under `weights`."""
        gained = weights if self.gain is None else weights * self.gain[:, None]
        spread = _mix(None if self.matrix is None else self.matrix.T, gained)
        flat = rearrange(self.native, "b t n c -> b (t n) c")
        return torch.bmm(rearrange(spread, "b k t n -> b k (t n)"), flat)

    def written(self) -> Float[Tensor, "B U N C"]:
        """The tokens themselves, for heads that project each."""
        resized = self.native
        if self.matrix is not None:
            resized = einsum(self.matrix, resized, "u t, b t n c -> b u n c")
        return resized if self.gain is None else resized * self.gain[..., None]


def _mix(matrix: Float[Tensor, "O I"] | None, values: Float[Tensor, "B K I N"]) -> Float[Tensor, "B K O N"]:
    if matrix is None:
        return values
    flat = rearrange(values, "b k i n -> (b k) i n")
    # bmm, not matmul, which would fold the batch into the rows and give back a transposed layout.
    mixed = torch.bmm(matrix.expand(len(flat), -1, -1), flat)
    return rearrange(mixed, "(b k) o n -> b k o n", b=len(values))


@dataclass(frozen=True, kw_only=True)
class PreparedTokens:
    """The tokens of one batch, and what its heads share: nothing here depends on a head.

    Statistics are computed when first asked for, and once. They take part in autograd where tokens do.
    """

    centred: Float[Tensor, "B T N C"]
    """Native tokens less their mean over channels, which keeps the variances free of cancellation."""
    mean: Float[Tensor, "B T N"]
    matrix: Float[Tensor, "U T"] | None = None

    @cached_property
    def plain(self) -> ImplicitTokens:
        """The tokens of U steps as they are."""
        return ImplicitTokens(native=self.centred + self.mean[..., None], matrix=self.matrix)

    @cached_property
    def standardised(self) -> ImplicitTokens:
        """The tokens of U steps with mean 0 and variance 1 over channels: a layer norm without its affine."""
        gain = (self._variance + LAYER_NORM_EPS).rsqrt()
        return ImplicitTokens(native=self.centred, matrix=self.matrix, gain=gain)

    @cached_property
    def average(self) -> Float[Tensor, "B C"]:
        """The mean over all tokens of a clip and U steps."""
        by_step = self.centred.mean(dim=2) + self.mean.mean(dim=2)[..., None]
        if self.matrix is None:
            return by_step.mean(dim=1)
        average: Tensor = einsum(self.matrix.mean(dim=0), by_step, "t, b t c -> b c")
        return average

    @property
    def _variance(self) -> Float[Tensor, "B U N"]:
        """Over channels, after the resize; rounding may not make it negative."""
        if self.matrix is None:
            norm: Tensor = torch.linalg.vector_norm(self.centred, dim=-1)
            return norm.square() / self.centred.shape[-1]
        # Clip by clip: bmm walks its batch by one stride, so over clips and tokens it would copy them.
        covariance = torch.stack([_covariance(clip) for clip in self.centred])
        pairs = einsum(self.matrix, self.matrix, "u t, u s -> u t s")
        variance: Tensor = einsum(pairs, covariance, "u t s, b n t s -> b u n")
        return variance.clamp(min=0.0)


def _covariance(centred: Float[Tensor, "T N C"]) -> Float[Tensor, "N T T"]:
    by_token = rearrange(centred, "t n c -> n t c")
    return torch.bmm(by_token, rearrange(by_token, "n t c -> n c t")) / centred.shape[-1]


def prepared(
    features: Float[Tensor, "B T N C"] | PreparedTokens, matrix: Float[Tensor, "U T"] | None = None
) -> PreparedTokens:
    """Tokens of any float dtype, resized by `matrix`, or those that are prepared already, untouched."""
    if isinstance(features, PreparedTokens):
        return features
    tokens = features.to(torch.promote_types(features.dtype, torch.float32))
    mean = tokens.mean(dim=-1)
    matrix = None if matrix is None else matrix.to(tokens.dtype)
    return PreparedTokens(centred=tokens - mean[..., None], mean=mean, matrix=matrix)


class TokenPreparation(nn.Module):
    """Prepares batch after batch of cached tokens, of T native steps for readouts of U.

    What a call returns is overwritten by the next: the batches share memory, as fresh pages cost ten times
    the cast that fills them.
    """

    matrix: Tensor | None

    def __init__(self, *, steps_in: int, steps_out: int, method: Method | None) -> None:
        """Resize by `method`; None is for backbones that the reference does not resize.

        Raises:
            CallError: the steps differ and there is no method.
        """
        super().__init__()
        if steps_in != steps_out and method is None:
            raise CallError(
                f"features have {steps_in} steps and the readout wants {steps_out}, "
                "but this backbone's tokens are never resized: train a readout of their own steps."
            )
        matrix = None
        if method is not None and steps_in != steps_out:
            matrix = temporal_matrix(steps_in, steps_out, method)
        # A constant of the configuration, not part of what is learned or saved.
        self.register_buffer("matrix", matrix, persistent=False)
        self._memory = torch.empty(0)

    def forward(self, features: Float[Tensor, "B T N C"]) -> PreparedTokens:
        """One batch, cast to float32; tokens in float64 or in need of a gradient get memory of their own."""
        if features.requires_grad or features.dtype == torch.float64:
            return prepared(features, self.matrix)
        tokens = self._room(features).copy_(features)
        mean = tokens.mean(dim=-1)
        return PreparedTokens(centred=tokens.sub_(mean[..., None]), mean=mean, matrix=self.matrix)

    def _room(self, features: Tensor) -> Tensor:
        like = (features.shape[1:], features.device)
        if (self._memory.shape[1:], self._memory.device) != like or len(self._memory) < len(features):
            # The first batch may be an evaluation's, and training can do nothing with inference tensors.
            with torch.inference_mode(False):
                self._memory = torch.empty(features.shape, device=features.device)
        return self._memory[: len(features)]
