"""Look at a folder of videos and its labels, and write a manifest and clip lists that say what was found."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from featcache.data.labels import Annotations, Choices, Videos, read_labels
from featcache.data.labels.base import VideoLabels
from featcache.data.labels.reading import label_files, predictions_below
from featcache.data.labels.remarks import Remark, refused
from featcache.data.own_videos.base import Setup, Wishes
from featcache.data.own_videos.clips import ClipRule, ListedClip, clips_of, of_subject
from featcache.data.own_videos.counting import class_rows, folder_lines
from featcache.data.own_videos.measuring import (
    measuring_files,
    read_measurements,
    set_up_measurements,
)
from featcache.data.own_videos.relabelling import remembered
from featcache.data.own_videos.splits import listed_before, splits_of, subjects_of
from featcache.data.own_videos.writing import (
    LISTS,
    MANIFEST,
    manifest_text,
    pattern_of,
    publish_list,
    recipe_for,
)
from featcache.errors import CallError, DataError, few, listed
from featcache.system.files import publish

_MOST_SHOWN = 60
"""Remarks in one message."""


def set_up(
    folder: Path,
    labels: Sequence[Path],
    choices: Choices,
    wishes: Wishes,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Setup:
    """Write `scivid.yaml` and `clip_lists/` into a folder of videos.

    Args:
        folder: the videos, at any depth.
        labels: label files and folders of them; none to look for them in `folder`.
        choices: what the user decided of the label files.
        wishes: what the user says of clips.
        progress: called with videos measured and to be measured.

    Raises:
        CallError: there is a manifest already.
        DataError: there is no video, or something is asked or refused; nothing is written.
    """
    manifest = folder / MANIFEST
    if manifest.exists():
        raise CallError(
            f"{manifest} is there: edit it and say --check, or move it away to have it made anew; "
            "videos keep the splits that they have in clip_lists."
        )
    if not folder.is_dir():
        raise CallError(f"{folder} is no folder: give the one that holds the videos.")
    videos = Videos.below(folder, progress=progress)
    _refuse_typhoon(folder)
    if not videos.all:
        raise DataError(f"{folder} holds no video that can be read.{_why_none(videos)}")
    measuring, sources = measuring_files(labels or [folder]), remembered(folder, labels, choices, wishes)
    if measuring and not (others := _label_files(folder, labels, measuring)):
        measured = read_measurements(measuring, videos, choices)
        _require_taken(measured.remarks, wishes)
        return set_up_measurements(folder, videos, measured, wishes, sources)
    if measuring and labels:
        names = few([path.name for path in others])
        raise DataError(
            f"there are files of {' and of '.join(measuring)} and others ({names}): give one kind."
        )
    found = _labels(folder, labels, videos, choices)
    _require_taken(found.remarks, wishes)
    made = _write(folder, videos, found, wishes, sources)
    beside = [
        f"{kind} of {few([path.name for path in files], 3)} are there too, and not taken: --labels takes them"
        for kind, files in measuring.items()
    ]
    if not labels and (predicted := predictions_below(folder)):
        names = few([path.name for path in predicted], 3)
        beside.append(f"predictions are there too, and not taken: {names}; corrected, --labels takes them")
    return replace(made, found=(*made.found, *beside))


def _label_files(folder: Path, labels: Sequence[Path], measuring: Mapping[str, list[Path]]) -> list[Path]:
    """Files of labels beside those that measure something; of a folder they come first."""
    taken = {path for files in measuring.values() for path in files}
    if labels:
        return [path for path in labels if path.is_file() and path not in taken]
    return [path for path, form in label_files(folder) if form != "folders" and path not in taken]


def _require_taken(remarks: Sequence[Remark], wishes: Wishes) -> None:
    """Stop where something is asked or refused, and the user did not say to go on."""
    stopped = refused(remarks)
    if stopped and not wishes.leave_out:
        raise DataError(
            f"the labels cannot be taken as they are ({len(stopped)} asked or refused); nothing is written. "
            "Correct them, choose as they say, or go on without them by --leave-out:\n"
            f"{listed(stopped[:_MOST_SHOWN])}"
        )


def _refuse_typhoon(folder: Path) -> None:
    """Say of Digital Typhoon as published why it cannot become the benchmark's clips."""
    if any(True for _ in folder.glob("**/image/[0-9]*/[0-9]*-[0-9]*.h5")):
        raise DataError(
            f"{folder} holds Digital Typhoon as published. How its images of 512 x 512 became 256 x 256, and "
            "which sequence is in which split, is not public: what could be made of it is not the "
            "benchmark's. Get the benchmark's own files: scivid data status --task typhoon."
        )


