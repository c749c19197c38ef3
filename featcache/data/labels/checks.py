"""What holds of labels in any format: rare and missing classes, leaks, points, who was labelled."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b, file_digest
from pathlib import Path

from featcache.data.labels.base import Annotations, VideoLabels
from featcache.data.labels.remarks import Remark, Remarks
from featcache.data.labels.videos import Videos
from featcache.errors import few


def checked(annotations: Annotations, videos: Videos) -> Annotations:
    """With what should be said of classes, splits, subjects and points."""
    names = {labels.file.name for labels in annotations.videos if labels.file}
    remarks = Remarks(Path(names.pop() if len(names) == 1 else "all label files"))
    _classes(annotations, remarks)
    _splits(annotations, remarks)
    _same_content(annotations, videos, remarks)
    _events(annotations, remarks)
    labelled = {labels.video.source for labels in annotations.videos}
    unlisted = [video.source for video in videos if video.source not in labelled]
    said = any(remark.kind == "unlisted" for remark in annotations.remarks)
    if unlisted and not said:
        remarks.add("unlisted", "", f"no file labels {few(unlisted)}: no clip is made of them.")
    return replace(annotations, remarks=(*annotations.remarks, *_rare(annotations), *remarks.all))


def _rare(annotations: Annotations) -> Iterator[Remark]:
    for labels in annotations.videos:
        remarks = Remarks(labels.file or Path(labels.video.source))
        frames = Counter[tuple[str, str]]()
        for bout in labels.bouts:
            frames[bout.label, bout.subject] += bout.stop - bout.first
        for (label, subject), n in frames.items():
            if n == 1:
                whose = f" of {subject}" if subject else ""
                remarks.add("rare", labels.video.source, f"{label!r}{whose} in one frame only.")
        yield from remarks.all


def _classes(annotations: Annotations, remarks: Remarks) -> None:
    used = {event.label for labels in annotations.videos for event in labels.events}
    empty = [name for name in annotations.classes if name not in used]
    if empty:
        remarks.add(
            "empty_class", "", f"{few(map(repr, empty))}: a class without a bout or point in a video at hand."
        )
    if annotations.classes and all(name.isdigit() for name in annotations.classes):
        numbers = {int(name) for name in annotations.classes}
        gaps = sorted(set(range(max(numbers))) - numbers)
        if gaps:
            remarks.add("empty_class", "", f"numbers of classes that never occur: {few(gaps)}.")


def _splits(annotations: Annotations, remarks: Remarks) -> None:
    of_split = dict[str, set[str]]()
    groups = dict[str, set[str]]()
    for labels in annotations.videos:
        if labels.split is not None:
            if labels.is_labelled:
                of_split.setdefault(labels.split, set()).update(event.label for event in labels.events)
            if labels.group:
                groups.setdefault(labels.group, set()).add(labels.split)
    everywhere = set().union(*of_split.values()) if of_split else set()
    for split, names in of_split.items():
        missing = sorted(everywhere - names)
        if missing and len(of_split) > 1:
            remarks.add(
                "class_missing", f"split {split}", f"lacks {few(map(repr, missing))}: no score of it there."
            )
        if len(names) == 1 and len(annotations.classes) > 1:
            remarks.add("one_class", f"split {split}", f"holds only class {next(iter(names))!r}.")
    for group, splits in groups.items():
        if len(splits) > 1:
            remarks.add(
                "group_leak", group, f"stands in {' and '.join(sorted(splits))}: keep it in one split."
            )


def _same_content(annotations: Annotations, videos: Videos, remarks: Remarks) -> None:
    """Videos of different splits whose files are the same bytes, or have the same name."""
    split_of = {labels.video.source: labels.split for labels in annotations.videos if labels.split}
    by_name = _grouped({source: Path(source).name.casefold() for source in split_of})
    for sources in by_name:
        if len({split_of[source] for source in sources}) > 1:
            same = len({_digest(videos.folder / source) for source in sources}) == 1
            what = "have the same content" if same else "have the same name, and other content"
            remarks.add("leak", "", f"{' and '.join(sources)} {what}: see that no split learns another one.")
    sizes = {source: (videos.folder / source).stat().st_size for source in split_of}
    named = {frozenset(sources) for sources in by_name}
    for sources in _grouped(sizes):
        for twins in _grouped({source: _digest(videos.folder / source) for source in sources}):
            if len({split_of[source] for source in twins}) > 1 and frozenset(twins) not in named:
                remarks.add(
                    "leak", "", f"{few(twins)} have the same content and stand in several splits: keep one."
                )


def _grouped(keys: Mapping[str, object]) -> list[Sequence[str]]:
    """Names that share a key, where several do."""
    groups = dict[object, list[str]]()
    for name, key in keys.items():
        groups.setdefault(key, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, lambda: blake2b(digest_size=8)).hexdigest()


def _events(annotations: Annotations, remarks: Remarks) -> None:
    points = Counter(point.label for labels in annotations.videos for point in labels.points)
    if points:
        which = few([f"{label!r} ({n})" for label, n in points.items()], 8)
        remarks.add(
            "points",
            "",
            f"events without a length, kept as points; a clip that holds one has its label: {which}.",
        )
    several = [labels for labels in annotations.videos if len(_subjects(labels)) > 1]
    if several:
        names = dict.fromkeys(name for labels in several for name in sorted(_subjects(labels)))
        remarks.add(
            "subjects",
            "",
            f"{few(map(repr, names))}: a clip has the labels of all of them; --subject NAME takes one.",
        )
    uneven = [labels.video for labels in annotations.videos if labels.video.n_uneven]
    for video in uneven:
        if any(bout.seconds for labels in annotations.videos for bout in labels.bouts):
            remarks.add(
                "uneven",
                video.source,
                f"{video.n_uneven} of {video.n_frames} frames do not come at an even rate: seconds of its "
                "labels "
                "may be some frames off. Convert it to a constant rate before it is labelled.",
            )


def _subjects(labels: VideoLabels) -> set[str]:
    return {event.subject for event in labels.events if event.subject}
