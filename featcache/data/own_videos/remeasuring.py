"""Whether the arrays of what is known of frames still are what the files that they were made of say.

As `relabelling` for labels: what differs is said, and nothing is changed.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from featcache.data.labels import Videos
from featcache.data.labels.remarks import refused
from featcache.data.own_videos.base import Measured, Measurements
from featcache.data.own_videos.measuring import measuring_files, read_measurements
from featcache.data.own_videos.relabelling import WAY_OUT, recalled
from featcache.data.readers.video.frame_values import path_of
from featcache.errors import DataError, few
from featcache.manifest import Dataset


def other_measures(
    dataset: Dataset,
    sources: Iterable[str],
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Sentences on videos of which files measure something else than is kept; none where none are remembered.

    Args:
        dataset: what the manifest says of the videos.
        sources: the videos that have clips.
        folder: where they lie.
        progress: called with videos measured and to be measured.

    Raises:
        CallError: what the manifest remembers is not of the form that `scivid data init` writes.
    """
    if not dataset.labels:
        return []
    files, choices, words = recalled(dataset, folder)
    videos = Videos.below(folder, progress=progress)
    if not (measuring := measuring_files(files)):
        return [f"{dataset.name}: {few(map(str, files))} measures nothing any more: nothing was compared."]
    try:
        found = read_measurements(measuring, videos, choices)
    except DataError as problem:
        return [f"{dataset.name}: what is known of frames was not compared with its files: {problem}"]
    said = [] if words.get("leave_out") else refused(found.remarks)
    of_source = {one.video.source: one for one in found.videos}
    listed_ones = dict.fromkeys(sources)
    if gone := [source for source in listed_ones if source not in of_source]:
        said.append(f"{dataset.name}: no file measures anything of {few(gone)} any more. {WAY_OUT}")
    known = [one.video.source for one in found.videos if one.known.any()]
    if unlisted := [source for source in known if source not in listed_ones]:
        said.append(f"{dataset.name}: measured too, and in no clip list: {few(unlisted)}. {WAY_OUT}")
    both = [of_source[source] for source in listed_ones if source in of_source]
    if differing := list(_differing(both, found, folder)):
        said.append(
            f"{dataset.name}: of {len(differing)} of {len(both)} videos the files say something else: "
            f"{few(differing, 5)}. {WAY_OUT}"
        )
    return said


def _differing(measured: Iterable[Measured], found: Measurements, folder: Path) -> Iterator[str]:
    """A clause on each video whose arrays have other rows."""
    for one in measured:
        arrays = one.read()
        for name in found.features.values():
            kept, now = np.load(path_of(folder, one.video.source, name), mmap_mode="r"), arrays[name]
            if kept.shape != now.shape:
                yield f"{one.video.source} ({name} of {_shape(kept)}, by the files {_shape(now)})"
                break
            alike = (kept == now) | ((kept != kept) & (now != now))
            if not alike.all():
                at = tuple(np.argwhere(~alike)[0].tolist())
                yield f"{one.video.source} (frame {at[0]}: {name} {kept[at]}, by the files {now[at]})"
                break


def _shape(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape))
