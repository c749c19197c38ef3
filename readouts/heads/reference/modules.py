"""Heads as the reference calls them: its input names, its output keys, what its configurations add.

Training needs none of this. Around the heads it trains, the reference's configurations ask for means over
several test clips, un-patchified outputs, predictions shifted by an offset, forecasts in raw units.
"""

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from featcache.errors import CallError
from readouts.heads.attention import AttentionReadout, CrossAttention, QueriedAttentionReadout
from readouts.heads.dpt import DensePrediction, add_residual
from readouts.heads.layers import Dropout, dense, normal_parameter
from readouts.heads.reference.configs import (
    AttentionConfig,
    ForecastConfig,
    LinearConfig,
    TrackingConfig,
)
from readouts.heads.tracking import TrackingReadout, as_tracks
from readouts.tokens.prepared import Native, PreparedTokens, ScatteredTokens, prepared


class PlainTrunk(nn.Module):
    """Attention without norms, residual projection and MLP (`match_vjepa_implementation=False`)."""

    def __init__(self, *, channels: int, steps: int | None, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.temporal = None if steps is None else normal_parameter(steps, channels, generator=None)
        self.attention = CrossAttention(
            channels=channels, width=width, heads=heads, bias=False, generator=None
        )
        self.dropout = Dropout(dropout)

    def forward(
        self, tokens: PreparedTokens, query: Float[Tensor, "B Q heads dim"]
    ) -> Float[Tensor, "B Q width"]:
        """What each query finds in the tokens as they are, heads merged."""
        native = tokens.native
        if isinstance(native, ScatteredTokens):
            native = native.together()
        assert isinstance(native, Tensor)
        native = native.float()
        shifted = native if self.temporal is None else native + self.temporal[:, None]
        merged: Tensor = rearrange(self.dropout(self.attention(shifted, query)), "b q h d -> b q (h d)")
        return merged


class PlainAttentionReadout(AttentionReadout):
    """An attention readout for a `PlainTrunk`, which cannot fold its queries."""

    def forward(self, features: Native | PreparedTokens) -> Float[Tensor, "B *Q O"]:
        """One row of outputs per query; a single query's axis is dropped."""
        tokens = prepared(features)
        query = self.query.expand(tokens.native.shape[0], -1, -1, -1)
        logits: Tensor = self.classifier(self.trunk(tokens, query))
        return rearrange(logits, "b 1 o -> b o") if len(self.query) == 1 else logits


class DenseReadout(nn.Module):
    """A dense layer on the mean over any axes, or over none: the linear readout where it keeps an axis."""

    def __init__(self, *, channels: int, n_outputs: int, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes
        self.classifier = dense(channels, n_outputs, generator=None)

    def forward(self, features: Float[Tensor, "*tokens C"]) -> Float[Tensor, "*kept O"]:
        """The outputs for each token that the mean leaves."""
        tokens = features.float()
        logits: Tensor = self.classifier(tokens.mean(dim=self.axes) if self.axes else tokens)
        return logits


class ReferenceReadout(nn.Module):
    """A head called as the reference calls it, with what its configuration does to the outputs."""

    def __init__(self, head: nn.Module, config: LinearConfig | AttentionConfig) -> None:
        super().__init__()
        self.head = head
        self.config = config

    def forward(
        self, inputs: Float[Tensor, "*tokens C"], queries: Float[Tensor, "B Q D"] | None = None
    ) -> Float[Tensor, "*outputs"]:
        """Logits [B, classes], with a query axis or as frames where configured; or mean probabilities.

        Raises:
            CallError: `queries` are missing, or given to a head that learned its own.
        """
        if (queries is not None) != isinstance(self.head, QueriedAttentionReadout):
            raise CallError(
                "this head has a learned query: call it without `queries`."
                if queries is not None
                else "this head projects queries from outside: call it with `queries` [B, Q, D]."
            )
        logits = self.head(inputs) if queries is None else self.head(inputs, queries)
        return self._mean_of_clips(self._unpatchified(logits))

    def _unpatchified(self, logits: Tensor) -> Tensor:
        config = self.config
        if isinstance(config, LinearConfig) or not (config.output_shape and config.decoding_patch_size):
            return logits
        patch = dict(zip(("pt", "py", "px"), config.decoding_patch_size, strict=True))
        size = zip(config.output_shape[:3], config.decoding_patch_size, strict=True)
        grid = dict(zip("tyx", (pixels // step for pixels, step in size), strict=True))
        return rearrange(logits, "b (t y x) (pt py px c) -> b (t pt) (y py) (x px) c", **patch, **grid)

    def _mean_of_clips(self, logits: Tensor) -> Tensor:
        if self.config.num_test_clips == 1 or self.training:
            return logits
        return reduce(logits.softmax(dim=-1), "(b n) ... -> b ...", "mean", n=self.config.num_test_clips)


class ShiftedReadout(nn.Module):
    """A regression around an offset (the reference's ShiftPred): the loss sees the unshifted prediction."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(
        self, inputs: Float[Tensor, "B T N C"], output_offsets: Float[Tensor, "B O"]
    ) -> dict[str, Float[Tensor, "B O"]]:
        """`unshifted_pred` is what the head gives, `shifted_pred` has the offsets added to it."""
        predicted = self.head(inputs)
        return {"shifted_pred": predicted + output_offsets, "unshifted_pred": predicted}


class ReferenceTracking(nn.Module):
    """A tracking head with the outputs of the reference's TrackingReadoutWrapper."""

    def __init__(self, head: TrackingReadout, config: TrackingConfig) -> None:
        super().__init__()
        self.head = head
        self.config = config

    def forward(
        self, inputs: Float[Tensor, "B T N C"], queries: Float[Tensor, "B Q 2"]
    ) -> dict[str, Float[Tensor, "B F Q _"]]:
        """`values` in [0, 1]; of `visible`, `logits_visible`, `logits_certainty` what the head predicts."""
        tracks = as_tracks(self.head(inputs, queries), threshold=self.config.certainty_threshold)
        outputs = {
            "values": tracks.points,
            "visible": tracks.visible,
            "logits_visible": tracks.visible_logits,
            "logits_certainty": tracks.certainty_logits,
        }
        return {name: output for name, output in outputs.items() if output is not None}


class ReferenceDPT(nn.Module):
    """A dense prediction head (the reference's DPTReadout), for any even grid."""

    def __init__(self, head: DensePrediction) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Float[Tensor, "B T H W D"]) -> Float[Tensor, "B F Y X C"]:
        """Maps from the last step of token grids.

        Raises:
            CallError: the grid has an odd side.
        """
        maps: Tensor = self.head(rearrange(x[:, -1].float(), "b h w d -> b d h w"))
        return maps


class ReferenceForecast(nn.Module):
    """Forecasts in raw units (the reference's UnnormalizePredAndAddInput)."""

    mean: Tensor
    std: Tensor

    def __init__(self, head: nn.Module, config: ForecastConfig) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("mean", torch.tensor(config.residual_mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.residual_std), persistent=False)

    def forward(
        self, x: Float[Tensor, "B F Y X C"], y: Float[Tensor, "B T H W D"]
    ) -> Float[Tensor, "B P Y X C"]:
        """The last of the input frames `x`, plus the change that the head sees in the token grids `y`."""
        return add_residual(x[:, -1], self.head(y), std=self.std, mean=self.mean)
