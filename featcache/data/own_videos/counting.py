"""Classes of a set of videos by split: clips, bouts and seconds."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from featcache.data.labels.base import VideoLabels
from featcache.data.labels.videos import Videos
from featcache.errors import few

_NONE = "(none of them)"


def class_rows(
    videos: Sequence[VideoLabels],
    split_of: Mapping[str, str],
    clips: Mapping[str, Counter[str]],
    classes: Sequence[str],
) -> list[dict[str, object]]:
    """A row a class, with bouts, seconds, points and the clips of each split, and one for clips without any.

    Args:
        videos: their labels.
        split_of: video -> split.
        clips: split -> clips of each class; of none under the empty name.
        classes: names, in their order.
    """
    bouts, points, seconds = Counter[str](), Counter[str](), dict[str, Fraction]()
    for labels in (v for v in videos if v.video.source in split_of):
        for bout in labels.bouts:
            bouts[bout.label] += 1
            length = (bout.stop - bout.first) / labels.video.rate
            seconds[bout.label] = seconds.get(bout.label, Fraction(0)) + length
        points.update(point.label for point in labels.points)
    rows = list[dict[str, object]]()
    for name in (*classes, ""):
        row: dict[str, object] = {"class": name or _NONE}
        if bouts:
            row |= {
                "bouts": bouts[name] if name else None,
                "seconds": f"{float(seconds.get(name, 0)):,.1f}" if name else None,
            }
        if points:
            row["points"] = points[name] if name else None
        rows.append(row | {f"clips {split}": counts[name] for split, counts in clips.items()})
    return rows


def folder_lines(videos: Videos) -> list[str]:
    """What there is of videos: how many, how long, sizes and rates, and which cannot be read."""
    lines = list[str]()
    if videos.all:
        n, seconds = len(videos.all), sum(float(video.seconds) for video in videos)
        sizes = _most(f"{video.width} x {video.height}" for video in videos)
        rates = _most(f"{float(video.rate):.4g}" for video in videos)
        longest = max(float(video.seconds) for video in videos)
        shortest = min(float(video.seconds) for video in videos)
        lines.append(
            f"{n} {'video' if n == 1 else 'videos'}, {_span(seconds)} in all, {_span(shortest)} to "
            f"{_span(longest)} each; {sizes}; {rates} frames a second"
        )
    lines += [f"cannot be read, and left out: {source} ({why})" for source, why in videos.broken]
    return lines


def _most(texts: Iterable[str]) -> str:
    counts = Counter(texts)
    if len(counts) == 1:
        return next(iter(counts))
    return few([f"{text} ({n})" for text, n in counts.most_common()], 3)


def _span(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.1f} s"
