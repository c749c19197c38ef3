"""Runs of values: of a window as a whole, as of a video; or of each of its frames."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from einops import rearrange

from readouts.predict import tables
from readouts.predict.frames import WindowScores, of_every_frame
from readouts.predict.kinds.base import Asked, Blocks, Written
from readouts.predict.label_files import VALUE_COLUMNS
from readouts.predict.parts import VideoPart
from readouts.predict.pictures import picture, publish_pictures
from readouts.predict.tables import value_rows, write_csv, write_frames
from readouts.predict.videos import Measured, Watcher
from readouts.training.loaded import TrainedRun


@dataclass(frozen=True, kw_only=True, slots=True)
class Values:
    """A run of values; see `readouts.predict.kinds.base.Kind` for the contract."""

    names: tuple[str, ...]
    of_frames: bool
    """Whether outputs are one value of each frame that a window shows."""
    endings: tuple[str, ...] = tables.ENDINGS
    gives: str = "values, which make no bouts"
    follows: bool = False

    @classmethod
    def of(cls, run: TrainedRun) -> "Values":
        """Those of a run; where each frame has one, it is called as its score is: `speed/rmse`."""
        if not run.gives.get("of_frames"):
            return cls(names=run.output_names, of_frames=False)
        return cls(names=(run.gives["score"].rpartition("/")[0],), of_frames=True)

    def sentences(self, watcher: Watcher) -> list[str]:
        """The windows, and what becomes of them."""
        mean = "a frame has the mean of what its windows say"
        between = ", between the frames that they show on a straight line"
        shown = between if self.of_frames and watcher.spec.stride > 1 else ""
        return [f"{watcher.windows_in_words()}; {mean}{shown}"]

    def asked(self, video: Path, length: Measured) -> Sequence[Asked]:
        """All of it."""
        return (Asked(video=video, length=length, names=self.names),)

    def windows(self, watcher: Watcher, asked: Asked) -> Iterator[WindowScores]:
        """Values in their unit."""
        for window, values in watcher.answers(asked.video):
            if self.of_frames:
                shown = watcher.frames_shown(window)
                values = of_every_frame(shown, rearrange(values, "f -> f 1"), window.stop - window.first)
            yield WindowScores(first=window.first, stop=window.stop, scores=values)

    def write(self, parts: Sequence[VideoPart], outs: Sequence[Path], blocks: Blocks) -> Written:
        """A row a frame, a row a video and value, and a picture a video."""
        for out in outs:
            write_frames(out, parts, self.names, blocks)
        rows = [row for part in parts for row in value_rows(part, blocks(part), self.names)]
        summary = outs[0].with_name(f"{outs[0].stem}_summary.csv")
        write_csv(summary, rows, VALUE_COLUMNS)
        drawn = publish_pictures(outs[0], parts, lambda part: picture(part, blocks(part), None, self.names))
        return Written(files=[*outs, summary, drawn], rows=rows)
