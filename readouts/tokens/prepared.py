"""Tokens as heads read them: resized in time and standardised, without writing either down.

The reference resizes a clip's T native steps to U, then normalises each token over its channels. Given the
deviations, both are linear in the native tokens, and all that attention does with tokens is two products. So
the resize and the deviations fold into small tensors: see `ImplicitTokens`. Heads that need no more than
pooled tokens never see them all in float32: `readouts.tokens.pooling` goes through a batch clip by clip.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int8
from torch import Tensor, nn

from featcache.errors import CallError
from featcache.resampling import Method, temporal_matrix
from readouts.tokens.clipwise import Workspace

LAYER_NORM_EPS = 1e-6
"""Flax's default; torch's 1e-5 shifts a readout by 1e-4 and more (REFERENCE: tolerances)."""


Product = Callable[[Float[Tensor, "B K X"], Float[Tensor, "B X Y"]], Float[Tensor, "B K Y"]]
"""How matrices are multiplied: `torch.bmm`, or what gives its numbers in another order of sums."""


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

    def dot(self, keys: Float[Tensor, "*B K C"], product: Product = torch.bmm) -> Float[Tensor, "B K U N"]:
        """The products of every token with every key; keys may differ by clip."""
        flat = self.native.flatten(1, 2)
        products = product(keys.expand(len(flat), -1, -1), flat.mT)
        products = _mix(self.matrix, rearrange(products, "b k (t n) -> b k t n", t=self.native.shape[1]))
        return products if self.gain is None else products * self.gain[:, None]

    def pool(self, weights: Float[Tensor, "B K U N"], product: Product = torch.bmm) -> Float[Tensor, "B K C"]:
        """The sums of all tokens of a clip under `weights`."""
        gained = weights if self.gain is None else weights * self.gain[:, None]
        spread = _mix(None if self.matrix is None else self.matrix.mT, gained)
        return product(spread.flatten(2), self.native.flatten(1, 2))

    def written(self) -> Float[Tensor, "B U N C"]:
        """The tokens themselves, for heads that project each."""
        resized = self.native
        if self.matrix is not None:
            resized = einsum(self.matrix, resized, "u t, b t n c -> b u n c")
        return resized if self.gain is None else resized * self.gain[..., None]


def _mix(matrix: Float[Tensor, "O I"] | None, values: Float[Tensor, "B K I N"]) -> Float[Tensor, "B K O N"]:
    if matrix is None:
        return values
    flat = values.flatten(0, 1)
    # bmm, not matmul, which would fold the batch into the rows and give back a transposed layout.
    mixed = torch.bmm(matrix.expand(len(flat), -1, -1), flat)
    unfolded: Tensor = rearrange(mixed, "(b k) o n -> b k o n", b=len(values))
    return unfolded


@dataclass(frozen=True, kw_only=True)
class QuantizedTokens:
    """Tokens `scales[b, t, n] * values[b, t, n, c]`: a byte a number and a scale a token, half of float16.

    They take the place of a float tensor wherever tokens are prepared, and are multiplied out there, in
    float32, some clips at a time.
    """

    values: Int8[Tensor, "B T N C"]
    scales: Float[Tensor, "B T N"]
    """Of any float dtype."""

    @property
    def shape(self) -> torch.Size:
        """B, T, N and C."""
        return self.values.shape

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device


Native = Float[Tensor, "B T N C"] | QuantizedTokens
"""Tokens as they come from a store, of any float dtype or as int8 with scales."""


@dataclass(frozen=True, kw_only=True)
class TemporalResize:
    """A resize of T steps to U, and the deviations of what it makes."""

    matrix: Float[Tensor, "U T"]
    pairs: tuple[Float[Tensor, "U _"], ...]
    """By lag = 0, 1, ...: weight of native[t] . native[t + lag] in the square of each resized token. Only
    lags that the resize mixes: two of eight for a linear one."""

    @classmethod
    def by(cls, matrix: Float[Tensor, "U T"]) -> "TemporalResize":
        """The resize that multiplies by `matrix`."""
        # Made once, perhaps by an evaluation, and used in training.
        with torch.inference_mode(False), torch.no_grad():
            n_steps = matrix.shape[1]
            lags = [matrix[:, : n_steps - lag] * matrix[:, lag:] for lag in range(n_steps)]
            mixed = [lag for lag, weights in enumerate(lags) if weights.any()]
            pairs = [lags[lag] if lag == 0 else 2.0 * lags[lag] for lag in range(max(mixed, default=0) + 1)]
        return cls(matrix=matrix, pairs=tuple(pairs))

    def to(self, dtype: torch.dtype) -> "TemporalResize":
        """The same in another precision."""
        return self if self.matrix.dtype == dtype else TemporalResize.by(self.matrix.to(dtype))

    def variance(self, centred: Float[Tensor, "B T N C"]) -> Float[Tensor, "B U N"]:
        """Over channels, after the resize; rounding may not make it negative."""
        n_steps, n_channels = centred.shape[1], centred.shape[3]
        squares = einsum(self.pairs[0], _squared_norm(centred), "u t, b t n -> b u n")
        for lag, weights in enumerate(self.pairs[1:], start=1):
            products = torch.linalg.vecdot(centred[:, : n_steps - lag], centred[:, lag:])
            squares = squares + einsum(weights, products, "u t, b t n -> b u n")
        variance: Tensor = (squares / n_channels).clamp(min=0.0)
        return variance


def _squared_norm(centred: Float[Tensor, "B T N C"]) -> Float[Tensor, "B T N"]:
    norm: Tensor = torch.linalg.vector_norm(centred, dim=-1)
    return norm.square()


def _gain(centred: Float[Tensor, "B T N C"], resize: TemporalResize | None) -> Float[Tensor, "B U N"]:
    """One over the deviation, over channels, of each resized token."""
    variance = _squared_norm(centred) / centred.shape[-1] if resize is None else resize.variance(centred)
    return (variance + LAYER_NORM_EPS).rsqrt()


def _average(
    centred: Float[Tensor, "B T N C"], mean: Float[Tensor, "B T N"], resize: TemporalResize | None
) -> Float[Tensor, "B C"]:
    """The mean over all tokens of a clip and U steps."""
    by_step = centred.mean(dim=2) + mean.mean(dim=2)[..., None]
    if resize is None:
        return by_step.mean(dim=1)
    average: Tensor = einsum(resize.matrix.mean(dim=0), by_step, "t, b t c -> b c")
    return average


Visit = Callable[[slice, Float[Tensor, "b T N C"], Float[Tensor, "b U N"] | None], None]
"""What is done with some clips of a batch: which they are, their centred tokens, their gains if asked for."""


class PreparedTokens:
    """The tokens of one batch, and what its heads share: nothing here depends on a head.

    Nothing is computed before it is asked for, statistics are computed once. Float tokens in float64 or in
    need of a gradient take part in autograd; all others are constants, and go through float32 by clips.
    """

    def __init__(
        self, native: Native, resize: TemporalResize | None = None, workspace: Workspace | None = None
    ) -> None:
        """Tokens to be resized by `resize`; the memory of passes over them is `workspace`'s."""
        self.native, self.resize = native, resize
        self._workspace = workspace or Workspace()
        self._mean: Tensor | None = None
        self._average: Tensor | None = None
        self._gain: Tensor | None = None

    @property
    def matrix(self) -> Float[Tensor, "U T"] | None:
        """The resize in time; None where T = U."""
        return None if self.resize is None else self.resize.matrix

    @property
    def steps(self) -> int:
        """U."""
        return self.native.shape[1] if self.resize is None else len(self.resize.matrix)

    @property
    def differentiable(self) -> Float[Tensor, "B T N C"] | None:
        """The native tokens if they take part in autograd or are in float64, None if they are constants."""
        if isinstance(self.native, QuantizedTokens):
            return None
        asks = self.native.requires_grad or self.native.dtype == torch.float64
        return self.native.to(torch.promote_types(self.native.dtype, torch.float32)) if asks else None

    def visit(self, work: Visit, *, gains: bool, into: Float[Tensor, "B T N C"] | None = None) -> None:
        """Go through constant tokens some clips at a time, without autograd, and centre each.

        What `work` is given lasts as long as its call, unless the centred tokens are to be written `into`
        memory of all clips. The first visit leaves mean and average, the first with gains leaves those.
        """
        native, resize = self.native, self.resize
        assert self.differentiable is None
        n_clips, n_steps, n_tokens, n_channels = native.shape
        new = partial(torch.empty, dtype=torch.float32, device=native.device)
        first_mean, first_gain = self._mean is None, gains and self._gain is None
        mean = new(n_clips, n_steps, n_tokens) if self._mean is None else self._mean
        average = new(n_clips, n_channels) if self._average is None else self._average
        gain = new(n_clips, self.steps, n_tokens) if first_gain else self._gain

        def load(clips: slice, tile: Tensor) -> None:
            centred = _cast(native, clips, tile if into is None else into[clips])
            if first_mean:
                torch.mean(centred, dim=-1, out=mean[clips])
            centred.sub_(mean[clips][..., None])
            if first_mean:
                average[clips] = _average(centred, mean[clips], resize)
            if first_gain and gain is not None:
                gain[clips] = _gain(centred, resize)
            work(clips, centred, None if gain is None else gain[clips])

        self._workspace.run(load, n_clips=n_clips, clip=native.shape[1:], device=native.device)
        self._mean, self._average, self._gain = mean, average, gain

    @cached_property
    def centred(self) -> Float[Tensor, "B T N C"]:
        """Native tokens less their mean over channels, which keeps the variances free of cancellation.

        All of the batch in float32: for constants in memory that the workspace's next batch overwrites.
        """
        if self.differentiable is not None:
            return self.differentiable - self.mean[..., None]
        whole = self._workspace.whole(self.native.shape, self.native.device)
        self.visit(_nothing, gains=False, into=whole)
        return whole

    @property
    def mean(self) -> Float[Tensor, "B T N"]:
        """Of each native token, over channels."""
        if self._mean is None and self.differentiable is not None:
            self._mean = self.differentiable.mean(dim=-1)
        elif self._mean is None:
            self.visit(_nothing, gains=False)
        assert self._mean is not None
        return self._mean

    @property
    def average(self) -> Float[Tensor, "B C"]:
        """The mean over all tokens of a clip and U steps."""
        if self._average is None and self.differentiable is not None:
            self._average = _average(self.centred, self.mean, self.resize)
        elif self._average is None:
            self.visit(_nothing, gains=False)
        assert self._average is not None
        return self._average

    @cached_property
    def plain(self) -> ImplicitTokens:
        """The tokens of U steps as they are."""
        return ImplicitTokens(native=self.centred + self.mean[..., None], matrix=self.matrix)

    @cached_property
    def standardised(self) -> ImplicitTokens:
        """The tokens of U steps with mean 0 and variance 1 over channels: a layer norm without its affine."""
        if self.differentiable is None and self._gain is None:
            whole = self._workspace.whole(self.native.shape, self.native.device)
            self.visit(_nothing, gains=True, into=whole)
            self.__dict__["centred"] = whole
        gain = _gain(self.centred, self.resize) if self._gain is None else self._gain
        return ImplicitTokens(native=self.centred, matrix=self.matrix, gain=gain)


