"""The manifest and the clip lists of a user's own videos, as text that a person can read and edit."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from featcache.data.own_videos.clips import ClipRule, ListedClip
from featcache.errors import DataError
from featcache.system.files import Staged, write_all

MANIFEST = "scivid.yaml"
LISTS = "clip_lists"
"""Folder of the clip lists, below that of the videos."""
_ROWS = 4096
"""Of a clip list, written at once."""


def publish_list(path: Path, clips: Iterable[ListedClip]) -> None:
    """Write a clip list, some rows at a time: of ten hours no more is held than of one.

    Raises:
        DataError: a class's name has a semicolon, which joins labels there.
    """
    cells = chain([("video", "first_frame", "labels")], map(_cells, clips))
    with Staged(path) as staged:
        while block := list(islice(cells, _ROWS)):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(block)
            write_all(staged.fd, [text.getvalue().encode()])
        staged.publish()


def _cells(clip: ListedClip) -> tuple[object, ...]:
    wrong = next((label for label in clip.labels if ";" in label), None)
    if wrong is not None:
        raise DataError(f"class {wrong!r} has a semicolon, which joins labels in a clip list: rename it.")
    return clip.source, clip.first_frame, ";".join(clip.labels)


def pattern_of(sources: Sequence[str]) -> str:
    """A glob below the data folder that matches these files, and no more than there is need for."""
    parents = {PurePosixPath(source).parent.as_posix() for source in sources}
    where = next(iter(parents)) if len(parents) == 1 else "**"
    where = "" if where == "." else f"{where}/"
    endings = sorted({PurePosixPath(source).suffix for source in sources})
    if len({len(ending) for ending in endings}) > 1:
        return f"{where}*.*"
    letters = ["".join(sorted(set(place))) for place in zip(*endings, strict=True)]
    return where + "*" + "".join(place if len(place) == 1 else f"[{place}]" for place in letters)


def manifest_text(
    name: str,
    *,
    said: Sequence[str],
    files: str,
    splits: Iterable[str],
    rule: ClipRule,
    version: str,
    kind: str = "features",
    classes: Sequence[str] = (),
    background: str | None = None,
    measured: Mapping[str, object] = MappingProxyType({}),
    subjects: Mapping[str, str] = MappingProxyType({}),
    recipe: Mapping[str, object] = MappingProxyType({}),
    train: str = "",
    clips: Mapping[str, object] = MappingProxyType({}),
) -> str:
    """The manifest of one data set and one task.

    Args:
        name: of both.
        said: what was assumed, a comment a line.
        files: the pattern of the videos.
        splits: those that have a clip list; none where there are no labels.
        rule: how clips are cut.
        version: of the data set.
        kind: of the task.
        classes: names, in the order of the targets.
        background: the class that stands for nothing, where there is one.
        measured: what else the data set says of its targets, by the manifest's names.
        subjects: whose each video is, where that is known.
        recipe: how readouts are trained, where it is otherwise than in the benchmark.
        train: the split of another data set that the task learns from.
        clips: how the task cuts clips, where it is not by `rule`.
    """
    lists = [*splits]
    sampling = "linspace_clip" if rule.every is None else "clip"
    clip: Mapping[str, object] = {
        "n_frames": rule.n_frames, "stride": rule.stride, "sampling": sampling, "height": 224, "width": 224
    }  # fmt: skip
    entries = {split: {"files": files, "clips": f"{LISTS}/{split}.csv"} for split in lists}
    lines = [
        *(f"# {line}" for line in said),
        "datasets:",
        f"  {scalar_text(name)}:",
        f"    title: {scalar_text(name)}",
        "    source: own videos",
        "    licence: unpublished",
        "    citation: none yet",
        f"    version: {scalar_text(version)}    # raise it when a video's content changes",
        "    reader: video_file",
    ]
    if classes:
        lines.append(f"    classes: {flow_text(classes)}")
    if background in classes:
        lines.append(f"    background: {scalar_text(str(background))}    # counts in no score")
    lines += [f"    {key}: {flow_text(value)}" for key, value in measured.items()]
    if not lists:
        entries = {"train": {"files": files}}
        lines += [f"    clip_every: {rule.every}"] if rule.every else []
    lines += [*_subject_lines(subjects), "    splits:    # paths below the folder of videos, SCIVID_DATA_DIR"]
    lines += [f"      {split}: {flow_text(entry)}" for split, entry in entries.items()]
    of_task = {"train": train} if train else {}
    of_task |= {split: f"{name}/{split}" for split in entries}
    lines += [
        "tasks:",
        f"  {scalar_text(name)}:",
        f"    title: {scalar_text(name)}",
        f"    kind: {kind}",
        f"    splits: {flow_text(of_task)}",
        *(f"    {key}: {flow_text(entry)}" for key, entry in (clips or {"clip": clip}).items()),
        *recipe_lines(recipe),
    ]
    return "\n".join([*lines, ""])


def _subject_lines(subjects: Mapping[str, str]) -> list[str]:
    head = "    subjects:    # whose each video is: one unit in intervals, never parted between splits"
    rows = [f"      {scalar_text(source)}: {scalar_text(whose)}" for source, whose in subjects.items()]
    return [head, *rows] if rows else []


def recipe_for(n_clips: int, *, batch: int = 32, most: int = 40_000) -> dict[str, object]:
    """Steps for a training split of so many clips: some fifty passes over it, 2,000 steps at the least.

    The benchmark goes 47 times over its mice, in 40,000 steps.

    Args:
        n_clips: of the training split.
        batch: of the kind of task.
        most: its steps in the benchmark, which are left as they are.
    """
    steps = max(_FEWEST_STEPS, _PASSES * n_clips // batch // 100 * 100)
    return {"steps": steps, "warmup": steps // 20} if steps < most else {}


_PASSES, _FEWEST_STEPS = 50, 2_000


def recipe_lines(recipe: Mapping[str, object]) -> list[str]:
    """The line of a task's recipe; none where it is the benchmark's."""
    line = f"    recipe: {flow_text(recipe)}    # the benchmark's is for larger sets; --set changes one run"
    return [line] if recipe else []


def scalar_text(value: str) -> str:
    """A YAML scalar that is read as text, whatever it looks like."""
    return json.dumps(value, ensure_ascii=False)


def flow_text(value: object) -> str:
    """A value in YAML's flow style, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow_text(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(flow_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)
