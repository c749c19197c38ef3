"""What `scivid data init` is asked and what it answers, and what files measure of videos.

`Measurements` is the one form that tables of values and files of tracked points become.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from featcache.data.labels import Choices, Videos
from featcache.data.labels.remarks import Remark
from featcache.data.labels.videos import Video


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What was found, assumed and written."""

    manifest: Path
    name: str
    found: tuple[str, ...]
    """Sentences on videos and label files."""
    remarks: tuple[Remark, ...]
    rows: tuple[dict[str, object], ...]
    """A row a class, of bouts, seconds and clips of each split."""
    assumed: tuple[str, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What the user says of clips and classes; None where it is to be found."""

    name: str | None = None
    n_frames: int = 16
    stride: int | None = None
    every: int | None = None
    share: float | None = None
    subject: str | None = None
    leave_out: bool = False
    """Go on without what is asked or refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a file measures of one video."""

    video: Video
    known: Bool[np.ndarray, " F"]
    """Frames of which something is known; of a value of the whole video a single row."""
    read: Callable[[], Mapping[str, np.ndarray]]
    """The arrays by their names, a row a frame, NaN where unknown; read when they are written, one video at a
    time, since tracks of hours are large.
    """
    split: str | None = None
    group: str = ""
    """What a split should keep together (the animal), where a column names it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurements:
    """What one or more files measure of the videos at hand, and what the user has to know of it."""

    format: str
    kind: Literal["regression", "tracking"]
    features: Mapping[str, str]
    """The manifest's: what a target is called -> the name of its array."""
    videos: tuple[Measured, ...]
    needs: Literal["any", "first"]
    """A clip must show a known frame, or begin with one."""
    unit: str = ""
    train: str = ""
    """The benchmark's split, as `data set/split`, that readouts learn from where these can only be scored."""
    said: tuple[str, ...] = ()
    """Sentences on what was taken."""
    remarks: tuple[Remark, ...] = field(default=())

    @property
    def of_videos(self) -> bool:
        """Whether a value is of a whole video."""
        return bool(self.videos) and all(len(measured.known) == 1 for measured in self.videos)


@runtime_checkable
class Measures(Protocol):
    """What a module that reads measurements offers."""

    @staticmethod
    def recognises(path: Path, head: str) -> bool:
        """Whether a file is of this kind, by its name and first characters."""
        ...

    @staticmethod
    def read(paths: list[Path], videos: Videos, choices: Choices) -> Measurements:
        """What the files say together.

        Raises:
            DataError: one cannot be read, or does not say what the user must; names it and the way out.
        """
        ...
