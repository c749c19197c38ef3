"""Look again at a manifest of own videos that was edited: lists, leaks, what its files say now."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from featcache.data.own_videos.relabelling import differences
from featcache.data.own_videos.remeasuring import other_measures
from featcache.data.own_videos.writing import MANIFEST
from featcache.data.readers import data_status
from featcache.data.readers.video.clip_list import ClipStart, read_clip_list
from featcache.data.readers.video.frame_values import path_of
from featcache.data.readers.video.reader import find_videos
from featcache.errors import DataError, few, listed
from featcache.manifest import OWN_FIELDS, OWN_VIDEOS, Dataset, Manifest, Task, load_manifest


def check(
    folder: Path, *, progress: Callable[[int, int], None] | None = None
) -> tuple[list[dict[str, object]], list[str]]:
    """Rows of clips a class and split, and sentences on what should be known, of `folder/scivid.yaml`.

    Raises:
        CallError: there is no manifest, or it is wrong; names file and keys.
        DataError: a clip list is wrong, or a video stands in two splits.
    """
    manifest = load_manifest(folder / MANIFEST)
    shipped = load_manifest().datasets
    rows, said = list[dict[str, object]](), list[str]()
    for name, dataset in manifest.datasets.items():
        if dataset.reader == OWN_VIDEOS and name not in shipped:
            found, clips = _of_dataset(dataset, folder, said)
            rows += found
            if dataset.features:
                sources = (clip.source for of_split in clips.values() for clip in of_split)
                said += other_measures(dataset, sources, folder, progress=progress)
            elif task := _task_of(dataset, manifest):
                said += differences(dataset, task, clips, folder, progress=progress)
        elif dataset.reader == OWN_FIELDS and name not in shipped:
            rows += _of_fields(dataset, folder, said)
    return rows, said


def _of_fields(dataset: Dataset, folder: Path, said: list[str]) -> list[dict[str, object]]:
    found = data_status(dataset, folder)
    problems = [problem for status in found.values() for problem in status.problems]
    if problems:
        raise DataError(f"{folder / MANIFEST} cannot be used as it is:\n{listed(problems)}")
    said += [note for status in found.values() for note in status.notes]
    return [{"split": name, "windows": status.n_clips} for name, status in found.items()]


def _task_of(dataset: Dataset, manifest: Manifest) -> Task | None:
    of_it = (t for t in manifest.tasks.values() if dataset.name in {name for name, _ in t.splits.values()})
    return next(of_it, None)


def _of_dataset(
    dataset: Dataset, folder: Path, said: list[str]
) -> tuple[list[dict[str, object]], dict[str, tuple[ClipStart, ...]]]:
    clips, problems = dict[str, tuple[ClipStart, ...]](), list[str]()
    for name, split in dataset.splits.items():
        sources = find_videos(split, folder)
        if not sources:
            problems.append(f"split {name}: no video matches {split.files!r} below {folder}.")
        elif split.clips is not None:
            try:
                found = read_clip_list(folder / split.clips, sources, dataset.classes)
            except DataError as problem:
                problems.append(str(problem))
            else:
                clips[name] = found.clips
                said += found.notes
    of_split = {name: {clip.source for clip in found} for name, found in clips.items()}
    names = list(of_split)
    for n, one in enumerate(names):
        for other in names[n + 1 :]:
            if both := sorted(of_split[one] & of_split[other]):
                problems.append(f"{few(both)} stands in {one} and {other}: keep a video in one split.")
            whose = [{dataset.subjects.get(source, "") for source in of_split[name]} for name in (one, other)]
            if same := sorted(set.intersection(*whose) - {""}):
                said.append(
                    f"{few(same)} is in {one} and {other}: a score there is not of animals it never saw."
                )
    if problems:
        raise DataError(f"{folder / MANIFEST} cannot be used as it is:\n{listed(problems)}")
    counts = {
        name: Counter(label for clip in found for label in clip.labels) for name, found in clips.items()
    }
    rows = list[dict[str, object]]()
    for number, label in enumerate(dataset.classes):
        rows.append({"class": label} | {f"clips {name}": count[number] for name, count in counts.items()})
        lacking = [name for name, count in counts.items() if not count[number]]
        if lacking:
            said.append(f"{dataset.name}: no clip of {label!r} in {', '.join(lacking)}.")
    problems = [str(path) for found in clips.values() for path in _without_values(found, dataset, folder)]
    if problems:
        raise DataError(
            f"{few(problems)} is not there, which the manifest says is known of frames: move the manifest "
            "away and run `scivid data init` again, which makes it anew."
        )
    if not dataset.classes:
        return [{"split": name, "clips": len(found)} for name, found in clips.items()], clips
    empty = {name: sum(not clip.labels for clip in found) for name, found in clips.items()}
    rows.append({"class": "(none of them)"} | {f"clips {name}": n for name, n in empty.items()})
    return rows, clips


def _without_values(clips: Sequence[ClipStart], dataset: Dataset, folder: Path) -> list[Path]:
    """Files that are not there of what is known of these clips' frames."""
    sources = dict.fromkeys(clip.source for clip in clips)
    paths = [path_of(folder, source, name) for source in sources for name in dataset.features.values()]
    return [path for path in paths if not path.is_file()]
