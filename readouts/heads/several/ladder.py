"""A ladder: a small network beside the frozen one, with a rung at every stored layer.

From Ladder Side-Tuning (Sung et al. 2022, arXiv 2206.06522): each rung projects its layer to a few channels
and mixes that into what climbs up from the layer below, by a learned gate; no gradient enters the backbone,
so its cached layers are all that is needed. From Side4Video (arXiv 2311.15769): what climbs stays a map of
tokens in space and time, and each rung mixes along time by a convolution over steps of one position.
Ours: rungs have no attention between positions, nor blocks copied from the backbone, so that a step costs
about what the reading does; tokens keep their native steps; at the top a learned query pools the tokens.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Generator, Tensor, nn

from featcache.errors import CallError
from readouts.heads.attention import CrossAttention
from readouts.heads.base import Readout
from readouts.heads.layers import Dropout, dense, layer_norm, mlp, normal_parameter
from readouts.tokens.prepared import Native, PreparedTokens, prepared
from readouts.tokens.projecting import project


class Rung(nn.Module):
    """One layer of the ladder: its tokens mixed into what climbs, then a step of the side network."""

    def __init__(self, *, channels: int, width: int, lowest: bool, generator: Generator | None) -> None:
        super().__init__()
        self.down = dense(channels, width, bias=False, generator=generator)
        self.down_norm = layer_norm(width)
        self.gate = None if lowest else nn.Parameter(torch.zeros(()))
        self.time_norm = layer_norm(width)
        self.time = normal_parameter(3, width, generator=generator)
        self.mlp_norm = layer_norm(width)
        self.mlp = mlp(width, 2 * width, width, generator=generator)

    def forward(
        self, tokens: PreparedTokens, below: Float[Tensor, "B T N D"] | None
    ) -> Float[Tensor, "B T N D"]:
        """What climbs on; `below` is None at the lowest rung."""
        here: Tensor = self.down_norm(project(tokens, self.down.weight))
        if below is not None and self.gate is not None:
            here = torch.lerp(below, here, self.gate.sigmoid())
        here = here + self._over_time(self.time_norm(here))
        climbed: Tensor = here + self.mlp(self.mlp_norm(here))
        return climbed

    def _over_time(self, tokens: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T N D"]:
        """Three taps over steps, a weight each channel; beyond the ends there is nothing."""
        before, at, after = self.time
        padded = nn.functional.pad(tokens, (0, 0, 0, 0, 1, 1))
        mixed: Tensor = before * padded[:, :-2] + at * tokens + after * padded[:, 2:]
        return mixed


class LadderReadout(Readout):
    """Rungs at L layers, a learned query over the tokens at the top, a dense layer."""

    def __init__(
        self,
        *,
        channels: int,
        n_layers: int,
        n_outputs: int,
        width: int = 32,
        heads: int = 4,
        dropout: float = 0.1,
        generator: Generator | None = None,
    ) -> None:
        """Draw a new head; `width` is the side network's, `dropout` acts on what the query found.

        Raises:
            CallError: `width` is not a multiple of `heads`.
        """
        super().__init__()
        self.attention = CrossAttention(channels=width, width=width, heads=heads, generator=generator)
        self.rungs = nn.ModuleList(
            Rung(channels=channels, width=width, lowest=number == 0, generator=generator)
            for number in range(n_layers)
        )
        self.norm = layer_norm(width)
        self.query = normal_parameter(heads, width // heads, generator=generator)
        self.dropout = Dropout(dropout)
        self.classifier = dense(width, n_outputs, generator=generator)

    @property
    def branches(self) -> tuple[Readout, ...]:
        """None: it goes through the tokens itself."""
        return ()

    def forward(self, features: Sequence[Native | PreparedTokens]) -> Float[Tensor, "B O"]:
        """Tokens of each layer, the shallowest first, to one row of outputs per clip.

        Raises:
            CallError: there are not as many layers as rungs.
        """
        if len(features) != len(self.rungs):
            raise CallError(f"this ladder has {len(self.rungs)} rungs and was given {len(features)} layers.")
        climbed: Tensor | None = None
        for rung, tokens in zip(self.rungs, features, strict=True):
            climbed = rung(prepared(tokens), climbed)
        assert climbed is not None
        flat = rearrange(self.norm(climbed), "b t n d -> b (t n) d")
        keys, values = (
            rearrange(read(flat), "b s (h d) -> b h s d", h=len(self.query))
            for read in (self.attention.key, self.attention.value)
        )
        scaled = rearrange(self.query * self.query.shape[-1] ** -0.5, "h d -> h d 1")
        weights = (keys @ scaled).softmax(dim=2)
        found = rearrange(weights.mT @ values, "b h 1 d -> b (h d)")
        logits: Tensor = self.classifier(self.dropout(found))
        return logits