def _why_none(videos: Videos) -> str:
    return (
        f" It has {few([f'{source}: {why}' for source, why in videos.broken], 3)}." if videos.broken else ""
    )


def _labels(folder: Path, labels: Sequence[Path], videos: Videos, choices: Choices) -> Annotations:
    """What the label files say; nothing where there are none."""
    if labels or label_files(folder) != [(folder, "folders")]:
        return read_labels(list(labels) or [folder], videos, choices)
    try:
        return read_labels([folder], videos, choices)
    except DataError:  # no label file, and no folders that could be classes
        return Annotations(format="", classes=(), videos=())


def _write(
    folder: Path, videos: Videos, found: Annotations, wishes: Wishes, sources: Mapping[str, object]
) -> Setup:
    of_one = [of_subject(labels, wishes.subject) for labels in found.videos]
    labelled = [labels for labels in of_one if labels.is_labelled]
    used = {event.label for labels in labelled for event in labels.events}
    classes = [name for name in found.classes if name in used]
    if wishes.subject is not None and not used:
        names = sorted({event.subject for labels in found.videos for event in labels.events})
        raise CallError(f"no label is of subject {wishes.subject!r}: there are {few(names, 20) or 'none'}.")
    rule = _rule(labelled, videos, wishes)
    split_of, how = splits_of(labelled, listed_before(folder))
    name = wishes.name or folder.resolve().name
    counts, n_clips, n_left_out = dict[str, Counter[str]](), dict[str, int](), 0
    splits = [split for split in ("train", "val", "test") if split in split_of.values()] if classes else []
    for split in splits:
        members = [labels for labels in labelled if split_of[labels.video.source] == split]
        counts[split] = Counter()
        n_all = sum(len(rule.starts(labels.video.n_frames)) for labels in members)
        publish_list(folder / LISTS / f"{split}.csv", _counted(members, classes, rule, counts[split]))
        n_clips[split] = counts[split].pop(_ALL, 0)
        n_left_out += n_all - n_clips[split]
    assumed = _assumed(found, classes, rule, how, wishes, n_left_out, splits)
    for split in splits:
        if lacking := [name for name in classes if not counts[split][name]]:
            assumed.append(f"no clip of {few(lacking)} in {split}: a score there is not of them")
    taken = [labels.video.source for labels in labelled] or [video.source for video in videos]
    text = manifest_text(
        name,
        said=[f"Made by scivid data init; edit, then: scivid data init {folder} --check", *assumed],
        files=pattern_of(taken),
        splits=splits,
        kind="classification" if classes else "features",
        classes=classes,
        background=found.background,
        rule=rule,
        subjects=subjects_of(labelled) if splits else {},
        recipe=recipe_for(n_clips.get("train", 0)) if splits else {},
        version="1",
        measured={**_rate(taken, videos), **({"labels": sources} if classes else {})},
    )
    publish(folder / MANIFEST, text.encode())
    return Setup(
        manifest=folder / MANIFEST,
        name=name,
        found=(*folder_lines(videos), *_found(found)),
        remarks=found.remarks,
        rows=tuple(class_rows(labelled, split_of, counts, classes)) if classes else (),
        assumed=tuple(assumed),
        splits=tuple(splits),
    )


