"""A store of some of another's layers and views, under the name that an extraction of only these gives it.

View v of a clip is drawn alike however many there are, and a layer's tokens do not depend on which others are
kept. So a part has a fingerprint of its own, which names what is in it, and chunks that are copied. (An
extraction of only these may round the last bit of a token otherwise, for clips are encoded in other company.)
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import CallError, StoreError
from featcache.fingerprint import fingerprint
from featcache.sharing.private import without_places
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from featcache.store.header import StoreHeader
from featcache.store.reading.shard_file import ShardFile
from featcache.store.shards import ABSENT, DamagedShard, examine, write_chunks
from featcache.store.spec import ArraySpec
from featcache.store.zarr_format import shard_key
from featcache.system.files import naming


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """What is taken of stores."""

    layers: tuple[Layer, ...] | None = None
    """None takes all of them."""
    n_views: int | None = None
    """The first views of each training clip; None takes all of them."""


def parse_layers(text: str) -> tuple[Layer, ...]:
    """The layers that a list with commas names.

    Raises:
        CallError: a name is none.
    """
    return tuple(Layer.parse(name.strip()) for name in text.split(","))


def header_of(store: FeatureStore, cut: Cut) -> StoreHeader:
    """The header of what `cut` takes of a store, without this machine's folders.

    The digests in it are still those of the store's shards.

    Raises:
        CallError: it has no such layer, fewer views, or none that can be taken without the others.
    """
    whole = store.header
    header = replace(whole, provenance=without_places(whole.provenance))
    layers, n_views = _layers(store, cut.layers), _n_views(store, cut.n_views)
    if layers == whole.spec.layers and n_views == whole.spec.n_views:
        return header
    parts, attrs = dict(whole.parts), dict(whole.attrs)
    if layers != whole.spec.layers:
        parts["layers"] = [layer.name for layer in layers]
    if n_views != whole.spec.n_views:
        parts["views"] = _views_part(whole.parts.get("views"), n_views)
        if "exactness" in attrs:
            attrs["exactness"] = _exactness(str(attrs["exactness"]), whole.spec.n_views, n_views)
    of = {
        "fingerprint": whole.fingerprint,
        "layers": [layer.name for layer in whole.spec.layers],
        "n_views": whole.spec.n_views,
    }
    spec = replace(whole.spec, layers=layers, n_views=n_views)
    names = {array.name for array in spec.all_arrays}
    return replace(
        header,
        spec=spec,
        parts=parts,
        fingerprint=fingerprint(parts),
        attrs=attrs,
        provenance={**header.provenance, "part_of": of},
        shard_digests={name: all_of for name, all_of in (whole.shard_digests or {}).items() if name in names},
    )


def copy_shard(
    store: FeatureStore, header: StoreHeader, layer: Layer, shard: int, to: Path
) -> dict[str, str]:
    """Copy the chunks of one shard of a layer to the store that is being made at `to`.

    Every chunk is held against its checksum on the way, which is held against the store's header.

    Returns:
        name of each of the layer's arrays -> the digest of its new shard.

    Raises:
        StoreError: a chunk is missing or damaged; names the file.
    """
    arrays, new = store.spec.arrays(layer), header.spec.arrays(layer)
    paths = [to / shard_key(array, shard) for array in new]
    with naming(paths[0]), ExitStack() as opened:
        fds = [opened.enter_context(path.open("xb", buffering=0)).fileno() for path in paths]
        write_chunks(fds, _chunks(store, arrays, new, shard), new)
        for fd in fds:
            os.fsync(fd)
    tails = (examine(path, array, shard, sums=True)[1] for path, array in zip(paths, new, strict=True))
    return {array.name: tail.digest for array, tail in zip(new, tails, strict=True)}


def _chunks(
    store: FeatureStore, arrays: Sequence[ArraySpec], new: Sequence[ArraySpec], shard: int
) -> Iterator[tuple[np.ndarray, ...] | None]:
    """The chunks of a new shard in its order; a buffer is overwritten by the next."""
    files = [_opened(store, array, shard) for array in arrays]
    buffers = [np.empty(array.of_a_chunk, array.dtype) for array in arrays]
    n_views, n_before = new[0].rows.chunks_per_row, arrays[0].rows.chunks_per_row
    for slot in range(new[0].chunks_per_shard):
        row, view = divmod(slot, n_views)
        source = row * n_before + view
        if files[0].tail.index[source, 0] == ABSENT:
            yield None
            continue
        for file, array, buffer in zip(files, arrays, buffers, strict=True):
            path = store.path / shard_key(array, shard)
            try:
                with naming(path):
                    file.fill(source, buffer, verify=True)
            except DamagedShard as problem:
                raise _damaged(path, problem) from None
        yield tuple(buffers)


def _opened(store: FeatureStore, array: ArraySpec, shard: int) -> ShardFile:
    path = store.path / shard_key(array, shard)
    try:
        return ShardFile(path, array, digest=store.header.digest_of(array, shard), mapped=False)
    except FileNotFoundError:
        raise StoreError(f"{path} is missing. Run the same `scivid extract` again.") from None
    except DamagedShard as problem:
        raise _damaged(path, problem) from None


def _damaged(path: Path, problem: DamagedShard) -> StoreError:
    return StoreError(f"{path} {problem}. `scivid validate` finds all damage, and says how to mend it.")


def _layers(store: FeatureStore, wanted: tuple[Layer, ...] | None) -> tuple[Layer, ...]:
    if wanted is None:
        return store.spec.layers
    if lacking := [layer.name for layer in wanted if layer not in store.spec.layers]:
        held = ", ".join(layer.name for layer in store.spec.layers)
        raise CallError(f"--layers {','.join(lacking)}: {store.path} holds layers {held}.")
    return tuple(layer for layer in store.spec.layers if layer in wanted)


def _n_views(store: FeatureStore, wanted: int | None) -> int:
    held, views = store.spec.n_views, store.parts.get("views")
    # Evaluation has the one view, whatever is asked for.
    if wanted is None or wanted == held or store.attrs.get("role") != "train":
        return held
    if wanted > held:
        raise CallError(f"--views {wanted}: {store.path} holds {held} of each clip.")
    if store.spec.n_frames is not None or (isinstance(views, Mapping) and views.get("starts") is not None):
        raise CallError(
            f"--views {wanted}: the {held} views in {store.path} are all the starts of its clips, of which "
            "training draws one: export them together, without --views."
        )
    return wanted


def _views_part(views: Any, n_views: int) -> Any:
    """What the fingerprint says of fewer views, as `ViewPlan` does: of a single one nothing was drawn."""
    if not isinstance(views, Mapping):
        return n_views
    undrawn = {"seed": None, "augmentation": None} if n_views == 1 else {}
    return {**views, "n_views": n_views, **undrawn}


def _exactness(text: str, before: int, now: int) -> str:
    return text.replace(f"{before} frozen view{'s' * (before > 1)}", f"{now} frozen view{'s' * (now > 1)}")
