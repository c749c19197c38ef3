"""Which videos train and which are held out: whole videos always, whole animals where they are known."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from featcache.data.labels.base import VideoLabels
from featcache.data.own_videos.writing import LISTS
from featcache.errors import few

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
"""Split -> the share of labelled frames that it should have."""

_FEWEST = 3
"""Groups from which on one can be held out for each of val and test."""


_FEW = 8
"""Groups up to which every way to deal them is tried."""


def listed_before(folder: Path) -> dict[str, str]:
    """Video -> split in the clip lists that an earlier `scivid data init` wrote there, or a person edited."""
    found = dict[str, str]()
    for split in SHARES:
        path = folder / LISTS / f"{split}.csv"
        if path.is_file():
            with path.open(encoding="utf-8-sig", newline="") as lines:
                found |= {row[0]: split for row in list(csv.reader(lines))[1:] if row}
    return found


def splits_of(
    labelled: Sequence[VideoLabels], before: Mapping[str, str] = MappingProxyType({})
) -> tuple[dict[str, str], str]:
    """Video -> split, and how it is known. Videos without a split, where others have one, train.

    Args:
        labelled: the videos to be divided.
        before: the split that a video had: it keeps it, so that a corrected label or a new video takes none
            out of test, and new videos of an animal join its others.
    """
    given = {labels.video.source: labels.split for labels in labelled}
    if any(given.values()):
        without = [source for source, split in given.items() if split is None]
        more = f"; {few(without, 3)}, which has none, trains" if without else ""
        return {source: split or "train" for source, split in given.items()}, f"as the label files say{more}"
    groups, how = groups_of(labelled)
    split_of = split_videos(labelled, groups, before)
    if stay := sum(source in before for source in split_of):
        how += f"; {stay} of {len(split_of)} videos stay where {LISTS} had them"
    if len(set(split_of.values())) < len(SHARES):
        n_groups = len(set(groups.values()))
        lacking = (
            "nothing is held out: scores need other videos" if n_groups < 2 else "there is no test split"
        )
        return split_of, f"{how}, of {n_groups}: {lacking}"
    frames = Counter[str]()
    for labels in labelled:
        frames[split_of[labels.video.source]] += labels.video.n_frames
    shares = " / ".join(f"{100 * frames[split] / frames.total():.0f}" for split in SHARES)
    return split_of, f"{how}, {shares} % of the frames (70 / 15 / 15 wanted), never by clip"


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


def subjects_of(videos: Sequence[VideoLabels]) -> dict[str, str]:
    """Video -> whose it is, where several are of one; else nothing."""
    groups, _ = groups_of(videos)
    return groups if len(set(groups.values())) < len(groups) else {}


def split_videos(
    videos: Sequence[VideoLabels],
    groups: Mapping[str, str],
    before: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Video -> split, with each class in each split as far as the groups allow, the same each time.

    Of few groups every way to deal them is looked at. Of more, those that hold the rarest class are dealt
    first, each to the split that still lacks most of it (iterative stratification of Sechidis et al., 2011,
    over groups). A video that had a split keeps it, and its group's others go there too.
    """
    frames = dict[str, Counter[str]]()
    dealt = dict[str, str]()
    for labels in videos:
        group = groups[labels.video.source]
        counts = frames.setdefault(group, Counter())
        counts[""] += labels.video.n_frames
        for bout in labels.bouts:
            counts[bout.label] += bout.stop - bout.first
        counts.update(point.label for point in labels.points)
        if split := before.get(labels.video.source):
            dealt.setdefault(group, split)
    shares = _shares(len(frames))
    new = [group for group in sorted(frames) if group not in dealt]
    deal = _deal_few if len(new) <= _FEW else _deal_many
    dealt |= deal(new, frames, dealt, shares)
    return {
        labels.video.source: before.get(labels.video.source) or dealt[groups[labels.video.source]]
        for labels in videos
    }


def _deal_few(
    new: Sequence[str],
    frames: Mapping[str, Counter[str]],
    dealt: Mapping[str, str],
    shares: Mapping[str, float],
) -> dict[str, str]:
    """The way to deal that leaves the fewest classes out of a split, and of those the nearest to `shares`."""
    total = sum(frames.values(), Counter[str]())

    def cost(splits: Iterable[str]) -> tuple[int, int, float]:
        has = {split: Counter[str]() for split in shares}
        for group, split in [*dealt.items(), *zip(new, splits, strict=True)]:
            has.setdefault(split, Counter()).update(frames[group])
        parts = [
            (share, has[split][label] / n)
            for split, share in shares.items()
            for label, n in total.items()
            if n
        ]
        empty = sum(not has[split][""] for split in shares)
        return (
            empty,
            sum(part == 0 for _, part in parts),
            sum(((part - share) ** 2 for share, part in parts), 0.0),
        )

    return dict(zip(new, min(product(shares, repeat=len(new)), key=cost), strict=True))


def _deal_many(
    new: Sequence[str],
    frames: Mapping[str, Counter[str]],
    before: Mapping[str, str],
    shares: Mapping[str, float],
) -> dict[str, str]:
    total = sum(frames.values(), Counter[str]())
    wanted = {split: {label: share * n for label, n in total.items()} for split, share in shares.items()}
    for group, split in before.items():
        for label, n in frames[group].items() if split in wanted else ():
            wanted[split][label] -= n
    empty, dealt = set(shares).difference(before.values()), dict[str, str]()
    while left := [group for group in frames if group in new and group not in dealt]:
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
    return dealt


def _shares(n_groups: int) -> dict[str, float]:
    if n_groups >= _FEWEST:
        return dict(SHARES)
    return {"train": 0.7, "val": 0.3} if n_groups == _FEWEST - 1 else {"train": 1.0}
