"""Where the stores of a run came from: what changed there since, and what its splits have in common.

Stage two sees no data, but it sees what stores say of theirs; where the files are within reach it looks.
"""

import shlex
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

from featcache.clips import shared_between
from featcache.errors import StoreError
from featcache.manifest import OWN_VIDEOS, Manifest
from featcache.store.feature_store import FeatureStore
from featcache.system.sealed import changed_since
from readouts.features.splits import view_option


def remarks(stores: Mapping[str, FeatureStore], manifest: Manifest, *, extract: str) -> list[str]:
    """What to know before scores on these stores are believed, a line each.

    Args:
        stores: role -> the store of a run.
        manifest: as it is now.
        extract: the command that makes the stores of today's files.

    Raises:
        StoreError: the labels are of other classes than the manifest's, or in another order.
    """
    return [
        *(line for role, store in stores.items() for line in _changes(role, store, manifest, extract)),
        *shared(stores),
    ]


class Remarked:
    """The remarks on the stores of many runs; each set of stores is looked at once: that reads all clips."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._seen: set[tuple[tuple[str, Path], ...]] = set()

    def new(self, stores: Mapping[str, FeatureStore], *, extract: str) -> list[str]:
        """As `remarks`; nothing where these very stores had theirs before."""
        these = tuple((role, store.path) for role, store in stores.items())
        if these in self._seen:
            return []
        found = remarks(stores, self._manifest, extract=extract)
        self._seen.add(these)
        return found


def shared(stores: Mapping[str, FeatureStore]) -> list[str]:
    """Videos, or clips, that stand in two splits of a run; none where all are apart."""
    found = [
        shared_between(role, one.clip_table, other, another.clip_table, of_videos=_is_of_videos(one))
        for (role, one), (other, another) in combinations(stores.items(), 2)
        if _is_of_videos(one) == _is_of_videos(another)
    ]
    return [line for line in found if line is not None]


def _is_of_videos(store: FeatureStore) -> bool:
    decoding = store.parts.get("decoding")
    return isinstance(decoding, Mapping) and decoding.get("reader") == OWN_VIDEOS


def _changes(role: str, store: FeatureStore, manifest: Manifest, extract: str) -> Iterator[str]:
    """How today's manifest and clip list are not those that a store was extracted from."""
    again = (
        f"Scores are of what was extracted then; `{_again(role, store, extract)}` takes what is there now."
    )
    task, clips = manifest.tasks.get(str(store.attrs.get("task"))), store.parts.get("clips")
    before = store.provenance.get("clip_list")
    if task is not None and role in task.splits and isinstance(clips, Mapping):
        name, split = task.splits[role]
        then = (clips.get("dataset"), clips.get("split"))
        if then != (name, split):
            yield (
                f"the manifest has {name}/{split} for {role}, {store.path.name} was extracted from "
                f"{'/'.join(map(str, then))}. {again}"
            )
            return
        _refuse_other_classes(store, manifest.dataset(name).classes, _again(role, store, extract))
        listed = manifest.dataset(name).split(split).clips
        if isinstance(before, Mapping) and listed != before.get("name"):
            yield (
                f"the manifest has the clips of {role} in {listed}, {store.path.name} was extracted by "
                f"{before.get('name')}. {again}"
            )
            return
    if isinstance(before, Mapping) and (path := changed_since(before)) is not None:
        yield f"{path} was edited since {store.path.name} ({role}) was extracted by it. {again}"


def _again(role: str, store: FeatureStore, extract: str) -> str:
    """The command that makes a store again of today's files, alike in all that it says of itself."""
    backbone, before = store.parts.get("backbone"), store.provenance.get("clip_list")
    options = {
        "--split": role,
        "--layers": ",".join(layer.name for layer in store.spec.layers),
        "--precision": backbone.get("precision") if isinstance(backbone, Mapping) else None,
        "--store-dtype": store.spec.dtype if store.spec.dtype != "float16" else None,
    }
    if store.spec.n_views > 1 and view_option(store, "starts") is None:
        options |= {"--views": str(store.spec.n_views), "--seed": str(view_option(store, "seed") or 0)}
    if isinstance(before, Mapping):
        options["--data-dir"] = str(before.get("path")).removesuffix(str(before.get("name"))) or None
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return f"{extract} {shlex.join(words)}"


def _refuse_other_classes(store: FeatureStore, classes: tuple[str, ...], extract: str) -> None:
    targets = store.targets
    then = None if targets is None else targets.parts.get("classes")
    if then is not None and classes and list(then) != list(classes):
        raise StoreError(
            f"the labels of {store.path} are of the classes {', '.join(map(str, then))}, the manifest lists "
            f"{', '.join(classes)}: run `{extract}`, which keeps the features."
        )
