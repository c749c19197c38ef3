from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featcache.clips import Clip
from featcache.data.labels import Choices, Videos
from featcache.data.labels.videos import Video
from featcache.data.own_videos.base import Wishes
from featcache.data.own_videos.measuring import (
    measuring_files,
    read_measurements,
    set_up_measurements,
)
from featcache.data.own_videos.stir import marks_of
from featcache.data.readers.video.frame_values import read_values
from featcache.errors import DataError
from featcache.manifest import load_manifest
from readouts.tasks import load_task

VIDEO = "p1/left/seq00/frames/0ms-900ms-visible.mp4"


def mask(path: Path, *boxes: tuple[int, int, int, int]) -> None:
    """Boxes of first column and row, width and height, in a picture of 40 x 20."""
    picture = np.zeros((20, 40), np.uint8)
    for x, y, width, height in boxes:
        picture[y : y + height, x : x + width] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def test_a_mark_is_the_centre_of_its_box(tmp_path: Path) -> None:
    mask(tmp_path / "m.png", (4, 2, 3, 3), (30, 10, 4, 2))
    # x + w // 2 and y + h // 2, over width and height.
    np.testing.assert_allclose(marks_of(tmp_path / "m.png"), [[5 / 40, 3 / 20], [32 / 40, 11 / 20]])
    mask(tmp_path / "none.png")
    assert marks_of(tmp_path / "none.png").shape == (0, 2)
    with pytest.raises(DataError, match="cannot be read"):
        marks_of(tmp_path / "absent.png")


def test_the_published_folder_becomes_a_task_that_learns_from_movi(tmp_path: Path) -> None:
    sequence = tmp_path / "p1" / "left" / "seq00"
    mask(sequence / "segmentation" / "icgstartseg.png", (4, 2, 3, 3))
    mask(sequence / "segmentation" / "icgendseg.png", (4, 2, 3, 3), (30, 10, 4, 2))
    mask(tmp_path / "p1" / "left" / "seq01" / "segmentation" / "icgstartseg.png", (4, 2, 3, 3))
    (sequence / "frames").mkdir()
    (tmp_path / VIDEO).touch()
    video = Video(source=VIDEO, n_frames=50, rate=Fraction(60), width=40, height=20)
    videos = Videos(tmp_path, [video])
    found = read_measurements(measuring_files([tmp_path]), videos, Choices())
    assert [(remark.kind, remark.where) for remark in found.remarks] == [("no_video", "p1/left/seq01")]
    made = set_up_measurements(tmp_path, videos, found, Wishes(name="tissue"))
    manifest = load_manifest(made.manifest)
    task, official = manifest.task("tissue"), manifest.task("stir")
    assert (task.clip, task.evaluation_clip, task.starts) == (
        official.clip, official.evaluation_clip, official.starts
    )  # fmt: skip
    assert task.splits == {"train": ("movi", "train"), "val": ("tissue", "val")}
    assert load_task("tissue", manifest).readouts == ("tracking",)
    clip = Clip(id="x", source=VIDEO, record=0, n_source=50, digest="0" * 16)
    points = read_values(tmp_path, clip, manifest.dataset("tissue").features)
    np.testing.assert_allclose(points["end_x"], [5 / 40, 32 / 40])
    assert points["start_y"].tolist() == pytest.approx([3 / 20])
