"""The dense prediction readout: tokens of the last step to forecast maps (Ranftl et al. 2021, DPT).

Four copies of the token map at x4, x2, x1 and x1/2 of its size are fused from coarse to fine, the last map is
eight times the token grid. As the reference has it the head after that is linear: a 3x3 convolution to
`head_channels`, the resize to the output, a 1x1 convolution to frames x variables. So the three are computed
in the order that costs least: a bilinear resize has weights that sum to one and commutes with a 1x1
convolution, bias included, and two convolutions with nothing between them are one. At real size (512 channels
to 48 on 181 x 360) what is resized and what the head multiplies both shrink tenfold.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Generator, Tensor, nn

from featcache.errors import CallError
from readouts.heads.base import Readout
from readouts.heads.convolution import SameConv, SameConvTranspose, convolved, same_conv
from readouts.heads.resize import resize_maps
from readouts.tokens.prepared import PreparedTokens, QuantizedTokens, ScatteredTokens, prepared

LEVELS = (32, 16, 8, 4)
"""Pixels of the image to one of a map, where a token is 16: the reference's names, coarse to fine."""

_TOKEN = 16

Tokens = Float[Tensor, "B T N D"] | ScatteredTokens | QuantizedTokens
"""Tokens as they come from a store; their channels are D here, where C is the variables'."""


