"""Tokens as colours: what a backbone makes of a clip, without the backbone."""

from collections.abc import Sequence

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8

from featcache.store import FeatureStore
from readouts.pictures.base import png

PCA_TOKENS = 20_000
"""Tokens that the components are fitted on."""


def token_strips(store: FeatureStore, clips: Sequence[int], layer_index: int = 0) -> dict[int, str]:
    """Clip number -> a strip of its tokens, a tile a step: three principal components as red, green, blue.

    The components are those of the given clips together, so a colour means the same in all strips.
    """
    tokens = store.read(clips, layer=store.spec.layers[layer_index]).astype(np.float32)
    colours = _as_colours(principal_components(tokens))
    chosen = np.linspace(0, tokens.shape[1] - 1, min(8, tokens.shape[1])).round().astype(int)
    strips = (rearrange(clip[chosen], "t h w c -> h (t w) c") for clip in colours)
    zoom = max(1, 112 // tokens.shape[2])
    return {number: png(strip, zoom) for number, strip in zip(clips, strips, strict=True)}


def principal_components(
    tokens: Float[np.ndarray, "B T H W C"], n: int = 3
) -> Float[np.ndarray, "B T H W n"]:
    """Tokens on the first `n` principal components of all of them (fewer channels: padded with 0)."""
    flat = rearrange(tokens, "b t h w c -> (b t h w) c")
    sample = flat[:: max(1, len(flat) // PCA_TOKENS)]
    mean = sample.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(sample - mean, rowvar=False))
    leading = vectors[:, ::-1][:, :n].astype(np.float32)
    projected = np.zeros((*tokens.shape[:-1], n), np.float32)
    projected[..., : leading.shape[1]] = (tokens - mean) @ leading
    return projected


def _as_colours(components: Float[np.ndarray, "B T H W 3"]) -> UInt8[np.ndarray, "B T H W 3"]:
    """Each component stretched from its 1st to its 99th percentile."""
    low, high = np.percentile(components, [1, 99], axis=(0, 1, 2, 3))
    scaled = (components - low) / np.maximum(high - low, 1e-6)
    colours: np.ndarray = (scaled.clip(0, 1) * 255).round().astype(np.uint8)
    return colours
