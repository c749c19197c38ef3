"""A small store's header, for the tests of headers and of what compares them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from featcache.fingerprint import fingerprint
from featcache.spec import Layer, TokenGrid
from featcache.store.header import StoreHeader, TargetsReference, read_header
from featcache.store.shards import examine
from featcache.store.spec import FeatureSpec
from featcache.store.zarr_format import json_bytes, shard_key
from featcache.system.sealed import KEY, UNSEALED, seal

SPEC = FeatureSpec(
    grid=TokenGrid(steps=2, rows=3, columns=4, channels=5),
    layers=(Layer(11), Layer(12, normed=True)),
    n_clips=7,
    n_views=2,
    clips_per_shard=3,
)
PARTS = {"backbone": {"weights": "ab" * 32}, "layers": ["11", "12_normed"]}


def header(**changes: Any) -> StoreHeader:
    given: dict[str, Any] = {
        "spec": SPEC,
        "fingerprint": fingerprint(PARTS),
        "parts": PARTS,
        "frames_digest": "ab" * 32,
        "clips_digest": "cd" * 32,
        "targets": TargetsReference(path="../targets-0.zarr", fingerprint="ef" * 32),
        "provenance": {"software": {"torch": "2.6"}},
        "attrs": {"task": "t", "exactness": "exact"},
    }
    return StoreHeader(**{**given, **changes})


def forge(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit a JSON file as one who knows about seals: what has one gets the right one again."""
    document = json.loads(path.read_bytes())
    own = document.get("attributes", {}).get("scivid", {})
    if sealed := KEY in own:
        own[KEY] = UNSEALED
    change(document)
    content = json_bytes(document)
    path.write_bytes(seal(content) if sealed else content)


def redigest(store: Path) -> None:
    """Make the shards that lie in a finished store those that it was finished with."""
    found = read_header(store)
    spec = found.spec
    digests = {
        array.name: "".join(
            examine(store / shard_key(array, shard), array, shard, sums=True)[1].digest
            for shard in range(spec.n_shards)
        )
        for array in spec.all_arrays
    }
    (store / "zarr.json").write_bytes(replace(found, shard_digests=digests).to_bytes())