def _rate(taken: Sequence[str], videos: Videos) -> dict[str, object]:
    """What the manifest says of the rate, where all have one."""
    rates = {video.rate for video in videos if video.source in taken}
    return {"rate": float(next(iter(rates)))} if len(rates) == 1 else {}


_ALL = "\0all"
"""Under which clips are counted whatever they show."""


def _counted(
    members: Sequence[VideoLabels], classes: Sequence[str], rule: ClipRule, counts: Counter[str]
) -> Iterator[ListedClip]:
    for labels in members:
        for clip in clips_of(labels, classes, rule):
            counts[_ALL] += 1
            counts.update(clip.labels or ("",))
            yield clip


def _rule(labelled: Sequence[VideoLabels], videos: Videos, wishes: Wishes) -> ClipRule:
    """A clip of a second, or of the usual bout; one a video where labels are of whole videos."""
    bouts = [(bout, labels.video) for labels in labelled for bout in labels.bouts]
    whole = bool(bouts) and all((b.first, b.stop) == (0, video.n_frames) for b, video in bouts)
    if whole and wishes.every is None:
        return ClipRule(n_frames=wishes.n_frames, stride=wishes.stride or 1, share=wishes.share)
    seconds = min([1.0, median((b.stop - b.first) / float(v.rate) for b, v in bouts)] if bouts else [1.0])
    return ClipRule.of_a_second(
        videos,
        n_frames=wishes.n_frames,
        stride=wishes.stride,
        every=wishes.every,
        share=wishes.share,
        seconds=seconds,
    )


def _found(found: Annotations) -> list[str]:
    if not found.format:
        return ["no label file that is known: features can be extracted, nothing trained"]
    labelled = [labels for labels in found.videos if labels.is_labelled]
    files = {labels.file.name for labels in found.videos if labels.file}
    line = (
        f"labels: {found.format}, {few(sorted(files), 3)}; {len(labelled)} videos labelled, "
        f"{len(found.videos) - len(labelled)} without a usable label, {len(found.missing)} named and not "
        "at hand"
    )
    lines = [line]
    for labels in found.videos:
        if labels.rows is not None:
            lines.append(f"{labels.video.source}: {labels.rows} rows for {labels.video.n_frames} frames")
        if labels.rate is not None and f"{float(labels.rate):.4g}" != f"{float(labels.video.rate):.4g}":
            lines.append(
                f"{labels.video.source}: {float(labels.rate):.4g} frames a second in the file, "
                f"{float(labels.video.rate):.4g} in the video"
            )
    return lines


def _assumed(
    found: Annotations,
    classes: Sequence[str],
    rule: ClipRule,
    how: str,
    wishes: Wishes,
    n_left_out: int,
    splits: Sequence[str],
) -> list[str]:
    if not classes:
        return ["kind: features, since nothing is labelled", f"clips: {rule}"]
    lines = [
        f"kind: classification of {len(classes)} classes; a clip may have several, or none of them",
        f"clips: {rule}; {n_left_out} left out, since some of their frames are unknown",
        f"splits: {', '.join(splits)}, {how}",
    ]
    points = {point.label for labels in found.videos for point in labels.points}.intersection(classes)
    if points:
        lines.append(
            f"points ({few(sorted(points), 8)}): a clip that holds one, wherever in it, has its label"
        )
    if found.format == "folders":
        lines.append(f"classes are the names of folders, {few(classes, 3)}: give --labels where they are not")
    if wishes.subject is not None:
        lines.append(f"labels of {wishes.subject} alone")
    if found.background in classes:
        lines.append(f"{found.background!r} stands for nothing, and counts in no score")
    if stopped := refused(found.remarks):
        lines.append(f"{len(stopped)} things that were asked or refused are left out, as --leave-out says")
    return lines
