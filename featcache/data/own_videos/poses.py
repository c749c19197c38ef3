"""Tracked points of animals, as poses are stored: which video they are of, and what of them is seen.

A point is seen in a frame where it was found with enough confidence. What is asked of a clip are the points
that are seen in its first frame; where they are hidden later, nothing is asked.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from featcache.data.labels import Choices, Videos
from featcache.data.labels.remarks import Remarks
from featcache.data.labels.videos import Video
from featcache.data.own_videos.base import Measured, Measurements
from featcache.data.own_videos.pose_files import Form, Poses, form_of, read_poses
from featcache.errors import few
from featcache.spec import TRACKS_AT_ONCE

_RANKS = {"sleap": 0, "analysis": 1, "pandas": 2, "table": 3}
_FAR = 1.5
"""Of a picture's size: what lies beyond is of another one."""


def recognises(path: Path, head: str) -> bool:
    """By headings of DeepLabCut, or what an HDF5 file has at its top."""
    return form_of(path, head) is not None


def read(paths: Sequence[Path], videos: Videos, choices: Choices) -> Measurements:
    """See `Measures.read`."""
    forms = {path: form for path in paths if (form := form_of(path, _head(path))) is not None}
    remarks = {path: Remarks(path) for path in paths}
    found = dict[str, tuple[Path, int, Video]]()
    points = dict[str, None]()
    known, said, doubtful = dict[str, np.ndarray](), list[str](), set[str]()
    for path in sorted(forms, key=lambda path: (_RANKS[forms[path]], path)):
        for number, poses in enumerate(read_poses(path, forms[path])):
            video = video_of(path, poses, videos, choices, remarks[path], alone=len(forms) == 1)
            if video is None or not _fits(poses, video, remarks[path]):
                continue
            if video.source in found:
                if _is_doubtful(path, poses, video, found[video.source][0], remarks[path]):
                    doubtful.add(video.source)
                continue
            found[video.source] = path, number, video
            points |= dict.fromkeys(poses.points)
            seen = seen_in(poses, choices.confidence)
            known[video.source] = _padded(np.asarray(seen.any(axis=1)), video.n_frames, False)
            said.append(_sentence(path, poses, seen, video, choices))
    found = {source: of for source, of in found.items() if source not in doubtful}
    names = {name: place for place, name in enumerate(points)}
    measured = [
        Measured(
            video=video,
            known=known[source],
            read=partial(_arrays, path, forms[path], number, video, names, choices.confidence),
        )
        for source, (path, number, video) in found.items()
    ]
    unlisted = [video.source for video in videos if video.source not in found]
    if unlisted:
        said.append(f"no points of {few(unlisted)}: no clip is made of them")
    said.append(
        f"{len(points)} points ({few(points, 8)}), x to the right and y down from the first pixel, over "
        f"width and height; one is seen where its confidence is {choices.confidence:g} or more (--confidence)"
    )
    if len(points) > TRACKS_AT_ONCE:
        unscored = few([*points][TRACKS_AT_ONCE:], 8)
        said.append(
            f"{len(points)} points are more than a readout is asked for at once: a training step draws "
            f"{TRACKS_AT_ONCE} of them, and scores are of the first {TRACKS_AT_ONCE}, without {unscored}"
        )
    return Measurements(
        format="tracks",
        kind="tracking",
        features={"tracks": "tracks", "visibility": "seen"},
        videos=tuple(measured),
        needs="first",
        said=tuple(said),
        remarks=tuple(remark for of_file in remarks.values() for remark in of_file.all),
    )


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(4096).decode("utf-8-sig", errors="replace")