def _nothing(clips: slice, centred: Tensor, gain: Tensor | None) -> None:
    """A visit for the statistics alone."""


def _cast(native: Native, clips: slice, into: Float[Tensor, "b T N C"]) -> Float[Tensor, "b T N C"]:
    if isinstance(native, QuantizedTokens):
        return into.copy_(native.values[clips]).mul_(native.scales[clips].to(into.dtype)[..., None])
    return into.copy_(native[clips])


def prepared(features: Native | PreparedTokens, matrix: Float[Tensor, "U T"] | None = None) -> PreparedTokens:
    """Tokens of any float dtype, resized by `matrix`, or those that are prepared already, untouched."""
    if isinstance(features, PreparedTokens):
        return features
    if matrix is None:
        return PreparedTokens(features)
    is_double = isinstance(features, Tensor) and features.dtype == torch.float64
    resize = TemporalResize.by(matrix.to(torch.float64 if is_double else torch.float32))
    return PreparedTokens(features, resize)


class TokenPreparation(nn.Module):
    """Prepares batch after batch of cached tokens, of T native steps for readouts of U.

    A batch's native tokens must last until its backward pass is done. Heads that pool see it clip by clip;
    what others make of a whole batch in float32 (`centred`) is overwritten by the next batch's.
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
        self._resize: TemporalResize | None = None
        self._workspace = Workspace()

    def forward(self, features: Native) -> PreparedTokens:
        """One batch, nothing of it computed yet."""
        if self.matrix is None:
            return PreparedTokens(features, None, self._workspace)
        if self._resize is None or self._resize.matrix is not self.matrix:
            # The module was made, or moved to another device.
            self._resize = TemporalResize.by(self.matrix)
        is_double = isinstance(features, Tensor) and features.dtype == torch.float64
        resize = self._resize.to(torch.float64) if is_double else self._resize
        return PreparedTokens(features, resize, self._workspace)
