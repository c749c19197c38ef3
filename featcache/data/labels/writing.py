"""From labels of videos back to a file of an annotation program."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import cast

from featcache.data.labels.base import VideoLabels, Writer
from featcache.data.labels.formats import IMPORTERS, WRITERS
from featcache.system.files import publish


def write_labels(path: Path, labels: Sequence[VideoLabels], classes: Sequence[str]) -> list[Path]:
    """Write labels as the ending of `path` says, whole or not at all; returns what was written.

    Where the format has a file a video and there are several, each has the video's name in its own.

    Raises:
        CallError: the format does not hold that.
        KeyError: no such format is written.
    """
    writer = cast(Writer, import_module(IMPORTERS[WRITERS[path.suffix]]))
    if path.suffix == ".annot" and len(labels) > 1:
        stems = distinct_stems([of_video.video.source for of_video in labels])
        files = [path.with_stem(f"{path.stem}_{stem}") for stem in stems]
        for file, of_video in zip(files, labels, strict=True):
            publish(file, writer.write([of_video], classes))
        return files
    publish(path, writer.write(labels, classes))
    return [path]


def distinct_stems(paths: Sequence[str]) -> list[str]:
    """The name of each file without folder and ending; the second of one name ends in `_2`."""
    taken = dict[str, None]()
    for path in paths:
        stem = name = Path(path).stem
        number = 1
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken[name] = None
    return list(taken)
