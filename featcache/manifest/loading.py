"""`data_manifest.yaml`, and a user's own laid over it, as frozen values checked when they are read.

Everything that is known of a data set or task before its files are opened comes from here: sources,
licences, file names and counts, classes, clip geometry, augmentation, published results. A wrong key or
value is one message with the file, the path of keys in it, and what was expected there.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from featcache.errors import CallError
from featcache.manifest.entries import Node, overlay, read_entries
from featcache.manifest.values import (
    KINDS,
    READERS,
    Augmentation,
    Dataset,
    Manifest,
    Pixels,
    Split,
    Task,
    is_date,
)

_PLACES = ("files", "also")
_MOST_SHARDS = 99_999
"""Their numbers have five digits in a file's name."""


def shipped_manifest() -> Path:
    """`data_manifest.yaml` beside the packages, in a checkout as in an installation."""
    return Path(__file__).parents[2] / "data_manifest.yaml"


def load_manifest(extra: Path | str | None = None) -> Manifest:
    """Read the shipped manifest and lay `extra` over it, key by key; what is named there comes first.

    Raises:
        CallError: a file is missing or not YAML, or a key or value is wrong; names file and keys.
    """
    if extra is None:
        return _shipped()
    entries, over = read_entries(shipped_manifest()), read_entries(Path(extra))
    entries = _without_official_copies(overlay(entries, over), entries, over)
    entries |= {kind: _named_first(entries[kind], over.get(kind)) for kind in ("datasets", "tasks")}
    return _manifest(entries, str(extra))


@cache
def _shipped() -> Manifest:
    """Read once a process: it comes with the code."""
    return _manifest(read_entries(shipped_manifest()), str(shipped_manifest()))


def _manifest(entries: Any, origin: str) -> Manifest:
    root = Node(entries, origin)
    root.keys("format", "datasets", "tasks")
    if root.value("format", int) != 1:
        raise root.error("format", "1, the only format this version reads")
    datasets = {name: _dataset(name, node) for name, node in _named(root, "datasets")}
    tasks = {name: _task(name, node, datasets) for name, node in _named(root, "tasks")}
    return Manifest(datasets=datasets, tasks=tasks)


def _named_first(entries: Any, over: Any) -> Any:
    """The same entries, those that the user's manifest names before the others."""
    if not isinstance(entries, dict) or not isinstance(over, dict):
        return entries
    return {name: entries[name] for name in dict.fromkeys([*over, *entries])}


def _without_official_copies(entries: Any, shipped: Any, over: Any) -> Any:
    """Without the `bucket` of data sets of which the user's manifest says that the files are others."""
    datasets = over.get("datasets")
    for name, changes in datasets.items() if isinstance(datasets, dict) else ():
        official = shipped["datasets"].get(name)
        if official and isinstance(changes, dict) and "bucket" not in changes and _others(changes, official):
            entries["datasets"][name] = {**entries["datasets"][name], "bucket": None}
    return entries


def _others(changes: Mapping[str, Any], official: Mapping[str, Any]) -> bool:
    """Whether changes of a shipped data set are of what its files hold, or of where they are."""
    inside = {"reader", "features", "variables", "frame_size", "channels", "latitude", "longitude"}
    known, named = (
        {str(split[key]) for split in _mappings(entry.get("splits")) for key in _PLACES if key in split}
        for entry in (official, changes)
    )
    return bool(inside & set(changes)) or not named <= known


def _mappings(entries: Any) -> list[Any]:
    values = entries.values() if isinstance(entries, dict) else ()
    return [value for value in values if isinstance(value, dict)]


def _named(node: Node, key: str) -> list[tuple[str, Node]]:
    """The mappings under `key`, whose names become names of folders."""
    children = node.children(key)
    for name, _ in children:
        if not (0 < len(name) <= 100 and name.isprintable()) or name[0] in ".-" or set(name) & set("/\\"):
            raise CallError(
                f"{node.origin}, at {key}: no folder can be called {name[:40]!r}; choose a plain name."
            )
    return children


