"""From measurements of videos to clips, statistics of training clips, arrays of frames and a manifest.

Values and tracked points go one way: a clip is made where something is known, and what is unknown stays so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import cast

import numpy as np
from einops import rearrange
from jaxtyping import Int64

from featcache.data.labels import Choices, Videos
from featcache.data.labels.base import VideoLabels
from featcache.data.labels.reading import files_below, head_of, is_prediction
from featcache.data.own_videos.base import Measured, Measurements, Measures, Setup, Wishes
from featcache.data.own_videos.clips import ClipRule, ListedClip
from featcache.data.own_videos.counting import folder_lines
from featcache.data.own_videos.splits import listed_before, splits_of, subjects_of
from featcache.data.own_videos.writing import (
    LISTS,
    MANIFEST,
    manifest_text,
    pattern_of,
    publish_list,
    recipe_for,
)
from featcache.data.readers.video.frame_values import FOLDER, write_values
from featcache.errors import DataError
from featcache.manifest import load_manifest
from featcache.system.files import publish

KINDS: Mapping[str, str] = {
    "STIR": "featcache.data.own_videos.stir",
    "tracks": "featcache.data.own_videos.poses",
    "values": "featcache.data.own_videos.value_tables",
}
"""What is measured -> the module that reads it, in the order in which a file is tried."""


def measuring_files(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Files, and those of folders but for predictions, that measure something of videos, by what it is."""
    of_kind = dict[str, list[Path]]()
    for path in (file for given in paths for file in _files(given)):
        head = head_of(path)
        kind = next((kind for kind in KINDS if _module(kind).recognises(path, head)), None)
        if kind is not None:
            of_kind.setdefault(kind, []).append(path)
    return of_kind


def read_measurements(of_kind: Mapping[str, list[Path]], videos: Videos, choices: Choices) -> Measurements:
    """What files, as `measuring_files` found them, measure of the videos.

    Raises:
        DataError: a file cannot be read, or they are of two kinds.
    """
    (kind, files), *others = of_kind.items()
    if others:
        raise DataError(f"there are files of {' and of '.join(of_kind)}: give those of one, --labels FILE.")
    return _module(kind).read(files, videos, choices)


def _module(kind: str) -> Measures:
    return cast(Measures, import_module(KINDS[kind]))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if path.is_file() else []
    made = {LISTS, FOLDER}
    return [
        file
        for file in files_below(path)
        if made.isdisjoint(file.relative_to(path).parts) and not is_prediction(file)
    ]


def set_up_measurements(
    folder: Path,
    videos: Videos,
    found: Measurements,
    wishes: Wishes,
    sources: Mapping[str, object] = MappingProxyType({}),
) -> Setup:
    """Write the manifest, clip lists and arrays of what was measured; `sources` as `remembered` gives them.

    Raises:
        DataError: nothing is known of any clip, or all values of training are alike.
    """
    rule = _rule(found, videos, wishes)
    starts = {one.video.source: _starts(one, rule, found.needs) for one in found.videos}
    shown = [one for one in found.videos if len(starts[one.video.source])]
    if not shown:
        raise DataError("no clip shows a frame of which something is known: nothing is written.")
    known = [VideoLabels(video=one.video, split=one.split, group=one.group) for one in shown]
    split_of, how = splits_of(known, listed_before(folder))
    name = wishes.name or folder.resolve().name
    splits = [split for split in ("train", "val", "test") if split in split_of.values()]
    counts = dict.fromkeys(splits, 0)
    for source, split in split_of.items():
        counts[split] += len(starts[source])
    n_all = sum(len(rule.starts(one.video.n_frames)) for one in found.videos)
    statistics = _Statistics()
    for split in splits:
        members = [one for one in shown if split_of[one.video.source] == split]
        publish_list(folder / LISTS / f"{split}.csv", _listed(members, starts))
        for one in members:
            arrays = one.read()
            write_values(folder, one.video.source, arrays)
            if split == "train" and found.kind == "regression":
                statistics.add(_shown(one, arrays[found.features["series"]], starts[one.video.source], rule))
    values = statistics.entry(found) if found.kind == "regression" else {}
    entries = {key: entry for key, entry in (("values", values), ("labels", sources)) if entry}
    assumed = _assumed(found, rule, how, splits, values, n_all - sum(counts.values()))
    text = manifest_text(
        name,
        said=[f"Made by scivid data init; edit, then: scivid data init {folder} --check", *assumed],
        files=pattern_of([one.video.source for one in shown]),
        splits=splits,
        kind=found.kind,
        measured={"features": found.features, **entries},
        rule=rule,
        subjects=subjects_of(known),
        recipe={} if found.train else recipe_for(counts["train"]),
        version="1",
        train=found.train,
        clips=_as_in_the_benchmark() if found.train else {},
    )
    publish(folder / MANIFEST, text.encode())
    return Setup(
        manifest=folder / MANIFEST,
        name=name,
        found=(*folder_lines(videos), *found.said),
        remarks=found.remarks,
        rows=tuple({"split": split, "clips": counts[split]} for split in splits),
        assumed=tuple(assumed),
        splits=tuple(splits),
    )


