"""`data_manifest.yaml`, and a user's own laid over it, as frozen values checked when they are read.

Everything that is known of a data set or task before its files are opened comes from here: sources,
licences, file names and counts, classes, clip geometry, augmentation, published results. A wrong key or
value is one message with the file, the place in it, and what was expected there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml

from featcache.errors import CallError
from featcache.spec import ClipSpec, Sampling

READERS = ("sequence_example", "video_file")
KINDS = ("classification", "features")
"""What a task trains: `features` has no readout, it only extracts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One split's files, and what is known of them in advance."""

    name: str
    files: str
    """Path below the data folder. Records: with `{shard:05d}` and `{n_shards:05d}`. Videos: a glob."""
    n_shards: int | None = None
    n_clips: int | None = None
    """Of the official release; other complete sets of files are read as well, and reported as such."""
    label_counts: tuple[int, ...] = ()
    label_counts_of: int | None = None
    """How many clips `label_counts` was counted over."""
    clips: str | None = None
    """Videos: a CSV file, a row a clip, with columns video, first_frame, labels (names joined by `;`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """One data set: provenance, layout on disk, classes."""

    name: str
    title: str
    source: str
    licence: str
    citation: str
    version: str
    """Enters every fingerprint: raise it when the files' content changes."""
    reader: str
    splits: Mapping[str, Split]
    bucket: str | None = None
    features: Mapping[str, str] = field(default_factory=dict)
    """Our name of a record feature -> its key in the records."""
    channels: int = 3
    """Channels of the encoded frames: 1 (grey) or 3 (RGB)."""
    frame_size: tuple[int, int] | None = None
    """Rows and columns of the encoded frames, where they are all alike."""
    clip_every: int | None = None
    """Videos without a `clips` file: frames from one clip's first to the next's; absent, one clip a video."""
    classes: tuple[str, ...] = ()
    background: str | None = None
    rare: tuple[str, ...] = ()

    def split(self, name: str) -> Split:
        """The split called `name`, or an error that lists what there is."""
        return _look_up(self.splits, name, f"split of {self.name}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """The random view of a training clip, one draw for all its frames: resize, crop, blur, flip."""

    scale: tuple[float, float] = (1.0, 1.0)
    """Range of the resize factor; the crop goes back to the clip's size."""
    blur: float = 0.0
    """Probability of the Gaussian blur (37 taps, sigma 0.1 to 2)."""
    flip: float = 0.0
    """Probability of the left-right flip."""

    @property
    def is_identity(self) -> bool:
        """Whether every view would be the evaluation view."""
        return self == Augmentation()


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedResult:
    """One number of the paper, to print beside ours."""

    backbone: str
    readout: str
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What was published for a task."""

    source: str = ""
    metric: str = ""
    rows: tuple[PublishedResult, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One question asked of the features: its data, clips, views and published results."""

    name: str
    title: str
    kind: str
    splits: Mapping[str, tuple[str, str]]
    """Role (train, val, test) -> (data set, split)."""
    clip: ClipSpec = field(default_factory=ClipSpec)
    augmentation: Augmentation = field(default_factory=Augmentation)
    published: Published = field(default_factory=Published)

    def source_of(self, role: str) -> tuple[str, str]:
        """Data set and split that play `role`."""
        return _look_up(self.splits, role, f"split of task {self.name}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """All data sets and tasks that are known."""

    datasets: Mapping[str, Dataset]
    tasks: Mapping[str, Task]

    def dataset(self, name: str) -> Dataset:
        """The data set called `name`, or an error that lists what there is."""
        return _look_up(self.datasets, name, "data set")

    def task(self, name: str) -> Task:
        """The task called `name`, or an error that lists what there is."""
        return _look_up(self.tasks, name, "task")


def shipped_manifest() -> Path:
    """`data_manifest.yaml` beside the packages, in a checkout as in an installation."""
    return Path(__file__).parents[1] / "data_manifest.yaml"


def load_manifest(extra: Path | None = None) -> Manifest:
    """Read the shipped manifest and lay `extra` over it, key by key.

    Raises:
        CallError: a file is missing or not YAML, or a key or value is wrong; names file and place.
    """
    entries = _read(shipped_manifest())
    origin = str(shipped_manifest())
    if extra is not None:
        entries = _overlay(entries, _read(extra))
        origin = str(extra)
    root = _Node(entries, origin)
    root.keys("format", "datasets", "tasks")
    if root.value("format", int) != 1:
        raise root.error("format", "1, the only format this version reads")
    datasets = {name: _dataset(name, node) for name, node in root.children("datasets")}
    tasks = {name: _task(name, node, datasets) for name, node in root.children("tasks")}
    return Manifest(datasets=datasets, tasks=tasks)


def _dataset(name: str, node: "_Node") -> Dataset:
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
        clip_every=node.positive("clip_every"),
        classes=classes,
        background=background,
        rare=rare,
    )


def _split(name: str, node: "_Node", n_classes: int) -> Split:
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
        clips=node.optional("clips", str),
    )


def _task(name: str, node: "_Node", datasets: Mapping[str, Dataset]) -> Task:
    node.keys(*(f for f in Task.__dataclass_fields__ if f != "name"))
    kind = node.choice("kind", KINDS)
    splits = {role: _source(child, datasets) for role, child in node.children("splits")}
    if kind == "classification" and not all(datasets[dataset].classes for dataset, _ in splits.values()):
        raise node.error("kind", "data sets with `classes`, which a classification needs")
    return Task(
        name=name,
        title=node.value("title", str),
        kind=kind,
        splits=splits,
        clip=_clip(node.child("clip")),
        augmentation=_augmentation(node.child("augmentation")),
        published=_published(node.child("published")),
    )


def _source(node: "_Node", datasets: Mapping[str, Dataset]) -> tuple[str, str]:
    dataset, _, split = node.scalar(str).partition("/")
    if dataset not in datasets or split not in datasets[dataset].splits:
        known = [f"{d.name}/{s}" for d in datasets.values() for s in d.splits]
        raise node.error(None, f"dataset/split, one of {', '.join(known)}")
    return dataset, split


def _clip(node: "_Node") -> ClipSpec:
    node.keys(*ClipSpec.__dataclass_fields__)
    numbers = {key: node.positive(key) for key in ("n_frames", "stride", "height", "width")}
    given: dict[str, Any] = {key: value for key, value in numbers.items() if value is not None}
    if "sampling" in node.entries:
        given["sampling"] = node.choice("sampling", get_args(Sampling))
    return ClipSpec(**given)


def _augmentation(node: "_Node") -> Augmentation:
    node.keys(*Augmentation.__dataclass_fields__)
    scale = node.list_of("scale", float) or (1.0, 1.0)
    if len(scale) != 2 or not 1.0 <= scale[0] <= scale[1]:
        raise node.error("scale", "[smallest, largest] resize factor, both at least 1")
    chances = {key: node.optional(key, float) or 0.0 for key in ("blur", "flip")}
    for key, chance in chances.items():
        if not 0.0 <= chance <= 1.0:
            raise node.error(key, "a probability from 0 to 1")
    return Augmentation(scale=(scale[0], scale[1]), **chances)


def _published(node: "_Node") -> Published:
    node.keys(*Published.__dataclass_fields__)
    rows = []
    for row in node.items("rows"):
        row.keys(*PublishedResult.__dataclass_fields__)
        names = {key: row.value(key, str) for key in ("backbone", "readout")}
        rows.append(PublishedResult(**names, value=row.value("value", float)))
    return Published(
        source=node.optional("source", str) or "", metric=node.optional("metric", str) or "", rows=tuple(rows)
    )


_T = TypeVar("_T", int, float, str)
_NAMES: dict[type, str] = {int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True, slots=True)
class _Node:
    """A mapping of the file, and where in the file it stands."""

    entries: Any
    origin: str
    place: str = ""

    def error(self, key: str | None, expected: str) -> CallError:
        place = ".".join(filter(None, (self.place, key))) or "the top"
        found = self.entries if key is None else self.entries.get(key)
        return CallError(f"{self.origin}, at {place}: expected {expected}; found {found!r}.")

    def keys(self, *allowed: str) -> None:
        """Refuse any key that nobody would read."""
        if not isinstance(self.entries, dict):
            raise self.error(None, f"a mapping with some of {', '.join(allowed)}")
        for key in self.entries:
            if key not in allowed:
                near = get_close_matches(str(key), allowed, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(allowed)}."
                raise CallError(f"{self.origin}, at {self.place or 'the top'}: unknown key {key!r}; {hint}")

    def child(self, key: str) -> "_Node":
        """The mapping under `key`, empty where the file leaves it out."""
        return _Node(self.entries.get(key, {}), self.origin, ".".join(filter(None, (self.place, key))))

    def children(self, key: str, *, optional: bool = False) -> list[tuple[str, "_Node"]]:
        node = self.child(key)
        if not isinstance(node.entries, dict) or not (node.entries or optional):
            raise self.error(key, "a mapping of names to entries")
        return [(str(name), node.child(name)) for name in node.entries]

    def items(self, key: str) -> list["_Node"]:
        entries = self.entries.get(key, [])
        if not isinstance(entries, list):
            raise self.error(key, "a list")
        return [_Node(entry, self.origin, f"{self.place}.{key}[{i}]") for i, entry in enumerate(entries)]

    def scalar(self, kind: type[_T]) -> _T:
        if kind is float and type(self.entries) is int:
            return kind(self.entries)
        if type(self.entries) is not kind:
            raise self.error(None, _NAMES[kind])
        return self.entries

    def value(self, key: str, kind: type[_T]) -> _T:
        if key not in self.entries:
            raise self.error(key, _NAMES[kind])
        return self.child(key).scalar(kind)

    def optional(self, key: str, kind: type[_T]) -> _T | None:
        return None if self.entries.get(key) is None else self.value(key, kind)

    def positive(self, key: str) -> int | None:
        number = self.optional(key, int)
        if number is not None and number < 1:
            raise self.error(key, "a number of at least 1")
        return number

    def choice(self, key: str, allowed: tuple[str, ...]) -> Any:
        value = self.value(key, str)
        if value not in allowed:
            raise self.error(key, f"one of {', '.join(allowed)}")
        return value

    def list_of(self, key: str, kind: type[_T]) -> tuple[_T, ...]:
        return tuple(item.scalar(kind) for item in self.items(key))


def _read(path: Path) -> dict[str, Any]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise CallError(f"{path} cannot be read ({problem.strerror}): give a manifest that exists.") from None
    except yaml.YAMLError as problem:
        raise CallError(f"{path} is not YAML: {problem}") from None
    if not isinstance(entries, dict):
        raise CallError(f"{path}, at the top: expected datasets and tasks; found {type(entries).__name__}.")
    return entries


def _overlay(under: Any, over: Any) -> Any:
    """`over` laid on `under`: mappings key by key, anything else replaced whole."""
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    merged = {key: _overlay(under[key], value) if key in under else value for key, value in over.items()}
    return {**under, **merged}


_Entry = TypeVar("_Entry")


def _look_up(entries: Mapping[str, _Entry], name: str, what: str) -> _Entry:
    if name not in entries:
        near = get_close_matches(name, entries, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise CallError(f"no {what} is called {name!r}: known are {', '.join(entries)}.{hint}")
    return entries[name]
