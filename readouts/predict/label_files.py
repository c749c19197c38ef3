"""Predictions as label files of annotation programs, as our own importers read them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from featcache.data.labels.base import Bout as LabelledBout
from featcache.data.labels.base import VideoLabels
from featcache.data.labels.formats import BOUT_COLUMNS as BOUT_COLUMNS
from featcache.data.labels.formats import POINT_COLUMNS as POINT_COLUMNS
from featcache.data.labels.formats import VALUE_COLUMNS as VALUE_COLUMNS
from featcache.data.labels.formats import WRITERS
from featcache.data.labels.videos import Video
from featcache.data.labels.writing import distinct_stems as distinct_stems
from featcache.data.labels.writing import write_labels
from readouts.predict.bouts import Bout
from readouts.predict.parts import VideoPart

ENDINGS = tuple(WRITERS)


def write_label_file(
    path: Path, bouts: Mapping[VideoPart, Iterable[Bout]], names: Sequence[str], left_out: Sequence[int]
) -> list[Path]:
    """Write the bouts of some videos in the format of the ending of `path`; returns what was written.

    Args:
        path: ends as one of `ENDINGS`.
        bouts: of each video.
        names: of all classes.
        left_out: those that stand for nothing: an annotator marks what happens.
    """
    kept = [name for number, name in enumerate(names) if number not in left_out]
    labels = [_labels(part, of_video, names) for part, of_video in bouts.items()]
    return write_labels(path, labels, kept)


def _labels(part: VideoPart, bouts: Iterable[Bout], names: Sequence[str]) -> VideoLabels:
    return VideoLabels(
        video=Video(source=part.video, n_frames=part.n_frames, rate=part.rate),
        bouts=tuple(
            LabelledBout(label=names[bout.output], first=bout.first, stop=bout.stop)
            for bout in sorted(bouts, key=lambda bout: (bout.first, bout.output))
        ),
    )
