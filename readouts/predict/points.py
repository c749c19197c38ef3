"""Where points begin that a run is to follow: a table of a user's own, or a file of tracked points.

Coordinates are pixels of the video, x to the right and y down, 0 the first column and row, as `scivid data
init` reads them. A point begins in the first frame that the file has it in; later places are not read, so
that what a tracker wrote, or `predict` itself, says where to begin as well.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from jaxtyping import Float

from featcache.data.labels import Choices, Videos
from featcache.data.labels.remarks import Remarks
from featcache.data.labels.videos import Video, measure
from featcache.data.own_videos.pose_files import Form, form_of, read_poses
from featcache.data.own_videos.poses import seen_in, video_of
from featcache.data.readers.base import UnreadableError
from featcache.errors import DataError, few

_VIDEO = ("video", "file", "filename", "path")
_FRAME = ("frame", "frame_idx", "frame_index", "frame_number")
_TIME = ("time", "seconds", "time_s", "time (s)")
_NAME = ("name", "point", "bodypart", "id")
_SLACK = 1e-4
"""Of a frame: what arithmetic may have taken from a time that falls on one."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Begins:
    """The points that begin in one frame of a video."""

    frame: int
    names: tuple[str, ...]
    xy: Float[np.ndarray, "Q xy"]
    """Pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    video: Video
    frame: int
    name: str
    x: float
    y: float


def read_points(path: Path, videos: Sequence[Path]) -> dict[Path, list[Begins]]:
    """The points of each video by the frames in which they begin.

    A table has the columns `frame` or `time` (seconds; of neither: the first frame), `x`, `y`, `name` and,
    of several videos, `video`. What the file says of other videos is left out.

    Raises:
        DataError: it cannot be read, has no point of any of the videos, or one outside of its picture.
    """
    known = Videos(Path(), _measured(videos))
    try:
        with path.open("rb") as file:
            head = file.read(4096).decode("utf-8-sig", errors="replace")
        form = form_of(path, head)
        places = _of_table(path, known) if form is None else _of_poses(path, form, known)
        first = dict[tuple[str, str], _Place]()
        for place in places:
            _refuse_outside(path, place)
            other = first.setdefault((place.video.source, place.name), place)
            if place.frame < other.frame:
                first[place.video.source, place.name] = place
    except (OSError, ValueError, pa.ArrowException) as problem:
        raise DataError(f"{path} cannot be read as points ({problem}): export it again.") from problem
    if not first:
        names = few([video.source for video in known]) or "a video that can be read"
        raise DataError(f"{path} has no point of {names}: its rows name other videos, or have no place.")
    sources = {str(video): video for video in videos}
    found = dict[Path, list[Begins]]()
    for source in {place.video.source for place in first.values()}:
        own = [place for place in first.values() if place.video.source == source]
        found[sources[source]] = [
            _begins(frame, [place for place in own if place.frame == frame])
            for frame in sorted({place.frame for place in own})
        ]
    return found


def _begins(frame: int, places: Sequence[_Place]) -> Begins:
    xy = np.array([(place.x, place.y) for place in places])
    return Begins(frame=frame, names=tuple(place.name for place in places), xy=xy)


def _measured(videos: Sequence[Path]) -> Iterator[Video]:
    """Those that can be read: the others are named when it is their turn."""
    for path in videos:
        try:
            yield measure(path, str(path))
        except (OSError, UnreadableError):
            continue


def _of_table(path: Path, videos: Videos) -> Iterator[_Place]:
    table = pq.read_table(path) if path.suffix == ".parquet" else pa_csv.read_csv(path)
    table = table.rename_columns([name.strip().casefold() for name in table.column_names])
    if not {"x", "y"} <= set(table.column_names):
        raise DataError(
            f"{path} has the columns {few(table.column_names, 8)}: of points it needs x and y in pixels, and "
            "frame (or time), name and video."
        )
    of_video, of_frame, of_time, named = (
        next((name for name in names if name in table.column_names), None)
        for names in (_VIDEO, _FRAME, _TIME, _NAME)
    )
    if of_video is None and len(videos.all) != 1:
        raise DataError(f"{path} has no column video, and there are {len(videos.all)} videos: add it.")
    for number, row in enumerate(table.to_pylist(), 1):
        video = videos.all[0] if of_video is None else _video(path, str(row[of_video]), videos)
        if video is None or not (_is_known(row["x"]) and _is_known(row["y"])):
            continue
        frame = 0.0
        if of_frame is not None:
            frame = float(row[of_frame])
        elif of_time is not None:
            frame = np.floor(float(row[of_time]) * float(video.rate) + _SLACK)
        if frame != int(frame):
            raise DataError(f"{path}, row {number}: frame {frame:g} is no whole number: correct it.")
        name = str(number if named is None else row[named])
        yield _Place(video=video, frame=int(frame), name=name, x=float(row["x"]), y=float(row["y"]))


def _video(path: Path, name: str, videos: Videos) -> Video | None:
    match = videos.find(name)
    if match.how == "several":
        raise DataError(f"{path}: {name} may be {few(match.candidates)}: write its path.")
    return match.video


def _is_known(value: Any) -> bool:
    return value is not None and isfinite(float(value))


def _of_poses(path: Path, form: Form, videos: Videos) -> Iterator[_Place]:
    """Of each point the first frame in which it was found with confidence, as `data init` takes it."""
    choices, remarks = Choices(), Remarks(path)
    for poses in read_poses(path, form):
        video = video_of(path, poses, videos, choices, remarks, alone=True)
        if video is None:
            continue
        seen = seen_in(poses, choices.confidence)
        for at, name in enumerate(poses.points):
            if seen[:, at].any():
                frame = int(seen[:, at].argmax())
                x, y = poses.xy[frame, at].tolist()
                yield _Place(video=video, frame=frame, name=name, x=x, y=y)


def _refuse_outside(path: Path, place: _Place) -> None:
    width, height = place.video.width, place.video.height
    if not (0 <= place.x <= width and 0 <= place.y <= height):
        raise DataError(
            f"{path}: point {place.name} is at x {place.x:g}, y {place.y:g} of {place.video.source}, whose "
            f"picture is {width} x {height} pixels: is it of another video, or a share of the picture?"
        )
