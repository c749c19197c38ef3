"""Predictions of many videos, one after the other: what is done stays done, what is broken is named.

A video's scores are a part on disk; tables, label files and pictures are made from the parts when all videos
are through. Killed in between, the same command goes on with the next video and writes the same bytes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

from featcache.errors import CallError, DataError, few
from featcache.system.console import Progress
from featcache.system.files import remove, remove_leftovers
from readouts.predict.frames import FrameScores, WindowScores, frame_scores, smoothed
from readouts.predict.kinds.base import Asked, Kind
from readouts.predict.parts import VideoPart, part_name, write_part
from readouts.predict.videos import Watcher, measured
from readouts.training.loaded import TrainedRun

SAME_RATE = 0.02
"""By how much rates may differ without a word: 29.97 and 30 are one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What is to be made of the scores."""

    kind: Kind
    outs: Sequence[Path]
    """Files, each in the form of its ending."""
    smooth: float = 0.0
    """Seconds over which scores are averaged; 0 for not at all."""

    def __post_init__(self) -> None:
        for out in self.outs:
            if out.suffix not in self.kind.endings:
                raise CallError(
                    f"--out {out}: the run predicts {self.kind.gives}: name a file that ends in one of "
                    f"{', '.join(self.kind.endings)}."
                )
        if not self.smooth >= 0:
            raise CallError(f"--smooth {self.smooth} must be seconds, 0 or more.")

    @property
    def parts(self) -> Path:
        """The folder of what is done, until all is."""
        first = self.outs[0]
        return first.with_name(f"{first.name}.parts")


@dataclass(slots=True)
class Predicted:
    """What came of it."""

    written: list[Path] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Of the summary."""
    broken: list[str] = field(default_factory=list)
    """What is wrong with each video that could not be read."""
    notes: list[str] = field(default_factory=list)
    """What to know before the others are believed."""


def predict(watcher: Watcher, videos: Sequence[Path], wanted: Wanted, progress: Progress) -> Predicted:
    """Look at all videos, then write what is wanted of those that could be read.

    Raises:
        DataError: none could be read.
        OSError: what is to be written cannot be.
    """
    found, done = Predicted(), list[VideoPart]()
    remove_leftovers(wanted.parts)
    weights = _digest(watcher.run.folder.state)
    for number, video in enumerate(videos, 1):
        try:
            told = partial(progress, f"{video.name}, {number} of {len(videos)}")
            asked = wanted.kind.asked(video, measured(video))
            done += [_part(watcher, wanted, one, weights, told) for one in asked]
        except DataError as problem:
            found.broken.append(str(problem))
    if not done:
        raise DataError("no video can be read:\n" + "\n".join(f"  {problem}" for problem in found.broken))
    found.notes += _of_another_rate(done, watcher.run)
    written = wanted.kind.write(done, wanted.outs, partial(_rows, wanted=wanted))
    found.written, found.rows = written.files, written.rows
    if not found.broken:
        remove(wanted.parts)
    return found


def _of_another_rate(parts: Sequence[VideoPart], run: TrainedRun) -> list[str]:
    """Frames are counted, not seconds: to a readout a faster camera shows a slower animal."""
    learned = run.gives.get("rate")
    others = [part for part in parts if learned and abs(float(part.rate) / learned - 1) > SAME_RATE]
    if not others:
        return []
    rates = few(sorted({f"{float(part.rate):.4g}" for part in others}))
    videos = few(dict.fromkeys(part.video for part in others), 3)
    note = (
        f"{videos}: {rates} frames a second, and the run learned from "
        f"{learned:.4g}: everything looks faster or slower to it by as much."
    )
    return [note]


def _part(
    watcher: Watcher, wanted: Wanted, asked: Asked, weights: str, progress: Callable[[int, int], None]
) -> VideoPart:
    """The part of a video, made unless it is there.

    Raises:
        DataError: the video is broken.
    """
    run, state = watcher.run, asked.video.stat()
    about = {
        "run": run.folder.run, "weights": weights, "readout": watcher.readout, "every": watcher.rule.every,
        "video": str(asked.video), "bytes": state.st_size, "changed": state.st_mtime_ns, **asked.about,
    }  # fmt: skip
    path = wanted.parts / part_name(about)
    if not path.exists():
        windows = wanted.kind.windows(watcher, asked)
        followed = _followed(windows, asked.length.n_frames - asked.first, progress)
        write_part(
            path, frame_scores(followed), asked.names, numbers=asked.numbers, video=str(asked.video),
            rate=asked.length.rate, begins=asked.first,
        )  # fmt: skip
    return VideoPart(path)


def _followed(
    windows: Iterable[WindowScores], n_frames: int, progress: Callable[[int, int], None]
) -> Iterator[WindowScores]:
    for window in windows:
        yield window
        progress(min(window.stop, n_frames), n_frames)


def _rows(part: VideoPart, wanted: Wanted) -> Iterator[FrameScores]:
    """What all that is written of a video is made from."""
    return smoothed(part.blocks(), round(wanted.smooth * float(part.rate)))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, partial(blake2b, digest_size=8)).hexdigest()
