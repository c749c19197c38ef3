"""STIR as published: endoscopic videos with infrared marks before and after, a mask of each beside the video.

    <patient>/<left or right ...>/seq00/frames/<begin>ms-<end>ms-visible.mp4
                                       /segmentation/icgstartseg.png, icgendseg.png

As in the benchmark a mark is the centre of its box in the mask, in whole pixels over 1280 and 1024, a video
without a mark in the beginning is left out, and a clip is 16 frames over all of a video. Which mark became
which is not told. Which videos were its val and test is not public: all here are val.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image

from featcache.data.labels import Choices, Videos
from featcache.data.labels.remarks import Remarks
from featcache.data.own_videos.base import Measured, Measurements
from featcache.errors import DataError

FEATURES = {name: name for name in ("start_x", "start_y", "end_x", "end_y")}
MOST_POINTS = 34
"""Marks of a video; the benchmark's own code fails beyond."""
TRAIN = "movi/train"
"""What its readouts learn from."""

_START, _END = "icgstartseg.png", "icgendseg.png"


def recognises(path: Path, head: str) -> bool:
    """By the name of the mask of the beginning, and of its folder."""
    del head
    return path.name == _START and path.parent.name == "segmentation"


def read(paths: Sequence[Path], videos: Videos, choices: Choices) -> Measurements:
    """See `Measures.read`."""
    del choices
    at_hand = {video.source: video for video in videos}
    measured, remarks = list[Measured](), Remarks(paths[0])
    for path in paths:
        frames = path.parents[1] / "frames"
        inside = [
            video
            for source, video in at_hand.items()
            if (videos.folder / source).parent == frames and "visible" in Path(source).name
        ]
        where = path.parents[1].relative_to(videos.folder).as_posix()
        if len(inside) != 1:
            remarks.add("no_video", where, f"{frames} holds {len(inside)} videos of visible light: left out.")
            continue
        starts, ends = marks_of(path), marks_of(path.with_name(_END))
        if not len(starts):
            remarks.add("empty_label", where, "no mark in the beginning: left out, as in the benchmark.")
            continue
        if max(len(starts), len(ends)) > MOST_POINTS:
            what = f"{len(starts)} marks in the beginning and {len(ends)} in the end"
            remarks.add("bad_value", where, f"{what}, and at most {MOST_POINTS} can be asked: leave it out.")
            continue
        arrays = {
            f"{side}_{axis}": points[None, :, column]
            for side, points in (("start", starts), ("end", ends))
            for column, axis in enumerate("xy")
        }
        measured.append(
            Measured(
                video=inside[0], known=np.array([True]), read=partial(dict, arrays), split="val",
                group=path.relative_to(videos.folder).parts[0],
            )
        )  # fmt: skip
    return Measurements(
        format="STIR",
        kind="tracking",
        features=FEATURES,
        videos=tuple(measured),
        needs="any",
        train=TRAIN,
        said=(
            f"STIR: marks of {len(measured)} videos, the centres of their boxes in the masks",
            "which videos were the benchmark's val and test is not public: all are val here",
        ),
        remarks=remarks.all,
    )


def marks_of(path: Path) -> Float32[np.ndarray, "n xy"]:
    """Centres of the boxes of all marks of a mask, over its width and height.

    Raises:
        DataError: the mask is missing, or no picture.
    """
    from scipy.ndimage import find_objects, label  # type: ignore[import-untyped]

    try:
        mask = np.asarray(Image.open(path).convert("L")) > 0
    except OSError as problem:
        raise DataError(f"{path} cannot be read ({problem}): copy the sequence again.") from None
    found, _ = label(mask, structure=np.ones((3, 3)))
    centres = [
        (columns.start + (columns.stop - columns.start) // 2, rows.start + (rows.stop - rows.start) // 2)
        for rows, columns in find_objects(found)
    ]
    size = np.array(mask.shape[::-1], np.float32)
    marks: np.ndarray = np.array(centres, np.float32).reshape(-1, 2) / size
    return marks
