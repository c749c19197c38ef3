"""A batch of cached tokens as its heads share it: resized in time and centred, its statistics computed once.

Neither the resize nor the standardisation is written down (`readouts.tokens.implicit`), and heads that need
no more than pooled tokens never see them all in float32 (`readouts.tokens.pooling`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from jaxtyping import Float, Int8, Shaped
from torch import Tensor, nn

from featcache.errors import CallError
from featcache.resampling import Method, temporal_matrix
from readouts.tokens.clipwise import Workspace
from readouts.tokens.implicit import ImplicitTokens, TemporalResize, average_of, gain_of


@dataclass(frozen=True, kw_only=True)
class ScatteredTokens:
    """Tokens of a batch where they lie, clip by clip or in smaller pieces: nothing brought them together.

    They stand in for a tensor [B T N C] on the CPU wherever tokens are prepared. Whoever goes through a batch
    clip by clip needs no more, and the copy that is saved costs as much as reading from memory does.
    """

    pieces: Sequence[Shaped[Tensor, "t N C"]]
    """In order; as many for every clip, each of as many steps."""
    pieces_per_clip: int

    @property
    def shape(self) -> torch.Size:
        """The sizes B, T, N and C."""
        steps, *rest = self.pieces[0].shape
        n_clips = len(self.pieces) // self.pieces_per_clip
        return torch.Size((n_clips, self.pieces_per_clip * steps, *rest))

    @property
    def device(self) -> torch.device:
        """The device of the pieces."""
        return self.pieces[0].device

    def copy_into(self, clips: slice, into: Shaped[Tensor, "b T N C"]) -> None:
        """Write some clips, of consecutive numbers, into a tensor of any dtype."""
        of_clips = self.pieces[clips.start * self.pieces_per_clip : clips.stop * self.pieces_per_clip]
        steps = torch.split(into.flatten(0, 1), self.pieces[0].shape[0])
        for piece, place in zip(of_clips, steps, strict=True):
            place.copy_(piece)

    def together(self) -> Shaped[Tensor, "B T N C"]:
        """The same in one tensor, copied."""
        whole = torch.empty(self.shape, dtype=self.pieces[0].dtype)
        self.copy_into(slice(0, len(whole)), whole)
        return whole


@dataclass(frozen=True, kw_only=True)
class QuantizedTokens:
    """Tokens `scales[b, t, n] * values[b, t, n, c]`: one byte per number and one scale per token.

    They take half the memory of float16, stand in for a float tensor wherever tokens are prepared, and are
    dequantised there, in float32, some clips at a time.
    """

    values: Int8[Tensor, "B T N C"] | ScatteredTokens
    scales: Float[Tensor, "B T N"]
    """One per token, of any float dtype."""

    @property
    def shape(self) -> torch.Size:
        """The sizes B, T, N and C."""
        return self.values.shape

    @property
    def device(self) -> torch.device:
        """The device of the values."""
        return self.values.device


Native = Float[Tensor, "B T N C"] | ScatteredTokens | QuantizedTokens
"""Tokens as they come from a store: of any float dtype, in one tensor or not, or as int8 with scales."""


def tensors_of(native: Native) -> tuple[Tensor, ...]:
    """The tensors of a whole batch that tokens are made of; pieces of `ScatteredTokens` are none."""
    parts = (native.values, native.scales) if isinstance(native, QuantizedTokens) else (native,)
    return tuple(part for part in parts if isinstance(part, Tensor))


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
        self._centred: Tensor | None = None

    @property
    def matrix(self) -> Float[Tensor, "U T"] | None:
        """The resize in time; None where T = U."""
        return None if self.resize is None else self.resize.matrix

    @property
    def steps(self) -> int:
        """U, the number of steps after the resize."""
        return self.native.shape[1] if self.resize is None else len(self.resize.matrix)

    @cached_property
    def differentiable(self) -> Float[Tensor, "B T N C"] | None:
        """The native tokens if they take part in autograd or are in float64, None if they are constants."""
        native = self.native
        if not isinstance(native, Tensor) or not (native.requires_grad or native.dtype == torch.float64):
            return None
        return native.to(torch.promote_types(native.dtype, torch.float32))

    @property
    def mean(self) -> Float[Tensor, "B T N"]:
        """The mean over channels of each native token."""
        if self._mean is None:
            if self.differentiable is not None:
                self._mean = self.differentiable.mean(dim=-1)
            else:
                self._visit()
        assert self._mean is not None
        return self._mean

    @property
    def average(self) -> Float[Tensor, "B C"]:
        """The mean over all N tokens of all U steps of a clip."""
        if self._average is None:
            if self.differentiable is not None:
                self._average = average_of(self.centred, self.mean, self.resize)
            else:
                self._visit()
        assert self._average is not None
        return self._average

    @property
    def centred(self) -> Float[Tensor, "B T N C"]:
        """Native tokens less their mean over channels, which keeps the variances free of cancellation.

        All of the batch in float32: for constants in memory that the workspace's next batch overwrites.
        """
        if self._centred is None:
            if self.differentiable is not None:
                self._centred = self.differentiable - self.mean[..., None]
            else:
                self._write_centred(gains=False)
        assert self._centred is not None
        return self._centred

    @cached_property
    def standardised(self) -> ImplicitTokens:
        """The tokens of U steps with mean 0 and variance 1 over channels: a layer norm without its affine."""
        if self.differentiable is not None:
            self._gain = gain_of(self.centred, self.resize)
        elif self._gain is None:
            self._write_centred(gains=True)
        assert self._gain is not None
        return ImplicitTokens(native=self.centred, matrix=self.matrix, gain=self._gain)

    def visit_standardised(self, work: Callable[[slice, ImplicitTokens], None]) -> None:
        """Hand constant tokens to `work` some clips at a time, standardised, without autograd.

        `work` is told which clips they are. The tokens it is given last as long as its call.
        """

        def standardised(clips: slice, centred: Tensor) -> None:
            assert self._gain is not None
            work(clips, ImplicitTokens(native=centred, matrix=self.matrix, gain=self._gain[clips]))

        self._visit(standardised, gains=True)

    def _write_centred(self, *, gains: bool) -> None:
        buffer = self._workspace.buffer(self.native.shape, self.native.device)
        self._visit(gains=gains, into=buffer)
        self._centred = buffer

    def _visit(
        self,
        work: Callable[[slice, Tensor], None] = lambda clips, centred: None,
        *,
        gains: bool = False,
        into: Float[Tensor, "B T N C"] | None = None,
    ) -> None:
        """Go through constant tokens some clips at a time, and centre each: in a tile, or `into` a buffer.

        The first visit leaves mean and average, the first with `gains` leaves those, ahead of `work`.
        """
        native, resize = self.native, self.resize
        assert self.differentiable is None
        n_clips, n_steps, n_tokens, n_channels = native.shape
        new = partial(torch.empty, dtype=torch.float32, device=native.device)
        is_first, is_first_with_gains = self._mean is None, gains and self._gain is None
        if is_first:
            self._mean, self._average = new(n_clips, n_steps, n_tokens), new(n_clips, n_channels)
        if is_first_with_gains:
            self._gain = new(n_clips, self.steps, n_tokens)
        mean, average, gain = self._mean, self._average, self._gain

        def load(clips: slice, tile: Tensor) -> None:
            assert mean is not None and average is not None
            centred = _cast(native, clips, tile if into is None else into[clips])
            if is_first:
                torch.mean(centred, dim=-1, out=mean[clips])
            centred.sub_(mean[clips][..., None])
            if is_first:
                average[clips] = average_of(centred, mean[clips], resize)
            if is_first_with_gains and gain is not None:
                gain[clips] = gain_of(centred, resize)
            work(clips, centred)

        self._workspace.run(load, n_clips=n_clips, clip=native.shape[1:], device=native.device)


def copy_tokens(
    values: Shaped[Tensor, "B T N C"] | ScatteredTokens, clips: slice, into: Shaped[Tensor, "b T N C"]
) -> None:
    """Write some clips of a batch into a tensor of any dtype."""
    if isinstance(values, ScatteredTokens):
        values.copy_into(clips, into)
    else:
        into.copy_(values[clips])


def _cast(native: Native, clips: slice, into: Float[Tensor, "b T N C"]) -> Float[Tensor, "b T N C"]:
    if isinstance(native, QuantizedTokens):
        copy_tokens(native.values, clips, into)
        return into.mul_(native.scales[clips].to(into.dtype)[..., None])
    copy_tokens(native, clips, into)
    return into


def dense_tokens(native: Native) -> Float[Tensor, "B T N C"]:
    """All tokens of a batch in one float32 tensor, copied."""
    return _cast(native, slice(0, native.shape[0]), torch.empty(native.shape, device=native.device))


def prepared(features: Native | PreparedTokens) -> PreparedTokens:
    """Tokens of a head's own number of steps, or those that are prepared already, untouched."""
    return features if isinstance(features, PreparedTokens) else PreparedTokens(features)


