"""Tokens as colours: what a backbone makes of a clip, without the backbone."""

from dataclasses import dataclass

import numpy as np
from einops import rearrange
from jaxtyping import Float, Float32, UInt8

from readouts.report.figures.base import png

PCA_TOKENS = 20_000
"""Tokens that the components are fitted on."""
TILES = 8
"""Tiles of a strip, one below each frame of the contact strip that a store keeps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spectrum:
    """How tokens vary: their mean, and the directions from it, the widest first."""

    mean: Float32[np.ndarray, " C"]
    variances: Float[np.ndarray, " C"]
    """Along each direction, never negative."""
    directions: Float32[np.ndarray, "C C"]
    """A column each, of length 1."""

    @property
    def participation_ratio(self) -> float:
        """(sum of variances)^2 / sum of their squares: C of C equal ones, 1 where one direction has all."""
        squares = float((self.variances**2).sum())
        return float(self.variances.sum()) ** 2 / squares if squares else 0.0

    @property
    def entropy_rank(self) -> float:
        """The exponential of the entropy of the shares of variance (Roy and Vetterli 2007)."""
        total = float(self.variances.sum())
        shares = self.variances[self.variances > 0] / total if total else np.ones(0)
        return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def spectrum(tokens: Float[np.ndarray, "B T H W C"]) -> Spectrum:
    """How tokens vary, from at most `PCA_TOKENS` of them, evenly taken."""
    flat = rearrange(tokens, "b t h w c -> (b t h w) c")
    sample = flat[:: max(1, -(-len(flat) // PCA_TOKENS))].astype(np.float32)
    mean = sample.mean(axis=0)
    variances, directions = np.linalg.eigh(np.atleast_2d(np.cov(sample - mean, rowvar=False)))
    return Spectrum(
        mean=mean,
        variances=np.maximum(variances[::-1], 0),
        directions=directions[:, ::-1].astype(np.float32),
    )


def principal_components(
    tokens: Float[np.ndarray, "B T H W C"], of: Spectrum, n: int = 3
) -> Float32[np.ndarray, "B T H W n"]:
    """Tokens on the first `n` directions (fewer channels: padded with 0)."""
    leading = of.directions[:, :n]
    projected = np.zeros((*tokens.shape[:-1], n), np.float32)
    projected[..., : leading.shape[1]] = (tokens - of.mean) @ leading
    return projected


def token_strips(components: Float32[np.ndarray, "B T H W 3"], *, last_only: bool = False) -> list[str]:
    """For each clip a strip of `TILES`: three components as red, green and blue.

    A tile is of the step in which its frame lies. A colour means the same in all strips of one call, and
    nothing in those of another.

    Args:
        components: of every token that is stored.
        last_only: whether the one step is the clip's last, so that all tiles before it stay white.
    """
    steps = components.shape[1]
    chosen = np.linspace(0, steps, TILES).astype(int).clip(max=steps - 1)
    zoom = max(1, 112 // components.shape[2])
    tiles = _as_colours(components)[:, chosen]
    if last_only:
        tiles[:, :-1] = 255
    return [png(rearrange(clip, "t h w c -> h (t w) c"), zoom) for clip in tiles]


def _as_colours(components: Float32[np.ndarray, "B T H W 3"]) -> UInt8[np.ndarray, "B T H W 3"]:
    """Each component stretched from its 1st to its 99th percentile."""
    low, high = np.percentile(components, [1, 99], axis=(0, 1, 2, 3))
    scaled = (components - low) / np.maximum(high - low, 1e-6)
    colours: np.ndarray = (scaled.clip(0, 1) * 255).round().astype(np.uint8)
    return colours
