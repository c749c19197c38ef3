"""What a kind of run is to a prediction: what it is asked of a video, what it says, what is written of it.

The loop over videos (`readouts.predict.job`) knows no kind. A kind keeps a row of numbers of each frame, so a
part on disk, the mean over windows and smoothing are the same for all.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from readouts.predict.frames import FrameScores, WindowScores
from readouts.predict.parts import VideoPart
from readouts.predict.videos import Measured, Watcher

Blocks = Callable[[VideoPart], Iterator[FrameScores]]
"""The rows of a part as they are to be written: smoothed, where that was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Asked:
    """What is asked of a video, or of the rest of it from some frame on: what one part on disk answers."""

    video: Path
    length: Measured
    names: tuple[str, ...]
    """Of the scores, values or points."""
    numbers: int = 1
    """Of each of them in a frame."""
    first: int = 0
    """The frame at which windows begin."""
    points: Float[np.ndarray, "Q xy"] | None = None
    """In that frame, in shares of its width and height, of a run that tracks."""

    @property
    def about(self) -> dict[str, Any]:
        """JSON values of what decides the answer beside video and run."""
        if self.points is None:
            return {}
        return {"first": self.first, "names": list(self.names), "points": self.points.tolist()}


@dataclass(slots=True)
class Written:
    """What came of some parts."""

    files: list[Path] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Of the summary."""


@runtime_checkable
class Kind(Protocol):
    """The contract of a kind."""

    @property
    def endings(self) -> tuple[str, ...]:
        """Of the files that can be written."""

    @property
    def gives(self) -> str:
        """What it says, in words."""

    def sentences(self, watcher: Watcher) -> list[str]:
        """What is done to each video, in words."""

    @property
    def follows(self) -> bool:
        """Whether a window begins in the last frame of the one before."""

    def asked(self, video: Path, length: Measured) -> Sequence[Asked]:
        """What is asked of a video.

        Raises:
            DataError: nothing can be asked of it.
        """

    def windows(self, watcher: Watcher, asked: Asked) -> Iterator[WindowScores]:
        """The answer, window by window; frames are counted from the first that is asked of.

        Raises:
            DataError: the video is damaged.
        """

    def write(self, parts: Sequence[VideoPart], outs: Sequence[Path], blocks: Blocks) -> Written:
        """Write all that is wanted of some videos."""
