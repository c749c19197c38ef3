"""Runs of classes: scores a frame, bouts where they reach a threshold, label files, ethograms."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from featcache.errors import CallError
from readouts.predict import label_files, tables
from readouts.predict.bouts import Bout, Summary, bouts_of
from readouts.predict.frames import WindowScores
from readouts.predict.kinds.base import Asked, Blocks, Written
from readouts.predict.label_files import write_label_file
from readouts.predict.parts import VideoPart
from readouts.predict.pictures import picture, publish_pictures
from readouts.predict.tables import bout_rows, write_csv, write_frames
from readouts.predict.videos import Measured, Watcher
from readouts.results.decided import val_thresholds
from readouts.training.loaded import TrainedRun


def thresholds_of(run: TrainedRun, readout: str, text: str) -> Float64[np.ndarray, " O"]:
    """What `--threshold` says: a number for all classes, or `val`.

    Raises:
        CallError: it is neither.
        StoreError: val was not scored clip by clip.
    """
    if text == "val":
        return val_thresholds(run.folder, readout)
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 <= value <= 1:
        raise CallError(f"--threshold {text}: write a score from 0 to 1, or val.")
    return np.full(len(run.output_names), value)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Labels:
    """A run of classes; see `readouts.predict.kinds.base.Kind` for the contract."""

    names: tuple[str, ...]
    background: str | None
    """The class that stands for nothing: an annotator marks what happens."""
    thresholds: Float64[np.ndarray, " O"]
    """From which on a class counts as there; NaN: never."""
    endings: tuple[str, ...] = (*tables.ENDINGS, *label_files.ENDINGS)
    gives: str = "scores of classes"
    follows: bool = False

    def sentences(self, watcher: Watcher) -> list[str]:
        """The windows, and from which scores on classes are there."""
        each = zip(self.names, self.thresholds, strict=True)
        there = ", ".join(f"{name} {at:.2f}" for name, at in each if at == at)
        lines = [
            f"{watcher.windows_in_words()}; a frame has the mean of its windows",
            f"there from a score on of: {there}",
        ]
        if never := [name for name, at in zip(self.names, self.thresholds, strict=True) if at != at]:
            lines.append(f"never, since val has no clip of it: {', '.join(never)}")
        return lines

    def asked(self, video: Path, length: Measured) -> Sequence[Asked]:
        """All of it."""
        return (Asked(video=video, length=length, names=self.names),)

    def windows(self, watcher: Watcher, asked: Asked) -> Iterator[WindowScores]:
        """Probabilities of the classes, the same for all frames of a window."""
        for window, scores in watcher.answers(asked.video):
            yield WindowScores(first=window.first, stop=window.stop, scores=scores)

    def write(self, parts: Sequence[VideoPart], outs: Sequence[Path], blocks: Blocks) -> Written:
        """Tables of frames and label files as `outs` say, tables of bouts and classes, pictures."""
        found, names, first = Written(), self.names, outs[0]
        left_out = [number for number, name in enumerate(names) if name == self.background]
        bouts: dict[VideoPart, list[Bout]] = {}
        for part in parts:
            bouts[part] = list(bouts_of(blocks(part), self.thresholds))
            summary = Summary.of(bouts[part], len(names))
            found.rows += summary.rows(part.video, names, float(part.rate))
        for out in outs:
            if out.suffix in label_files.ENDINGS:
                found.files += write_label_file(out, bouts, names, left_out)
            else:
                write_frames(out, parts, names, blocks)
                found.files.append(out)
        rows = [row for part in parts for row in bout_rows(part, bouts[part], names)]
        for what, of, columns in (
            ("bouts", rows, label_files.BOUT_COLUMNS), ("summary", found.rows, tables.SUMMARY_COLUMNS),
        ):  # fmt: skip
            found.files.append(first.with_name(f"{first.stem}_{what}.csv"))
            write_csv(found.files[-1], of, columns)
        found.files.append(
            publish_pictures(first, parts, lambda part: picture(part, blocks(part), bouts[part], names))
        )
        return found