def _rule(found: Measurements, videos: Videos, wishes: Wishes) -> ClipRule:
    """A clip of about a second; one a video where the values are of whole videos."""
    if found.of_videos and wishes.every is None:
        return ClipRule(n_frames=wishes.n_frames, stride=wishes.stride or 1)
    return ClipRule.of_a_second(videos, n_frames=wishes.n_frames, stride=wishes.stride, every=wishes.every)


def _frames(starts: Int64[np.ndarray, " n"], rule: ClipRule, n_frames: int) -> Int64[np.ndarray, "n F"]:
    """Frames that clips show; past the end the last one again."""
    steps = rule.stride * np.arange(rule.n_frames)
    return np.minimum(rearrange(starts, "n -> n 1") + steps, n_frames - 1)


def _starts(one: Measured, rule: ClipRule, needs: str) -> Int64[np.ndarray, " n"]:
    """First frames of the clips of which something is known."""
    n_frames = one.video.n_frames
    starts = np.array(rule.starts(n_frames), np.int64)
    if len(one.known) == 1:
        holds = np.repeat(one.known, len(starts))
    elif needs == "first":
        holds = one.known[starts]
    else:
        holds = one.known[_frames(starts, rule, n_frames)].any(axis=1)
    kept: np.ndarray = starts[holds]
    return kept


def _shown(one: Measured, values: np.ndarray, starts: Int64[np.ndarray, " n"], rule: ClipRule) -> np.ndarray:
    """All known values that clips show, as often as they do."""
    if len(values) == 1:
        return np.repeat(values, len(starts))
    shown: np.ndarray = values[_frames(starts, rule, one.video.n_frames)]
    known: np.ndarray = shown[np.isfinite(shown)]
    return known


def _listed(
    members: Sequence[Measured], starts: Mapping[str, Int64[np.ndarray, " n"]]
) -> Iterator[ListedClip]:
    for one in members:
        for start in starts[one.video.source].tolist():
            yield ListedClip(source=one.video.source, first_frame=start, labels=())


def _as_in_the_benchmark() -> dict[str, object]:
    """How clips of the benchmark's tracking task are cut, by the manifest's names."""
    stir = load_manifest().task("stir")
    keys = ("clip", "evaluation_clip", "starts")
    return {key: asdict(entry) for key in keys if (entry := getattr(stir, key)) is not None}


@dataclass(slots=True)
class _Statistics:
    """Mean and deviation of values that come a video at a time (Chan et al., 1979)."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray) -> None:
        if not len(values):
            return
        wide = values.astype(np.float64)
        n, mean = len(wide), float(wide.mean())
        apart, total = mean - self.mean, self.n + n
        self.squares += float(((wide - mean) ** 2).sum()) + apart**2 * self.n * n / total
        self.mean += apart * n / total
        self.n = total

    def entry(self, found: Measurements) -> dict[str, object]:
        """The manifest's `values`.

        Raises:
            DataError: all values are alike.
        """
        std = (self.squares / max(1, self.n)) ** 0.5
        if not std > 1e-12 * max(1.0, abs(self.mean)):
            raise DataError(
                f"all {self.n} values of training clips are {self.mean:g}: there is nothing to learn. Is it "
                "the right column (--column)?"
            )
        of = "video" if found.of_videos else "frame"
        return {"of": of, "mean": self.mean, "std": std, "unit": found.unit}


def _assumed(
    found: Measurements,
    rule: ClipRule,
    how: str,
    splits: Sequence[str],
    values: Mapping[str, object],
    n_left_out: int,
) -> list[str]:
    cut = str(rule).partition("; ")[0]
    if found.train:
        lines = [f"kind: tracking of marks, of which each end point may be any's; learns from {found.train}"]
        why = "since they have no mark"
    elif found.kind == "tracking":
        lines = ["kind: tracking of the points that are seen in a clip's first frame, in all of its frames"]
        why = "since no point is seen in their first frame"
    else:
        what = "of the whole video" if found.of_videos else "of each of its frames"
        lines = [f"kind: regression of {found.features['series']}: a clip has the value {what}"]
        lines.append(
            f"mean {values['mean']:.6g} and standard deviation {values['std']:.6g} {found.unit}, of the "
            "training clips alone: readouts predict the difference from the mean in deviations"
        )
        why = "since none of their frames has a known value"
    return [*lines, f"clips: {cut}; {n_left_out} left out, {why}", f"splits: {', '.join(splits)}, {how}"]
