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

import numpy as np
from jaxtyping import Float64

from featcache.errors import CallError, DataError, few
from featcache.system.console import Progress
from featcache.system.files import publish, remove, remove_leftovers
from readouts.predict import label_files, tables
from readouts.predict.bouts import Bout, Summary, bouts_of
from readouts.predict.frames import FrameScores, WindowScores, frame_scores, smoothed
from readouts.predict.label_files import distinct_stems, write_label_file
from readouts.predict.parts import VideoPart, part_name, write_part
from readouts.predict.pictures import picture
from readouts.predict.tables import bout_rows, write_csv, write_frames
from readouts.predict.videos import Watcher, measured
from readouts.results.decided import val_thresholds
from readouts.training.loaded import TrainedRun

SAME_RATE = 0.02
"""By how much rates may differ without a word: 29.97 and 30 are one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What is to be made of the scores."""

    outs: Sequence[Path]
    """Files, each in the form of its ending."""
    thresholds: Float64[np.ndarray, " O"] | None
    """From which on a class counts as there; None of values, which have no bouts."""
    smooth: float = 0.0
    """Seconds over which scores are averaged; 0 for not at all."""

    def __post_init__(self) -> None:
        known = (*tables.ENDINGS, *label_files.ENDINGS)
        for out in self.outs:
            if out.suffix not in known:
                raise CallError(f"--out {out}: ends as none of {', '.join(known)}.")
            if self.thresholds is None and out.suffix in label_files.ENDINGS:
                raise CallError(f"--out {out}: the run predicts values, which make no bouts: {known[0]}.")
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
    """Of the summary: a row a video and class."""
    broken: list[str] = field(default_factory=list)
    """What is wrong with each video that could not be read."""
    notes: list[str] = field(default_factory=list)
    """What to know before the others are believed."""


def thresholds_of(run: TrainedRun, readout: str, text: str) -> Float64[np.ndarray, " O"] | None:
    """What `--threshold` says: a number for all classes, or `val`; None of a run that predicts values.

    Raises:
        CallError: it is neither.
        StoreError: val was not scored clip by clip.
    """
    if not run.gives["are_labels"]:
        return None
    if text == "val":
        return val_thresholds(run.folder, readout)
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 <= value <= 1:
        raise CallError(f"--threshold {text}: write a score from 0 to 1, or val.")
    return np.full(len(run.output_names), value)


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
            what = f"{video.name}, {number} of {len(videos)}"
            done.append(_part(watcher, video, weights, wanted.parts, partial(progress, what)))
        except DataError as problem:
            found.broken.append(str(problem))
    if not done:
        raise DataError("no video can be read:\n" + "\n".join(f"  {problem}" for problem in found.broken))
    found.notes += _of_another_rate(done, watcher.run)
    _write(done, watcher, wanted, found)
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
    note = (
        f"{few([part.video for part in others], 3)}: {rates} frames a second, and the run learned from "
        f"{learned:.4g}: everything looks faster or slower to it by as much."
    )
    return [note]


def _part(
    watcher: Watcher, video: Path, weights: str, folder: Path, progress: Callable[[int, int], None]
) -> VideoPart:
    """The part of a video, made unless it is there.

    Raises:
        DataError: the video is broken.
    """
    length = measured(video)
    run, state = watcher.run, video.stat()
    about = {
        "run": run.folder.run, "weights": weights, "readout": watcher.readout, "every": watcher.rule.every,
        "video": str(video), "bytes": state.st_size, "changed": state.st_mtime_ns,
    }  # fmt: skip
    path = folder / part_name(about)
    if not path.exists():
        windows = _followed(watcher.scores(video), length.n_frames, progress)
        write_part(path, frame_scores(windows), run.output_names, video=str(video), rate=length.rate)
    return VideoPart(path)


def _followed(
    windows: Iterable[WindowScores], n_frames: int, progress: Callable[[int, int], None]
) -> Iterator[WindowScores]:
    for window in windows:
        yield window
        progress(min(window.stop, n_frames), n_frames)


def _write(parts: Sequence[VideoPart], watcher: Watcher, wanted: Wanted, found: Predicted) -> None:
    names, gives = watcher.run.output_names, watcher.run.gives
    left_out = [number for number, name in enumerate(names) if name == gives["background"]]
    bouts: dict[VideoPart, list[Bout]] = {}
    if wanted.thresholds is not None:
        for part in parts:
            bouts[part] = list(bouts_of(_scores(part, wanted), wanted.thresholds))
            summary = Summary.of(bouts[part], len(names))
            found.rows += summary.rows(part.video, names, float(part.rate))
    for out in wanted.outs:
        if out.suffix in label_files.ENDINGS:
            found.written += write_label_file(out, bouts, names, left_out)
        else:
            write_frames(out, parts, names, partial(_scores, wanted=wanted))
            found.written.append(out)
    first = wanted.outs[0]
    if wanted.thresholds is not None:
        rows = [row for part in parts for row in bout_rows(part, bouts[part], names)]
        for what, of, columns in (
            ("bouts", rows, label_files.BOUT_COLUMNS), ("summary", found.rows, tables.SUMMARY_COLUMNS),
        ):  # fmt: skip
            found.written.append(first.with_name(f"{first.stem}_{what}.csv"))
            write_csv(found.written[-1], of, columns)
    pictures = first.with_name(f"{first.stem}_pictures")
    for part, stem in zip(parts, distinct_stems([part.video for part in parts]), strict=True):
        drawn = picture(part, _scores(part, wanted), bouts.get(part), names)
        publish(pictures / f"{stem}.png", drawn)
    found.written.append(pictures)


def _scores(part: VideoPart, wanted: Wanted) -> Iterator[FrameScores]:
    """What all that is written of a video is made from."""
    return smoothed(part.blocks(), round(wanted.smooth * float(part.rate)))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, partial(blake2b, digest_size=8)).hexdigest()