class Reassemble(nn.Module):
    """The token map at one level: 1x1 convolution to its channels, 3x3 (transposed) to its size."""

    def __init__(self, channels: int, features: int, *, level: int, generator: Generator | None) -> None:
        super().__init__()
        self.project = same_conv(SameConv, channels, features, kernel=1, generator=generator)
        grows = level < _TOKEN
        kind: type[SameConv | SameConvTranspose] = SameConvTranspose if grows else SameConv
        stride = _TOKEN // level if grows else level // _TOKEN
        self.resample: nn.Module = same_conv(
            kind, features, features, kernel=3, stride=stride, generator=generator
        )

    def forward(self, tokens: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B O Y2 X2"]:
        """A map of 16 / level times the rows and columns."""
        resampled: Tensor = self.resample(self.project(tokens))
        return resampled


class ResidualUnit(nn.Module):
    """A map plus two 3x3 convolutions of it, each after a ReLU."""

    def __init__(self, features: int, *, generator: Generator | None) -> None:
        super().__init__()
        self.first = same_conv(SameConv, features, features, kernel=3, generator=generator)
        self.second = same_conv(SameConv, features, features, kernel=3, generator=generator)

    def forward(self, inputs: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B C Y X"]:
        """The refined map, of the shape of `inputs`."""
        changed: Tensor = self.second(self.first(inputs.relu()).relu())
        return inputs + changed


class Fusion(nn.Module):
    """One level's map and the coarser result, refined, at twice the size, with the next level's channels."""

    def __init__(self, features: int, n_out: int, *, coarsest: bool, generator: Generator | None) -> None:
        super().__init__()
        self.lateral = None if coarsest else ResidualUnit(features, generator=generator)
        self.refine = ResidualUnit(features, generator=generator)
        self.project = same_conv(SameConv, features, n_out, kernel=1, generator=generator)

    def forward(
        self, own: Float[Tensor, "B C Y X"], coarser: Float[Tensor, "B C Y X"] | None
    ) -> Float[Tensor, "B O 2*Y 2*X"]:
        """The level's `own` map fused with the `coarser` result, which is None for the coarsest level."""
        if self.lateral is not None and coarser is not None:
            own = coarser + self.lateral(own)
        # The reference enlarges first: a quarter of the work this way, and the same function.
        refined = self.project(self.refine(own))
        return resize_maps(refined, 2 * refined.shape[2], 2 * refined.shape[3])


class DensePrediction(nn.Module):
    """A token map of any even size to one output map (REFERENCE: DPT)."""

    def __init__(
        self,
        *,
        channels: int,
        n_frames: int,
        n_variables: int,
        out_rows: int,
        out_columns: int,
        features: tuple[int, int, int, int],
        head_channels: int,
        generator: Generator | None = None,
    ) -> None:
        """Draw a new one; `features` are the channels of the levels, coarse to fine."""
        super().__init__()
        self.out_rows, self.out_columns = out_rows, out_columns
        self.n_frames = n_frames
        self.reassemble = nn.ModuleDict()
        self.fusion = nn.ModuleDict()
        for level, n_in, n_out in zip(LEVELS, features, (*features[1:], features[-1]), strict=True):
            self.reassemble[str(level)] = Reassemble(channels, n_in, level=level, generator=generator)
            self.fusion[str(level)] = Fusion(n_in, n_out, coarsest=level == LEVELS[0], generator=generator)
        self.head = same_conv(SameConv, features[-1], head_channels, kernel=3, generator=generator)
        self.output = same_conv(
            SameConv, head_channels, n_frames * n_variables, kernel=1, generator=generator
        )
        # A new head predicts no change: its forecast is persistence.
        nn.init.zeros_(self.output.weight)

    def forward(self, tokens: Float[Tensor, "B D H W"]) -> Float[Tensor, "B F Y X C"]:
        """Maps of every frame and variable.

        Raises:
            CallError: the grid has an odd side, which halving and doubling would not give back.
        """
        return self.of_levels([tokens] * len(LEVELS))

    def of_levels(self, tokens: Sequence[Float[Tensor, "B D H W"]]) -> Float[Tensor, "B F Y X C"]:
        """The same of a token map for each level, coarse to fine."""
        _check_even(*tokens[0].shape[2:])
        fused = None
        for (level, fusion), own in zip(self.fusion.items(), tokens, strict=True):
            fused = fusion(self.reassemble[level](own), fused)
        assert fused is not None
        maps = _composed(self.head, self.output, fused)
        # Ordered by variable while small: the large result then lies in memory as losses walk over it.
        frames = rearrange(maps, "b (f c) y x -> (b f) y x c", f=self.n_frames).contiguous()
        channels_last = rearrange(frames, "m y x c -> m c y x")
        resized = resize_maps(channels_last, self.out_rows, self.out_columns)
        return rearrange(resized, "(b f) c y x -> b f y x c", f=self.n_frames)


def _composed(
    first: SameConv, second: SameConv, inputs: Float[Tensor, "B C Y X"]
) -> Float[Tensor, "B O Y X"]:
    """`second` of `first`, a 1x1 convolution of a 3x3 one, as the one convolution that they are."""
    mixing = rearrange(second.weight, "o m 1 1 -> o m")
    weight = einsum(mixing, first.weight, "o m, m c y x -> o c y x")
    bias = mixing @ first.bias + second.bias
    return convolved(inputs, weight, bias, padding=first.kernel_size[0] // 2)


class DPTReadout(Readout):
    """The last step's tokens to the change from the last input frame (PROTOCOL: DPT)."""

    gives: ClassVar[str] = "fields"

    def __init__(
        self,
        *,
        channels: int,
        rows: int,
        columns: int,
        n_frames: int = 16,
        n_variables: int = 3,
        out_rows: int = 181,
        out_columns: int = 360,
        features: int = 1024,
        head_channels: int = 512,
        generator: Generator | None = None,
    ) -> None:
        """Draw a new head.

        Args:
            channels: C of the tokens.
            rows: H of the token grid, even.
            columns: W of the token grid, even.
            n_frames: frames to forecast.
            n_variables: of each.
            out_rows: of each.
            out_columns: of each.
            features: channels of all four levels.
            head_channels: between the last two convolutions.
            generator: where all initial values come from.

        Raises:
            CallError: `rows` or `columns` is odd.
        """
        super().__init__()
        _check_even(rows, columns)
        self.rows, self.columns = rows, columns
        self.decoder = DensePrediction(
            channels=channels,
            n_frames=n_frames,
            n_variables=n_variables,
            out_rows=out_rows,
            out_columns=out_columns,
            features=(features, features, features, features),
            head_channels=head_channels,
            generator=generator,
        )

    def forward(self, features: Tokens | PreparedTokens) -> Float[Tensor, "B F Y X C"]:
        """The change from the last input frame to each forecast, in deviations of such changes.

        Raises:
            CallError: the tokens are not of the head's grid.
        """
        maps: Tensor = self.decoder(self.token_map(features))
        return maps

    def token_map(self, features: Tokens | PreparedTokens) -> Float[Tensor, "B D H W"]:
        """The last step's tokens as a map of the head's grid.

        Raises:
            CallError: they are of another grid.
        """
        tokens = _last_step(features)
        if tokens.shape[1] != self.rows * self.columns:
            raise CallError(
                f"this dpt readout is for tokens of {self.rows} x {self.columns} and was given "
                f"{tokens.shape[1]} a step: build it for their grid."
            )
        # The memory stays as it is, channels last, and so do the convolutions' results.
        return rearrange(tokens, "b (h w) d -> b d h w", h=self.rows)


def add_residual(
    last: Float[Tensor, "B Y X C"],
    residual: Float[Tensor, "B F Y X C"],
    *,
    std: Float[Tensor, "C"],
    mean: Float[Tensor, "C"] | None = None,
) -> Float[Tensor, "B F Y X C"]:
    """Forecasts in raw units: the last input frame plus residual * std + mean, the statistics of residuals.

    The reference's UnnormalizePredAndAddInput; the benchmark's mean is 0.
    """
    start = last if mean is None else last + mean
    return torch.addcmul(start[:, None], residual, std)


def _last_step(features: Tokens | PreparedTokens) -> Float[Tensor, "B N D"]:
    """The last of the resized steps in float32; the others are never made."""
    if isinstance(features, Tensor):
        return features[:, -1].to(torch.promote_types(features.dtype, torch.float32))
    tokens = prepared(features)
    centred, mean, matrix = tokens.centred, tokens.mean, tokens.matrix
    if matrix is None:
        return centred[:, -1] + mean[:, -1, :, None]
    centred = einsum(matrix[-1], centred, "t, b t n d -> b n d")
    return centred + einsum(matrix[-1], mean, "t, b t n -> b n")[..., None]


def _check_even(rows: int, columns: int) -> None:
    if rows % 2 or columns % 2:
        raise CallError(
            f"a dpt readout halves and doubles the grid of tokens, and {rows} x {columns} has an odd side: "
            "extract from frames of a size that gives an even grid, or train another readout."
        )
