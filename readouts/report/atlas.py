"""The atlas of a store: what its tokens look like, how long they are and how many directions they use.

It reads a few clips and takes a second a layer, so it is kept beside the results under the fingerprint of
the store it is of.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from featcache.system.files import make_directory, publish
from readouts.report import figures

ATLAS_VERSION = 2
"""Raised when the same store gives another atlas, so that kept ones are made anew."""
CLIPS_MEASURED = 8
"""Norms and ranks are of these; more tell no other story."""
MAX_STRIP_LAYERS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerAtlas:
    """One layer of a store."""

    layer: str
    norm: float
    """Mean length of a token."""
    participation_ratio: float
    entropy_rank: float
    strips: Mapping[str, str]
    """Clip number -> `data:` address of its tokens as colours; empty of layers that are not drawn."""


def atlas_of(store: FeatureStore, shown: Sequence[int], results_dir: Path) -> list[LayerAtlas]:
    """The layers of a store, the shallowest first, computed or as kept.

    Args:
        store: finished.
        shown: clips to draw, of those that have features.
        results_dir: where it is kept, below `atlas/`.

    Raises:
        StoreError: tokens are damaged.
    """
    about = {"version": ATLAS_VERSION, "store": store.fingerprint, "shown": list(shown)}
    key = blake2b(json.dumps(about).encode(), digest_size=8).hexdigest()
    file = results_dir / "atlas" / f"{key}.json"
    found = _kept(file)
    if found is None:
        layers = sorted(store.spec.layers, key=lambda layer: (layer.block, layer.normed))
        drawn = {layers[i] for i in _evenly(len(layers), MAX_STRIP_LAYERS)}
        found = [_layer_atlas(store, layer, shown if layer in drawn else ()) for layer in layers]
        make_directory(file.parent)
        publish(file, json.dumps({**about, "layers": [asdict(one) for one in found]}).encode())
    return found


def _layer_atlas(store: FeatureStore, layer: Layer, shown: Sequence[int]) -> LayerAtlas:
    usable = [clip for clip in range(store.spec.n_clips) if clip not in store.skipped_clips]
    measured = [usable[i] for i in _evenly(len(usable), CLIPS_MEASURED)]
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
    return LayerAtlas(
        layer=layer.name,
        norm=float(np.linalg.norm(tokens, axis=-1).mean()),
        participation_ratio=spectrum.participation_ratio,
        entropy_rank=spectrum.entropy_rank,
        strips=strips,
    )


def _evenly(n: int, wanted: int) -> list[int]:
    """At most `wanted` of `n` places, the first and the last among them."""
    return sorted({int(i) for i in np.linspace(0, n - 1, min(n, wanted)).round()})


def _kept(file: Path) -> list[LayerAtlas] | None:
    """What an earlier call kept; a file that cannot be read is as good as none."""
    try:
        return [LayerAtlas(**layer) for layer in json.loads(file.read_bytes())["layers"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
