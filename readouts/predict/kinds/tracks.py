"""Runs that follow points: from where a file says that they are, one window after the other.

A readout learned clips of one length. A window begins in the last frame of the one before, at the places
that this one ended with, so errors add up from window to window: points drift.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from featcache.errors import CallError, DataError
from readouts.heads.tracking import as_tracks
from readouts.predict import tables
from readouts.predict.frames import WindowScores, of_every_frame
from readouts.predict.kinds.base import Asked, Blocks, Written
from readouts.predict.label_files import POINT_COLUMNS
from readouts.predict.parts import VideoPart
from readouts.predict.pictures import publish_pictures, tracks_picture
from readouts.predict.points import Begins, read_points
from readouts.predict.tables import write_csv
from readouts.predict.track_tables import POINT, summary_rows, write_tracks
from readouts.predict.videos import Measured, Watcher, frame_at
from readouts.training.loaded import TrainedRun


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracks:
    """A run that tracks; see `readouts.predict.kinds.base.Kind` for the contract."""

    points: Mapping[Path, Sequence[Begins]]
    """Of each video the points that begin in some frame."""
    file: Path
    endings: tuple[str, ...] = tables.ENDINGS
    gives: str = "tracked points"
    follows: bool = True

    @classmethod
    def of(cls, run: TrainedRun, videos: Sequence[Path], file: Path | None) -> "Tracks":
        """Those of a file.

        Raises:
            CallError: none is named.
            DataError: it cannot be read, or a point of it is not in its picture.
        """
        if file is None:
            raise CallError(
                f"{run.folder.path} follows points: say where they are with --points FILE, a table of video, "
                "frame (or time), name, x and y in pixels, or a file of DeepLabCut, Lightning Pose or SLEAP."
            )
        return cls(points=read_points(file, videos), file=file)

    def sentences(self, watcher: Watcher) -> list[str]:
        """The windows, and that errors add up."""
        return [
            f"{watcher.windows_in_words()}, begun where the one before ended: errors add up, points drift",
            "a point begins in the frame in which the file has it first, and is followed to the video's end",
        ]

    def asked(self, video: Path, length: Measured) -> Sequence[Asked]:
        """The points of each frame in which some begin, by themselves.

        Raises:
            DataError: the file has no point of the video, or points of frames that it does not have.
        """
        if not self.points.get(video):
            raise DataError(f"{video}: {self.file} has no point of it. Add rows, or leave the video out.")
        for begins in self.points[video]:
            if not 0 <= begins.frame < length.n_frames:
                raise DataError(
                    f"{video}: {self.file} has points of frame {begins.frame}, and the video has frames 0 to "
                    f"{length.n_frames - 1}: is it another video?"
                )
        size = _size(length)
        return [
            Asked(
                video=video,
                length=length,
                names=begins.names,
                numbers=len(POINT),
                first=begins.frame,
                points=begins.xy / size,
            )
            for begins in self.points[video]
        ]

    def windows(self, watcher: Watcher, asked: Asked) -> Iterator[WindowScores]:
        """x, y and visibility of every point."""
        assert asked.points is not None, "it is asked of points"
        size, number = _size(asked.length), 0
        here = _queries(asked.points, watcher.device)
        for windows, given in watcher.seen(asked.video, asked.first):
            for at, window in enumerate(windows):
                outputs = watcher.outputs(_only(given, at), queries=here)[0].cpu()
                shown = watcher.frames_shown(window)
                rows = of_every_frame(shown, _rows(outputs, size), window.stop - window.first)
                # As tables have it: who begins there anew is told the same.
                rows = rows.astype(np.float32)
                xy = rearrange(rows[-1], "(q o) -> q o", o=len(POINT))[:, :2] / size
                here = _queries(xy, watcher.device)
                # The frame that it shares with the window before is that one's.
                shared = int(number > 0)
                yield WindowScores(first=window.first + shared, stop=window.stop, scores=rows[shared:])
                number += 1

    def write(self, parts: Sequence[VideoPart], outs: Sequence[Path], blocks: Blocks) -> Written:
        """A row a frame and point, a row a point, and a picture a video."""
        for out in outs:
            write_tracks(out, parts, blocks)
        rows = [row for part in parts for row in summary_rows(part, blocks(part))]
        summary = outs[0].with_name(f"{outs[0].stem}_summary.csv")
        write_csv(summary, rows, POINT_COLUMNS)
        drawn = publish_pictures(outs[0], parts, lambda part: _picture(part, blocks))
        return Written(files=[*outs, summary, drawn], rows=rows)


def _picture(part: VideoPart, blocks: Blocks) -> bytes:
    return tracks_picture(part, blocks(part), frame_at(Path(part.video), part.begins))


def _rows(outputs: Float[Tensor, "F Q O"], size: Float[np.ndarray, " xy"]) -> Float[np.ndarray, "F n"]:
    """The numbers of all points in the frames that a window shows."""
    tracks = as_tracks(outputs[None])
    xy = tracks.points[0].double().numpy() * size
    seen = np.full((*xy.shape[:2], 1), np.nan)
    if tracks.visible is not None:
        seen = tracks.visible[0].double().numpy()
    return rearrange(np.concatenate([xy, seen], axis=-1), "f q o -> f (q o)")


def _size(length: Measured) -> Float[np.ndarray, " xy"]:
    return np.array((length.width, length.height), np.float64)


def _queries(points: Float[np.ndarray, "Q xy"], device: torch.device) -> Float[Tensor, "1 Q xy"]:
    return rearrange(torch.from_numpy(points).float(), "q xy -> 1 q xy").to(device)


def _only(given: Any, at: int) -> Any:
    """What a run takes, of one of several windows."""
    if isinstance(given, Mapping):
        return {layer: of_layer[at : at + 1] for layer, of_layer in given.items()}
    return given[at : at + 1]
