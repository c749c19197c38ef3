"""Whether the labels of listed clips still follow from the label files that they were made of.

The manifest remembers the files and what was decided of them; a list may have been corrected by hand, or the
files since. What differs is said, and nothing is changed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from featcache.data.labels import Choices, Videos, read_labels
from featcache.data.labels.base import VideoLabels
from featcache.data.labels.remarks import refused
from featcache.data.own_videos.base import Wishes
from featcache.data.own_videos.clips import ClipRule, clips_of, of_subject
from featcache.data.readers.video.clip_list import ClipStart
from featcache.errors import CallError, DataError, few
from featcache.manifest import Dataset, Task

_WISHES = ("subject", "share", "leave_out")
WAY_OUT = (
    "Where the files are right, move the manifest away and run `scivid data init` again: every video keeps "
    "its split."
)


def remembered(folder: Path, files: Sequence[Path], choices: Choices, wishes: Wishes) -> dict[str, object]:
    """The manifest's `labels`: which files, and what was decided that is not taken for granted."""
    decided = {of.name: value for of in fields(Choices) if (value := getattr(choices, of.name)) != of.default}
    wished = {name: value for name in _WISHES if (value := getattr(wishes, name))}
    return {"files": [_named(path, folder) for path in files or [folder]], **wished, **decided}


def _named(path: Path, folder: Path) -> str:
    whole, top = path.resolve(), folder.resolve()
    return (whole.relative_to(top) if whole.is_relative_to(top) else whole).as_posix()


def differences(
    dataset: Dataset,
    task: Task,
    clips: Mapping[str, Sequence[ClipStart]],
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Sentences on clips whose labels do not follow from the label files; none where none are remembered.

    Args:
        dataset: what the manifest says of the videos.
        task: which says how clips are cut.
        clips: split -> its list.
        folder: the videos.
        progress: called with videos measured and to be measured.

    Raises:
        CallError: what the manifest remembers is not of the form that `scivid data init` writes.
    """
    if not dataset.labels:
        return []
    files, choices, words = recalled(dataset, folder)
    share, subject = words.get("share"), words.get("subject")
    if not isinstance(share, int | float | None):
        raise CallError(f"datasets.{dataset.name}.labels: `share` is a number.")
    rule = ClipRule(
        n_frames=task.clip.n_frames,
        stride=task.clip.stride,
        every=None if task.clip.sampling == "linspace_clip" else 1,
        share=share,
    )
    videos = Videos.below(folder, progress=progress)
    said = [f"{source} cannot be read: {why}" for source, why in videos.broken]
    listed_ones = {clip.source for of_split in clips.values() for clip in of_split}
    if unlisted := [video.source for video in videos.all if video.source not in listed_ones]:
        said.append(
            f"{dataset.name}: in no clip list: {few(unlisted)}. Where label files tell of them, move the "
            "manifest away and run `scivid data init` again: the other videos keep their splits."
        )
    try:
        found = read_labels(files, videos, choices)
    except DataError as problem:
        return [*said, f"{dataset.name}: labels of clips were not compared with their files: {problem}"]
    if not dataset.labels.get("leave_out"):
        said += refused(found.remarks)
    of_video = {labels.video.source: of_subject(labels, subject) for labels in found.videos}
    used = {event.label for labels in of_video.values() if labels.is_labelled for event in labels.events}
    if new := [name for name in found.classes if name in used.difference(dataset.classes)]:
        said.append(f"{dataset.name}: label files have {few(map(repr, new))} too, which is no class here.")
    for split, listed in clips.items():
        differing = sorted(_differing(listed, of_video, dataset.classes, rule))
        if differing:
            rows = few((text for _, text in differing), 5)
            said.append(
                f"{split}: labels of {len(differing)} of {len(listed)} clips do not follow from the label "
                f"files: {rows}. {WAY_OUT} Where the list was corrected by hand, all is well."
            )
    return said


def recalled(dataset: Dataset, folder: Path) -> tuple[list[Path], Choices, dict[str, Any]]:
    """What `remembered` wrote: files, what was decided of them, and all of it by its words.

    Raises:
        CallError: it is not of that form.
    """
    words: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in dataset.labels.items()
    }
    known = {"files", *_WISHES, *(of.name for of in fields(Choices))}
    files = words.get("files", ())
    if unknown := sorted(words.keys() - known):
        raise CallError(f"datasets.{dataset.name}.labels: unknown key {few(unknown)}: take it out.")
    if not isinstance(files, tuple):
        raise CallError(f"datasets.{dataset.name}.labels: `files` is a list of paths.")
    choices = Choices(**{key: words[key] for key in words if key not in ("files", *_WISHES)})
    return [folder / str(file) for file in files], choices, words


def _differing(
    listed: Sequence[ClipStart], of_video: Mapping[str, VideoLabels], classes: Sequence[str], rule: ClipRule
) -> Iterator[tuple[int, str]]:
    """Row and text of each clip that has other labels than its video's."""
    of_source = dict[str, list[ClipStart]]()
    for clip in listed:
        of_source.setdefault(clip.source, []).append(clip)
    for source, found in of_source.items():
        labels, given = of_video.get(source), dict[int, tuple[str, ...]]()
        if labels is not None:
            starts = sorted(clip.first_frame for clip in found if clip.first_frame < labels.video.n_frames)
            given = {clip.first_frame: clip.labels for clip in clips_of(labels, classes, rule, starts=starts)}
        for clip in found:
            has, follow = {classes[k] for k in clip.labels}, given.get(clip.first_frame)
            if follow is None or has != set(follow):
                by = "unknown" if follow is None else _words(follow)
                row = clip.row or 0
                yield row, f"row {row} ({clip.id}: {_words(sorted(has))}, by the files {by})"


def _words(names: Sequence[str]) -> str:
    return " and ".join(names) or "none"