class TokenPreparation(nn.Module):
    """Prepares batch after batch of cached tokens, of T native steps for readouts of U.

    A batch's native tokens must last until its backward pass is done. Heads that pool see it clip by clip;
    what others make of a whole batch in float32 (`centred`) is overwritten by the next batch's.
    """

    matrix: Tensor | None

    def __init__(self, *, steps_in: int, steps_out: int, method: Method | None) -> None:
        """Resize from `steps_in` = T to `steps_out` = U; no `method` is for backbones that are never resized.

        Raises:
            CallError: the steps differ and there is no method.
        """
        super().__init__()
        matrix = None
        if steps_in != steps_out:
            if method is None:
                raise CallError(
                    f"features have {steps_in} steps and the readout wants {steps_out}, "
                    "but this backbone's tokens are never resized: train a readout of their own steps."
                )
            matrix = temporal_matrix(steps_in, steps_out, method)
        # A constant of the configuration, not part of what is learned or saved.
        self.register_buffer("matrix", matrix, persistent=False)
        self._resize: TemporalResize | None = None
        self._workspace = Workspace()

    def forward(self, features: Native) -> PreparedTokens:
        """Prepare one batch [B T N C], nothing of which is computed yet."""
        # Made anew where the module is: its buffer may have been moved to another device.
        if self.matrix is not None and (self._resize is None or self._resize.matrix is not self.matrix):
            self._resize = TemporalResize.by(self.matrix)
        return PreparedTokens(features, self._resize, self._workspace)
