"""`data_manifest.yaml`, and a user's own laid over it, as frozen values checked when they are read.

Everything that is known of a data set or task before its files are opened comes from here: sources,
licences, file names and counts, classes, clip geometry, augmentation, published results. A wrong key or
value is one message with the file, the path of keys in it, and what was expected there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from featcache.manifest.entries import Node, overlay, read_entries
from featcache.manifest.values import (
    KINDS,
    READERS,
    Augmentation,
    Dataset,
    Manifest,
    Pixels,
    Published,
    PublishedResult,
    Split,
    Task,
    TokenSteps,
    Windows,
)
from featcache.spec import ClipSpec, Sampling, StartRule, Starts


def shipped_manifest() -> Path:
    """`data_manifest.yaml` beside the packages, in a checkout as in an installation."""
    return Path(__file__).parents[2] / "data_manifest.yaml"


def load_manifest(extra: Path | None = None) -> Manifest:
    """Read the shipped manifest and lay `extra` over it, key by key.

    Raises:
        CallError: a file is missing or not YAML, or a key or value is wrong; names file and keys.
    """
    entries = read_entries(shipped_manifest())
    origin = str(shipped_manifest())
    if extra is not None:
        entries = overlay(entries, read_entries(extra))
        origin = str(extra)
    root = Node(entries, origin)
    root.keys("format", "datasets", "tasks")
    if root.value("format", int) != 1:
        raise root.error("format", "1, the only format this version reads")
    datasets = {name: _dataset(name, node) for name, node in root.children("datasets")}
    tasks = {name: _task(name, node, datasets) for name, node in root.children("tasks")}
    return Manifest(datasets=datasets, tasks=tasks)


def _dataset(name: str, node: Node) -> Dataset:
    node.keys(*(f for f in Dataset.__dataclass_fields__ if f != "name"))
    classes = node.list_of("classes", str)
    background = node.optional("background", str)
    rare = node.list_of("rare", str)
    for label in (*rare, *([background] if background else [])):
        if label not in classes:
            raise node.error("classes", f"a list that holds {label!r}, which `background` or `rare` names")
    frame_size = node.list_of("frame_size", int)
    if len(frame_size) not in (0, 2):
        raise node.error("frame_size", "[rows, columns]")
    channels = node.optional("channels", int) or 3
    if channels not in (1, 3):
        raise node.error("channels", "1 (grey) or 3 (RGB)")
    return Dataset(
        name=name,
        **{key: node.value(key, str) for key in ("title", "source", "licence", "citation", "version")},
        reader=node.choice("reader", READERS),
        splits={split: _split(split, child, len(classes)) for split, child in node.children("splits")},
        bucket=node.optional("bucket", str),
        features={key: child.scalar(str) for key, child in node.children("features", optional=True)},
        channels=channels,
        frame_size=(frame_size[0], frame_size[1]) if frame_size else None,
        pixels=_pixels(node.child("pixels"), channels),
        variables=node.list_of("variables", str),
        clip_every=node.positive("clip_every"),
        classes=classes,
        background=background,
        rare=rare,
    )


def _split(name: str, node: Node, n_classes: int) -> Split:
    node.keys(*(f for f in Split.__dataclass_fields__ if f != "name"))
    label_counts = node.list_of("label_counts", int)
    if label_counts and len(label_counts) != n_classes:
        raise node.error("label_counts", f"{n_classes} numbers, one a class")
    return Split(
        name=name,
        files=node.value("files", str),
        n_shards=node.positive("n_shards"),
        n_clips=node.positive("n_clips"),
        label_counts=label_counts,
        label_counts_of=node.positive("label_counts_of"),
        also=node.optional("also", str),
        windows=_windows(node.child("windows")) if "windows" in node.entries else None,
        clips=node.optional("clips", str),
    )


def _task(name: str, node: Node, datasets: Mapping[str, Dataset]) -> Task:
    node.keys(*(f for f in Task.__dataclass_fields__ if f != "name"))
    kind = node.choice("kind", KINDS)
    splits = {role: _source(child, datasets) for role, child in node.children("splits")}
    clip, augmentation = _clip(node.child("clip")), _augmentation(node.child("augmentation"))
    if "starts" in node.entries and not augmentation.is_identity:
        raise node.error("starts", "no `augmentation` beside it: a start is all there is to a view")
    consecutive = clip.sampling == "clip" and clip.stride == 1
    if ("starts" in node.entries or kind in ("regression", "forecast")) and not consecutive:
        raise node.error("clip", "sampling `clip` with stride 1: targets are those of consecutive frames")
    if kind == "classification" and not all(datasets[dataset].classes for dataset, _ in splits.values()):
        raise node.error("kind", "data sets with `classes`, which a classification needs")
    return Task(
        name=name,
        title=node.value("title", str),
        kind=kind,
        splits=splits,
        clip=clip,
        evaluation_clip=_clip(node.child("evaluation_clip")) if "evaluation_clip" in node.entries else None,
        starts=_starts(node.child("starts")) if "starts" in node.entries else None,
        tokens=node.choice("tokens", get_args(TokenSteps)) if "tokens" in node.entries else "all",
        augmentation=augmentation,
        published=_published(node.child("published")),
    )


def _source(node: Node, datasets: Mapping[str, Dataset]) -> tuple[str, str]:
    dataset, _, split = node.scalar(str).partition("/")
    if dataset not in datasets or split not in datasets[dataset].splits:
        known = [f"{d.name}/{s}" for d in datasets.values() for s in d.splits]
        raise node.error(None, f"dataset/split, one of {', '.join(known)}")
    return dataset, split


def _clip(node: Node) -> ClipSpec:
    node.keys(*ClipSpec.__dataclass_fields__)
    numbers = {key: node.positive(key) for key in ("n_frames", "stride", "height", "width")}
    given: dict[str, Any] = {key: value for key, value in numbers.items() if value is not None}
    if "sampling" in node.entries:
        given["sampling"] = node.choice("sampling", get_args(Sampling))
    return ClipSpec(**given)


def _pixels(node: Node, channels: int) -> Pixels:
    node.keys(*Pixels.__dataclass_fields__)
    mean, std = node.list_of("mean", float), node.list_of("std", float)
    if len(mean) != len(std) or len(mean) not in (0, channels) or any(deviation <= 0 for deviation in std):
        raise node.error("mean", f"with `std` above 0, {channels} numbers each, one a channel")
    low, high = (node.optional(key, float) for key in ("low", "high"))
    pixels = Pixels(low=low or 0.0, high=255.0 if high is None else high, mean=mean, std=std)
    if pixels.low >= pixels.high:
        raise node.error("low", "a value below `high`")
    return pixels


def _windows(node: Node) -> Windows:
    node.keys(*Windows.__dataclass_fields__)
    numbers = {key: node.at_least(key, 1) for key in ("n_frames", "step_hours", "every_hours")}
    if node.entries.get("offset_hours") is not None:
        numbers["offset_hours"] = node.at_least("offset_hours", 0)
    return Windows(first=node.value("first", str), last=node.value("last", str), **numbers)


def _starts(node: Node) -> Starts:
    node.keys(*Starts.__dataclass_fields__)
    numbers = {key: node.at_least(key, 1) for key in ("span", "n_starts")}
    return Starts(rule=node.choice("rule", get_args(StartRule)), **numbers)


def _augmentation(node: Node) -> Augmentation:
    node.keys(*Augmentation.__dataclass_fields__)
    scale = node.list_of("scale", float) or (1.0, 1.0)
    if len(scale) != 2 or not 1.0 <= scale[0] <= scale[1]:
        raise node.error("scale", "[smallest, largest] resize factor, both at least 1")
    chances = {key: node.optional(key, float) or 0.0 for key in ("blur", "flip")}
    for key, chance in chances.items():
        if not 0.0 <= chance <= 1.0:
            raise node.error(key, "a probability from 0 to 1")
    return Augmentation(scale=(scale[0], scale[1]), **chances)


def _published(node: Node) -> Published:
    node.keys(*Published.__dataclass_fields__)
    rows = []
    for row in node.items("rows"):
        row.keys(*PublishedResult.__dataclass_fields__)
        names = {key: row.value(key, str) for key in ("backbone", "readout")}
        rows.append(PublishedResult(**names, value=row.value("value", float)))
    return Published(
        source=node.optional("source", str) or "", metric=node.optional("metric", str) or "", rows=tuple(rows)
    )
