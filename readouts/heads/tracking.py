"""The tracking readout: where is each point of the first frame in the frames that follow.

A query point is embedded and copied for each temporal tile (two of sixteen frames) with that tile's learned
embedding; each copy pools the clip by cross-attention. Queries never meet, so padded ones need no mask.
"""

from dataclasses import dataclass
from typing import ClassVar

from einops import rearrange
from jaxtyping import Float
from torch import Generator, Tensor

from featcache.errors import CallError
from readouts.heads.attention import QueriedAttentionReadout
from readouts.heads.base import Readout
from readouts.heads.fourier import fourier_features
from readouts.heads.layers import mlp, normal_parameter
from readouts.tokens.prepared import Native, PreparedTokens

_POINT_DIMS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracks:
    """Outputs of a tracking readout by what they mean."""

    points: Float[Tensor, "B F Q 2"]
    """x, y in [0, 1], of the frame's width and height."""
    visible: Float[Tensor, "B F Q 1"] | None
    """1 where the point is seen and the head is sure of it, else 0, without gradient; of a head without
    certainty the probability that it is seen; None of a head of points alone."""
    visible_logits: Float[Tensor, "B F Q 1"] | None
    certainty_logits: Float[Tensor, "B F Q 1"] | None


class TrackingReadout(Readout):
    """Query points to their tracks (REFERENCE: Tracking; PROTOCOL: Readouts)."""

    gives: ClassVar[str] = "tracks"

    def __init__(
        self,
        *,
        channels: int,
        steps: int,
        n_frames: int = 16,
        temporal_tiles: int = 8,
        n_outputs_per_point: int = 4,
        width: int = 1024,
        heads: int = 8,
        dropout: float = 0.0,
        n_bases: int = 16,
        mlp_hidden: int = 512,
        query_channels: int = 512,
        generator: Generator | None = None,
    ) -> None:
        """Draw a new head.

        Args:
            channels: C of the tokens.
            steps: T of the tokens.
            n_frames: frames to track in, in equal parts by the `temporal_tiles`.
            temporal_tiles: attention queries made of each point.
            n_outputs_per_point: 4 for x, y, visibility and certainty; 3 and 2 leave out the last ones.
            width: of the attention.
            heads: of the attention.
            dropout: on what the attention pooled.
            n_bases: octaves of the points' Fourier features.
            mlp_hidden: hidden width of the MLP on them.
            query_channels: outputs of that MLP.
            generator: where all initial values come from.

        Raises:
            CallError: `temporal_tiles` do not divide `n_frames`, `width` is no multiple of `heads`, or there
                are not 2, 3 or 4 outputs.
        """
        super().__init__()
        if temporal_tiles < 1 or n_frames % temporal_tiles:
            raise CallError(f"n_frames={n_frames} must be a multiple of temporal_tiles={temporal_tiles}.")
        if n_outputs_per_point not in (2, 3, 4):
            raise CallError(
                f"n_outputs_per_point={n_outputs_per_point} must be 2 (x, y), 3 (and visibility) "
                "or 4 (and certainty)."
            )
        self.n_bases = n_bases
        self.n_outputs_per_point = n_outputs_per_point
        self.point_mlp = mlp(2 * n_bases * _POINT_DIMS, mlp_hidden, query_channels, generator=generator)
        self.tile = normal_parameter(temporal_tiles, query_channels, generator=generator)
        self.attention = QueriedAttentionReadout(
            channels=channels,
            steps=steps,
            query_channels=query_channels,
            n_outputs=n_outputs_per_point * (n_frames // temporal_tiles),
            width=width,
            heads=heads,
            dropout=dropout,
            generator=generator,
        )

    def forward(
        self, features: Native | PreparedTokens, queries: Float[Tensor, "B Q 2"]
    ) -> Float[Tensor, "B F Q O"]:
        """Raw outputs of every frame and query; `as_tracks` gives them meaning.

        Args:
            features: tokens of any float dtype, or prepared.
            queries: x, y in [0, 1] of points in the first frame; rows of padding may hold anything.

        Raises:
            CallError: the tokens' number of steps is not the head's.
        """
        points = self.point_mlp(fourier_features(queries.float(), self.n_bases))
        tiled = rearrange(points[:, :, None] + self.tile, "b q k d -> b (q k) d")
        outputs = self.attention(features, tiled)
        if outputs.ndim == 2:
            # A lone query (one point, one tile) comes back without its axis.
            outputs = outputs[:, None]
        tracks: Tensor = rearrange(
            outputs, "b (q k) (t o) -> b (k t) q o", k=len(self.tile), o=self.n_outputs_per_point
        )
        return tracks


def as_tracks(outputs: Float[Tensor, "B F Q O"], *, threshold: float = 0.5) -> Tracks:
    """Points, logits and visibility of raw outputs; O is 2, 3 or 4, and what is not there is None.

    `threshold` is what the probability of being seen times that of being certain has to exceed.
    """
    points = outputs[..., :2].sigmoid()
    n_outputs = outputs.shape[-1]
    visible_logits = outputs[..., 2:3] if n_outputs > 2 else None
    certainty_logits = outputs[..., 3:4] if n_outputs > 3 else None
    visible = None if visible_logits is None else visible_logits.sigmoid()
    if visible is not None and certainty_logits is not None:
        visible = (visible * certainty_logits.sigmoid() > threshold).to(outputs.dtype)
    return Tracks(
        points=points, visible=visible, visible_logits=visible_logits, certainty_logits=certainty_logits
    )
