"""Which stores there are for a task, a backbone and a role: the one that fits, or a refusal that says why."""

import logging
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from featcache.buckets.path import place
from featcache.errors import StoreError, did_you_mean
from featcache.fingerprint import differences
from featcache.store.feature_store import (
    FeatureStore,
    find_stores,
    finished,
    open_features,
    readable_stores,
    store_paths,
)
from featcache.store.matching import refuse_incompatible, refuse_misplaced
from featcache.system.console import extract_command
from featcache.system.sealed import changed_since
from readouts.features.splits import FeatureSplit, parse_layers, split_of, view_option


def open_task_splits(
    cache_dir: Path | str,
    task: str,
    backbone: str,
    *,
    roles: Sequence[str],
    layer: str | None = None,
    fingerprint: str | None = None,
    extract: str | None = None,
) -> dict[str, FeatureSplit]:
    """Role -> the finished store of `backbone` for that role, all of them extracted alike.

    `layer` is as `parse_layers` reads it; None takes the only one. `fingerprint` chooses among several
    training stores by its first digits; the stores of the other roles are those that fit it. `extract` is
    the command that would make them, for messages; "" says none.

    Raises:
        StoreError: a store is missing or unfinished, several would fit, they were not extracted alike, or one
            lies where another belongs.
    """
    cache_dir = place(cache_dir)
    if extract is None:
        extract = extract_command(backbone, task, cache_dir=cache_dir)
    only = _only_store(cache_dir, task, "train", backbone, fingerprint, extract)
    train = split_of(finished(only), None if layer is None else parse_layers(layer, only))
    splits = {"train": train}
    for role in roles:
        if role != "train":
            store = _fitting_store(cache_dir, task, role, backbone, train.store, extract)
            splits[role] = split_of(finished(store), train.layers)
    return splits


def evaluated_store(cache_dir: Path, row: Mapping[str, Any], role: str) -> FeatureStore:
    """The very store that a row of the results table was scored on.

    Raises:
        StoreError: it is no longer there, or is a store of another split, backbone or fingerprint.
    """
    stores = find_stores(cache_dir, str(row["task"]), role)
    found = next((store for store in stores if store.fingerprint == row[f"{role}_fingerprint"]), None)
    if found is None:
        raise StoreError(
            f"the {role} store of run {row['run']}, {row[f'{role}_store']}, is not in {cache_dir}: give the "
            "folder it was trained from with --cache-dir."
        )
    refuse_misplaced(found.path, found.header)
    return found


def _stores_in_place(cache_dir: Path, task: str, role: str, backbone: str) -> list[FeatureStore]:
    """The stores that are asked for, each known to be what its place and name say."""
    found, problems = readable_stores(cache_dir, task, role, backbone)
    for store in found:
        refuse_misplaced(store.path, store.header)
    if found:
        for problem in problems:
            logging.getLogger(__name__).warning(f"not considered: {problem}")
    return found


def _only_store(
    cache_dir: Path, task: str, role: str, backbone: str, fingerprint: str | None, extract: str
) -> FeatureStore:
    """The one store of a role, if need be told from others by the first digits of its fingerprint."""
    found = _stores_in_place(cache_dir, task, role, backbone)
    if not found:
        for path in store_paths(cache_dir, task, role, backbone):
            open_features(path)  # it is there and cannot be read: says why
        way_out = f": make one with `{extract}`" if extract else ""
        there = {path.name.rpartition("-")[0] for path in store_paths(cache_dir, task, role)} - {"targets"}
        near = did_you_mean(backbone, there)
        raise StoreError(f"no {role} store of {backbone} for {task} in {cache_dir}{way_out}.{near}")
    fitting = [store for store in found if store.fingerprint.startswith(fingerprint or "")]
    if fitting and all(_fits(store, fitting[0]) for store in fitting):
        return _todays(fitting, role)
    listed = "".join(f"\n  {store.path.name}: {_about(store)}" for store in found)
    wanted = f"{len(fitting)} of them begin with {fingerprint}" if fingerprint else "say which"
    raise StoreError(
        f"{len(found)} {role} stores of {backbone} for {task} are in {cache_dir}; {wanted} by the first "
        f"digits of its fingerprint (--fingerprint, in a grid fingerprint=):{listed}"
    )


def _fitting_store(
    cache_dir: Path, task: str, role: str, backbone: str, train: FeatureStore, extract: str
) -> FeatureStore:
    """The one store of `role` that was extracted like `train`; the refusal says in what others differ."""
    found = _stores_in_place(cache_dir, task, role, backbone)
    fitting, refusals = [], []
    for store in found:
        try:
            refuse_incompatible(store.path, store.header, train_path=train.path, train=train.header)
            fitting.append(store)
        except StoreError as problem:
            refusals.append(str(problem))
    if fitting:
        return _todays(fitting, role)
    if refusals:
        raise StoreError(refusals[0])
    return _only_store(cache_dir, task, role, backbone, None, extract)


def _fits(store: FeatureStore, train: FeatureStore) -> bool:
    """Whether two stores hold features of one kind, so that only their clips differ."""
    try:
        refuse_incompatible(store.path, store.header, train_path=train.path, train=train.header)
    except StoreError:
        return False
    return store.spec.n_views == train.spec.n_views


def _todays(stores: Sequence[FeatureStore], role: str) -> FeatureStore:
    """Of stores that differ in their clips alone the one of today's list of clips, or else the newest.

    A line says which others there are, and in what they differ.
    """
    if len(stores) == 1:
        return stores[0]  # whose list of clips need not be looked at
    ranked = sorted(((_recency(store), store) for store in stores), key=itemgetter(0), reverse=True)
    (recency, chosen), *others = ranked
    for of_other, other in others:
        unlike = "; ".join(differences(other.parts, chosen.parts)) or "nothing that they say"
        logging.getLogger(__name__).warning(
            f"{len(stores)} {role} stores fit: {chosen.path.name} is read, {_why(recency, of_other)}, not "
            f"{other.path.name}, which differs in {unlike}"
        )
    return chosen


Recency = tuple[bool, bool, int]
"""Whether a store is complete, and of today's list of clips; when its header was written."""


def _recency(store: FeatureStore) -> Recency:
    return store.complete, _is_todays(store), (store.path / "zarr.json").stat().st_mtime_ns


def _is_todays(store: FeatureStore) -> bool:
    """Whether the list of clips that it was extracted by is the one that lies there now."""
    before = store.provenance.get("clip_list")
    return isinstance(before, Mapping) and changed_since(before) is None


def _why(chosen: Recency, other: Recency) -> str:
    reasons = ("the one that is complete", "of the clip list as it is now", "the newest")
    unlike = zip(reasons, chosen, other, strict=True)
    return next((reason for reason, ours, theirs in unlike if ours != theirs), reasons[-1])


def _about(store: FeatureStore) -> str:
    """What tells a store from others of its backbone, for a message that lists them."""
    layers = " ".join(layer.name for layer in store.spec.layers)
    views = f"{store.spec.n_views} views"
    if store.spec.n_views > 1:
        views += f" of seed {view_option(store, 'seed')}"
    numbers = f"{store.spec.dtype}, computed in {store.parts['backbone'].get('precision')}"
    state = "complete" if store.complete else "unfinished"
    return f"layers {layers}, {views}, {store.spec.n_clips} clips, {numbers}, {state}"
