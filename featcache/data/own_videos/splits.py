"""Which videos train and which are held out: whole videos always, whole animals where they are known."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from featcache.data.labels.base import VideoLabels
from featcache.errors import few

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
"""Split -> the share of labelled frames that it should have."""

_FEWEST = 3
"""Groups from which on one can be held out for each of val and test."""


def splits_of(labelled: Sequence[VideoLabels]) -> tuple[dict[str, str], str]:
    """Video -> split, and how it is known. Videos without a split, where others have one, train."""
    given = {labels.video.source: labels.split for labels in labelled}
    if any(given.values()):
        without = [source for source, split in given.items() if split is None]
        more = f"; {few(without, 3)}, which has none, trains" if without else ""
        return {source: split or "train" for source, split in given.items()}, f"as the label files say{more}"
    groups, how = groups_of(labelled)
    n_groups = len(set(groups.values()))
    if n_groups < len(SHARES):
        lacking = (
            "nothing is held out: scores need other videos" if n_groups < 2 else "there is no test split"
        )
        return split_videos(labelled, groups), f"{how}, of {n_groups}: {lacking}"
    return split_videos(labelled, groups), f"{how}, 70 / 15 / 15 % of the frames, never by clip"


def groups_of(videos: Sequence[VideoLabels]) -> tuple[dict[str, str], str]:
    """Video -> what a split keeps together with it, and by what that is known.

    A column of the label file tells it, else the first word of the files' names where several share one.
    """
    if any(labels.group for labels in videos):
        named = {labels.video.source: labels.group or labels.video.source for labels in videos}
        return named, "by the column of the label file that names the animal"
    whose = {v.video.source: {event.subject for event in v.events if event.subject} for v in videos}
    if all(len(names) == 1 for names in whose.values()):
        only = {source: next(iter(names)) for source, names in whose.items()}
        if _FEWEST <= len(set(only.values())) < len(only):
            return only, "by subject, of which each video has one"
    words = {
        labels.video.source: re.split(r"[_\-. ]", PurePosixPath(labels.video.source).stem)[0].casefold()
        for labels in videos
    }
    counts = Counter(words.values())
    if _FEWEST <= len(counts) < len(words):
        which = ", ".join(sorted(counts)[:4])
        return words, f"by the first word of the files' names ({which}, ...), taken for the animal's"
    return {labels.video.source: labels.video.source for labels in videos}, "by video"


def split_videos(videos: Sequence[VideoLabels], groups: Mapping[str, str]) -> dict[str, str]:
    """Video -> split, with each class in each split as far as the groups allow, the same each time.

    Groups that hold the rarest class are dealt first, each to the split that still lacks most of it
    (iterative stratification of Sechidis et al., 2011, over groups).
    """
    frames = dict[str, Counter[str]]()
    for labels in videos:
        counts = frames.setdefault(groups[labels.video.source], Counter())
        counts[""] += labels.video.n_frames
        for bout in labels.bouts:
            counts[bout.label] += bout.stop - bout.first
        counts.update(point.label for point in labels.points)
    shares = _shares(len(frames))
    total = sum(frames.values(), Counter[str]())
    wanted = {split: {label: share * n for label, n in total.items()} for split, share in shares.items()}
    empty, dealt = set(shares), dict[str, str]()
    while left := [group for group in frames if group not in dealt]:
        rarest = min(
            sorted({label for group in left for label in frames[group]}),
            key=lambda label: sum(frames[group][label] for group in left),
        )
        group = max(sorted(group for group in left if frames[group][rarest]), key=lambda g: frames[g][rarest])
        # While a split has none, the last groups are its own.
        open_splits = sorted(empty) if len(left) <= len(empty) else list(shares)
        split = max(open_splits, key=lambda s: (wanted[s][rarest], wanted[s][""], s == "train"))
        dealt[group] = split
        empty.discard(split)
        for label, n in frames[group].items():
            wanted[split][label] -= n
    return {labels.video.source: dealt[groups[labels.video.source]] for labels in videos}


def _shares(n_groups: int) -> dict[str, float]:
    if n_groups >= _FEWEST:
        return dict(SHARES)
    return {"train": 0.7, "val": 0.3} if n_groups == _FEWEST - 1 else {"train": 1.0}
