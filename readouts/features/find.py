"""Which stores there are for a task, a backbone and a role: the one that fits, or a refusal that says why."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featcache.buckets.path import place
from featcache.errors import StoreError
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
        raise StoreError(f"no {role} store of {backbone} for {task} in {cache_dir}{way_out}.")
    fitting = [store for store in found if store.fingerprint.startswith(fingerprint or "")]
    fitting = fitting if fingerprint else of_todays_list(fitting)
    if len(fitting) != 1:
        listed = "".join(f"\n  {store.path.name}: {_about(store)}" for store in found)
        wanted = f"{len(fitting)} of them begin with {fingerprint}" if fingerprint else "say which"
        raise StoreError(
            f"{len(found)} {role} stores of {backbone} for {task} are in {cache_dir}; {wanted} by the first "
            f"digits of its fingerprint (--fingerprint, in a grid fingerprint=):{listed}"
        )
    return fitting[0]


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
    fitting = of_todays_list(fitting)
    if len(fitting) > 1:
        listed = ", ".join(store.path.name for store in fitting)
        raise StoreError(
            f"{len(fitting)} {role} stores fit {train.path.name} ({listed}): move all but one away."
        )
    if not fitting and refusals:
        raise StoreError(refusals[0])
    return fitting[0] if fitting else _only_store(cache_dir, task, role, backbone, None, extract)


def of_todays_list(stores: Sequence[FeatureStore]) -> list[FeatureStore]:
    """The one store whose list of clips is the file as it is now; all of them where that is not one.

    A user's list grows, and each of its states has a store: the others are of what it was.
    """
    state_of = {store: store.provenance.get("clip_list") for store in stores}
    if len(stores) < 2 or not all(state and Path(state["path"]).is_file() for state in state_of.values()):
        return list(stores)
    today = [store for store, state in state_of.items() if state and changed_since(state) is None]
    if len(today) != 1:
        return list(stores)
    others = ", ".join(store.path.name for store in stores if store is not today[0])
    logging.getLogger(__name__).info(f"{today[0].path.name} is of the list as it is now, {others} not")
    return today


def _about(store: FeatureStore) -> str:
    """What tells a store from others of its backbone, for a message that lists them."""
    layers = " ".join(layer.name for layer in store.spec.layers)
    views = f"{store.spec.n_views} views"
    if store.spec.n_views > 1:
        views += f" of seed {view_option(store, 'seed')}"
    numbers = f"{store.spec.dtype}, computed in {store.parts['backbone'].get('precision')}"
    state = "complete" if store.complete else "unfinished"
    return f"layers {layers}, {views}, {store.spec.n_clips} clips, {numbers}, {state}"
