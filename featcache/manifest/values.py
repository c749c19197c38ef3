"""What the manifest says, as frozen values: data sets, splits, tasks, published results."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeVar

from featcache.errors import CallError, did_you_mean
from featcache.spec import ClipSpec, Starts

OWN_VIDEOS = "video_file"
"""The reader of a user's own videos: there, a clip's source is the video it was cut from."""


OWN_FIELDS = "fields"
"""The reader of a lab's own fields, whose `features` say where in its files variables and axes are."""

READERS = ("sequence_example", OWN_VIDEOS, OWN_FIELDS, "weather_zarr")

KINDS = ("classification", "tracking", "regression", "forecast", "features")
"""What a task trains: `features` has no readout, it only extracts."""

TokenSteps = Literal["all", "last"]

ModelKind = Literal["frozen", "fine-tuned", "domain"]
"""A readout of a frozen backbone, a backbone trained together with it, or a model made for the domain."""

PublishedSplit = Literal["test", "val", "unsaid"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """Clips cut from one long series of fields at regular times, as the reference counts them."""

    first: str
    """The first and the last time of the split, ISO dates of any precision, both inclusive: `2017` is all
    of it.
    """
    last: str
    n_frames: int
    """Frames of one window: input frames and those to be forecast."""
    step_hours: int
    """Hours from one frame of a window to the next."""
    every_hours: int
    """Hours from the start of one window to that of the next."""
    offset_hours: int = 0
    """Hours from `first` to the start of the first window."""


def is_date(text: str) -> bool:
    """Whether this is a date that `Windows` can begin or end with: `2017`, `2017-12-24`, `2017-12-24T18`."""
    if not re.fullmatch(r"\d{4}(-\d\d(-\d\d(T\d\d)?)?)?", text, re.ASCII):
        return False
    try:
        datetime.fromisoformat(text + "0001-01-01T00"[len(text) :])
    except ValueError:
        return False
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One split's files, and what is known of them in advance."""

    name: str
    files: str
    """Path below the data folder. Records: with `{shard:05d}` and `{n_shards:05d}`. Videos: a glob."""
    n_shards: int | None = None
    n_clips: int | None = None
    """Clips of the official release; other complete sets of files are read as well, and reported as such."""
    label_counts: tuple[int, ...] = ()
    label_counts_of: int | None = None
    """How many clips `label_counts` was counted over."""
    also: str | None = None
    """Another name that `files` may have."""
    windows: Windows | None = None
    """Weather: which windows of the series are this split."""
    clips: str | None = None
    """Videos: a CSV file, one row per clip, with columns video, first_frame, labels (names joined by `;`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pixels:
    """How stored values become what a backbone is given: a range scaled to 0..1, or standardised."""

    low: float = 0.0
    high: float = 255.0
    mean: tuple[float, ...] = ()
    """One number per channel; where given, (value - mean) / std, without a range."""
    std: tuple[float, ...] = ()

    @property
    def are_bytes(self) -> bool:
        """Whether frames are decoded images, 0 to 255."""
        return self == Pixels()


ValuesOf = Literal["frame", "video"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Values:
    """Own regression: the number that each frame, or each video, shows, and how large it is in training."""

    of: ValuesOf
    mean: float
    """Of the known values of training clips; readouts predict (value - mean) / std."""
    std: float
    unit: str = ""


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
    rate: float | None = None
    """Videos: frames a second, where all have the same; what people are told of times, and nothing else."""
    channels: int = 3
    """Channels of the stored frames: 1 (grey) or 3 (RGB, or three fields)."""
    frame_size: tuple[int, int] | None = None
    """Rows and columns of the encoded frames, where they are all alike."""
    pixels: Pixels = field(default_factory=Pixels)
    variables: tuple[str, ...] = ()
    """Weather: the fields that are the channels, in their order."""
    residual_std: tuple[float, ...] = ()
    """Weather: of each variable's change from frame to frame, where it is none of the benchmark's."""
    units: tuple[str, ...] = ()
    """Weather: of each variable, where they are known; what forecasts are written with, and nothing else."""
    latitude: tuple[float, float] | None = None
    """Weather: the southernmost and the northernmost row, in degrees; absent, from pole to pole."""
    longitude: tuple[float, float] | None = None
    """Weather: the first column and, eastward, the last; absent, all around from 0 degrees."""
    clip_every: int | None = None
    """Videos without a `clips` file: frames from one clip's first to the next's; absent, one clip a video."""
    values: Values | None = None
    """Videos: what is to be read from a clip's frames, where `features` has a `series` of them."""
    labels: Mapping[str, object] = field(default_factory=dict)
    """Videos: the label files that clip lists were made of, and what `scivid data init` was told of them."""
    subjects: Mapping[str, str] = field(default_factory=dict)
    """Videos: video -> whose it is. Clips of one subject are drawn together in intervals."""
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
    """One published number, to print beside ours."""

    backbone: str
    """The model, also where it is none that could be frozen: one of the domain."""
    value: float
    readout: str = ""
    """Empty where it is not said what read the features, or there is nothing of that kind."""
    kind: ModelKind = "frozen"
    """What was trained; only numbers of one kind are compared."""
    split: PublishedSplit = "test"
    """What it was scored on; `unsaid` where whoever gives the number does not say."""
    source: str = ""
    """The table that it stands in, where that is not the task's."""
    protocol: str = ""
    """Whose protocol it follows, where that is not known to be the benchmark's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What was published for a task."""

    source: str = ""
    metric: str = ""
    rows: tuple[PublishedResult, ...] = ()
    """Of one model also several that disagree, each with its table."""
    note: str = ""
    """What is said of the task without a number that could be a row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One question asked of the features: its data, clips, views and published results."""

    name: str
    title: str
    kind: str
    splits: Mapping[str, tuple[str, str]]
    """Role (train, val, test) -> (data set, split)."""
    clip: ClipSpec = field(default_factory=ClipSpec)
    evaluation_clip: ClipSpec | None = None
    """How val and test clips are cut, where it is another way."""
    starts: Starts | None = None
    tokens: TokenSteps = "all"
    """The steps whose tokens the readout reads; of others none are stored."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    recipe: Mapping[str, object] = field(default_factory=dict)
    """How readouts are trained, where it is otherwise than in the benchmark: see `Recipe` of `readouts`."""
    published: Published = field(default_factory=Published)

    def clip_of(self, role: str) -> ClipSpec:
        """How the clips of train, val or test are cut."""
        return self.clip if role == "train" or self.evaluation_clip is None else self.evaluation_clip

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


_Entry = TypeVar("_Entry")


def _look_up(entries: Mapping[str, _Entry], name: str, what: str) -> _Entry:
    if name not in entries:
        raise CallError(
            f"no {what} is called {name!r}: known are {', '.join(entries)}.{did_you_mean(name, entries)} "
            "One of your own is in a manifest: --manifest FILE."
        )
    return entries[name]