def _dataset(name: str, node: Node) -> Dataset:
    dataset = node.build(Dataset, name=name)
    node.choice("reader", READERS)
    for label in filter(None, (*dataset.rare, dataset.background)):
        if label not in dataset.classes:
            raise node.error("classes", f"a list that holds {label!r}, which `background` or `rare` names")
    if dataset.channels not in (1, 3):
        raise node.error("channels", "1 (grey) or 3 (RGB)")
    if dataset.values is not None and not dataset.values.std > 0:
        raise node.child("values").error("std", "a number above 0")
    if dataset.residual_std and (
        len(dataset.residual_std) != len(dataset.variables) or min(dataset.residual_std) <= 0
    ):
        raise node.error("residual_std", f"{len(dataset.variables)} numbers above 0, one a variable")
    if dataset.units and len(dataset.units) != len(dataset.variables):
        raise node.error("units", f"{len(dataset.variables)} texts, one a variable")
    _check_region(dataset, node)
    for split, child in _named(node, "splits"):
        _check_split(dataset.splits[split], child, n_classes=len(dataset.classes))
    _check_pixels(dataset.pixels, node.child("pixels"), dataset.channels)
    return dataset


def _check_region(dataset: Dataset, node: Node) -> None:
    for key, first, last in (("latitude", -90.0, 90.0), ("longitude", -360.0, 720.0)):
        ends = getattr(dataset, key)
        if ends is not None and not first <= ends[0] < ends[1] <= last:
            raise node.error(key, f"[first, last] degrees, ascending, {first:g} to {last:g}")
    if dataset.longitude is not None and dataset.longitude[1] - dataset.longitude[0] >= 360.0:
        raise node.error("longitude", "less than 360 degrees from the first column to the last")


def _check_split(split: Split, node: Node, *, n_classes: int) -> None:
    if len(split.label_counts) not in (0, n_classes):
        raise node.error("label_counts", f"{n_classes} numbers, one a class")
    if (split.n_shards or 0) > _MOST_SHARDS:
        raise node.error("n_shards", f"a number of at most {_MOST_SHARDS:,}")
    if split.windows is not None:
        for key in ("first", "last"):
            if not is_date(getattr(split.windows, key)):
                raise node.child("windows").error(key, "an ISO date: 2017, 2017-12-24, 2017-12-24T18")


def _check_pixels(pixels: Pixels, node: Node, channels: int) -> None:
    n_means, std = len(pixels.mean), pixels.std
    if n_means != len(std) or n_means not in (0, channels) or any(deviation <= 0 for deviation in std):
        raise node.error("mean", f"with `std` above 0, {channels} numbers each, one a channel")
    if pixels.low >= pixels.high:
        raise node.error("low", "a value below `high`")


def _task(name: str, node: Node, datasets: Mapping[str, Dataset]) -> Task:
    node.fields(Task)
    splits = {role: _source(child, datasets) for role, child in node.children("splits")}
    augmentation = _augmentation(node.child("augmentation"))
    if "starts" in node.entries and not augmentation.is_identity:
        raise node.error("starts", "no `augmentation` beside it: a start is all there is to a view")
    task = node.build(Task, name=name, splits=splits, augmentation=augmentation)
    node.choice("kind", KINDS)
    consecutive = task.clip.sampling == "clip" and task.clip.stride == 1
    shown = all(datasets[dataset].values for dataset, _ in splits.values())
    ahead = task.starts is not None or task.kind == "forecast" or (task.kind == "regression" and not shown)
    if ahead and not consecutive:
        raise node.error("clip", "sampling `clip` with stride 1: targets are those of consecutive frames")
    if task.kind == "classification" and not all(datasets[dataset].classes for dataset, _ in splits.values()):
        raise node.error("kind", "data sets with `classes`, which a classification needs")
    return task


def _source(node: Node, datasets: Mapping[str, Dataset]) -> tuple[str, str]:
    dataset, _, split = node.scalar(str).partition("/")
    if dataset not in datasets or split not in datasets[dataset].splits:
        known = [f"{d.name}/{s}" for d in datasets.values() for s in d.splits]
        raise node.error(None, f"dataset/split, one of {', '.join(known)}")
    return dataset, split


def _augmentation(node: Node) -> Augmentation:
    augmentation = node.build(Augmentation)
    if not 1.0 <= augmentation.scale[0] <= augmentation.scale[1]:
        raise node.error("scale", "[smallest, largest] resize factor, both at least 1")
    for key, chance in (("blur", augmentation.blur), ("flip", augmentation.flip)):
        if not 0.0 <= chance <= 1.0:
            raise node.error(key, "a probability from 0 to 1")
    return augmentation