def video_of(
    path: Path, poses: Poses, videos: Videos, choices: Choices, remarks: Remarks, *, alone: bool
) -> Video | None:
    """By the name in the file, else the video with whose name the file's begins."""
    named = choices.video or poses.video
    if named is not None:
        match = videos.find(named, beside=videos.beside(path))
        if match.video is not None:
            if match.how != "same":
                remarks.add(
                    "other_path", "", f"{named!r} is not a path here: taken for {match.video.source}."
                )
            return match.video
    stem = path.name.casefold()
    fitting = [video for video in videos if stem.startswith(PurePosixPath(video.source).stem.casefold())]
    longest = max((len(PurePosixPath(video.source).stem) for video in fitting), default=0)
    fitting = [video for video in fitting if len(PurePosixPath(video.source).stem) == longest]
    beside = [video for video in fitting if (videos.folder / video.source).parent == path.parent]
    candidates = beside or fitting
    if len(candidates) == 1:
        return candidates[0]
    if not candidates and poses.video is not None and choices.video is None:
        remarks.add("no_video", "", f"no video {poses.video!r} is at hand: its points are left out.")
        return None
    if not candidates and alone and len(videos.all) == 1:
        remarks.add("guessed_video", "", f"taken for the points of {videos.all[0].source}, the only video.")
        return videos.all[0]
    what = f"may be of {few([video.source for video in candidates])}" if candidates else "is of no video here"
    remarks.add("which_video", "", f"{what}: name it after its video, or say --video NAME.")
    return None


def _is_doubtful(path: Path, poses: Poses, video: Video, other: Path, remarks: Remarks) -> bool:
    """Whether one file has points of two videos that are both taken for one; else another file has them."""
    if other != path:
        remarks.add("left_out", video.source, f"{other.name} has its points as well, and is taken.")
        return False
    remarks.add(
        "several_videos",
        video.source,
        f"{poses.video!r} and another one are both taken for it: which is at hand cannot be told. Put it "
        "into a folder as the file has it, or give each its own file of points.",
    )
    return True


def _fits(poses: Poses, video: Video, remarks: Remarks) -> bool:
    """Whether there are as many rows as frames, and points in the picture."""
    n_rows = len(poses.xy)
    if n_rows > video.n_frames or (poses.every_frame and n_rows != video.n_frames):
        remarks.add(
            "row_count", video.source,
            f"{n_rows} rows for {video.n_frames} frames: which row is which frame cannot be told. Track the "
            "video that is here, or leave it out.",
        )  # fmt: skip
        return False
    if np.isfinite(poses.xy).any():
        x, y = np.nanmax(poses.xy, axis=(0, 1)).tolist()
        if x > _FAR * video.width or y > _FAR * video.height:
            remarks.add(
                "outside", video.source,
                f"points up to x {x:.0f}, y {y:.0f} in a picture of {video.width} x {video.height}: they are "
                "of a video of another size. Track the one that is here.",
            )  # fmt: skip
            return False
    return True


def _sentence(path: Path, poses: Poses, seen: np.ndarray, video: Video, choices: Choices) -> str:
    there = np.isfinite(poses.xy).all(axis=-1)
    unsure = int((there & ~seen).sum())
    return (
        f"{path.name}: {len(poses.points)} points of {video.source}, {there.mean():.0%} of them found, "
        f"{unsure} times below the confidence of {choices.confidence:g}; it has no rate: row k is frame k"
    )


def seen_in(poses: Poses, confidence: float) -> np.ndarray:
    """Whether a point was found with so much confidence [F Q]."""
    seen: np.ndarray = np.isfinite(poses.xy).all(axis=-1) & (poses.confidence >= confidence)
    return seen


def _arrays(
    path: Path, form: Form, number: int, video: Video, names: Mapping[str, int], confidence: float
) -> dict[str, np.ndarray]:
    """`tracks` [F Q xy] over width and height, and whether a point is `seen` [F Q]."""
    (poses,) = [poses for n, poses in enumerate(read_poses(path, form)) if n == number]
    of_all = [names[point] for point in poses.points]
    seen = np.zeros((video.n_frames, len(names)), np.bool_)
    seen[: len(poses.xy), of_all] = seen_in(poses, confidence)
    tracks = np.full((*seen.shape, 2), np.nan, np.float32)
    tracks[: len(poses.xy), of_all] = poses.xy / np.array((video.width, video.height), np.float32)
    return {"tracks": tracks, "seen": seen}


def _padded(values: np.ndarray, n: int, fill: object) -> np.ndarray:
    return np.concatenate([values, np.full(n - len(values), fill, values.dtype)])
