"""What a store's tokens look like: their colours, their lengths, how many directions they use.

It takes the reading of a few clips, a second a layer, so it is kept beside the results under the fingerprint
of the store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from featcache.fingerprint import SHORT
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from readouts.features.draws import evenly
from readouts.report import figures
from readouts.results.json_cache import JsonCache

TOKEN_FIGURES_VERSION = 2
"""Raised when the same store gives other figures, so that kept ones are made anew."""
CLIPS_MEASURED = 8
"""Norms and ranks are of the tokens of these; more tell no other story."""
MAX_STRIP_LAYERS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerFigures:
    """What the tokens of one layer of a store look like."""

    layer: str
    norm: float
    """Mean length of a token."""
    participation_ratio: float
    entropy_rank: float
    strips: Mapping[str, str]
    """Clip number -> `data:` address of its tokens as colours; empty of layers that are not drawn."""


def token_figures(store: FeatureStore, shown: Sequence[int], results_dir: Path) -> list[LayerFigures]:
    """The layers of a store, the shallowest first, computed or as kept.

    Args:
        store: finished.
        shown: clips to draw, of those that have features.
        results_dir: where the figures are kept, below `token_figures/`.

    Raises:
        StoreError: tokens are damaged.
    """
    layers = sorted(store.spec.layers, key=lambda layer: (layer.block, layer.normed))
    drawn = [layers[i] for i in evenly(len(layers), MAX_STRIP_LAYERS)]
    cache = JsonCache(results_dir / "token_figures" / f"{store.fingerprint[:SHORT]}.json")
    found = cache.value(
        {"version": TOKEN_FIGURES_VERSION, "store": store.fingerprint, "shown": list(shown)},
        lambda: [asdict(_layer_figures(store, one, shown if one in drawn else ())) for one in layers],
    )
    cache.keep()
    return [LayerFigures(**layer) for layer in found]


def _layer_figures(store: FeatureStore, layer: Layer, shown: Sequence[int]) -> LayerFigures:
    usable = [clip for clip in range(store.spec.n_clips) if clip not in store.skipped_clips]
    measured = [usable[i] for i in evenly(len(usable), CLIPS_MEASURED)]
    tokens = store.read(measured, layer=layer).astype(np.float32)
    spectrum = figures.spectrum(tokens)
    strips: Mapping[str, str] = {}
    if shown:
        components = figures.principal_components(
            store.read(list(shown), layer=layer).astype(np.float32), spectrum
        )
        last_only = store.parts.get("tokens", {}).get("steps", "all") != "all"
        drawn = figures.token_strips(components, last_only=last_only)
        strips = dict(zip(map(str, shown), drawn, strict=True))
    return LayerFigures(
        layer=layer.name,
        norm=float(np.linalg.norm(tokens, axis=-1).mean()),
        participation_ratio=spectrum.participation_ratio,
        entropy_rank=spectrum.entropy_rank,
        strips=strips,
    )
