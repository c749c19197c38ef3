"""Bouts of predictions come back from our own importers, without the class that stands for nothing."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from featcache.data.labels.reading import read_labels
from featcache.data.labels.videos import Video, Videos
from readouts.predict.bouts import Bout
from readouts.predict.frames import FrameScores
from readouts.predict.label_files import ENDINGS, write_label_file
from readouts.predict.parts import VideoPart, write_part

NAMES = ("dig", "nothing", "rest")
BOUTS = [
    Bout(output=2, first=40, stop=100, score=1.0), Bout(output=0, first=0, stop=13, score=1.0),
    Bout(output=1, first=13, stop=40, score=1.0), Bout(output=0, first=50, stop=51, score=1.0),
]  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
def test_they_come_back(tmp_path: Path, ending: str) -> None:
    scores = FrameScores(first=0, scores=np.zeros((100, 3), np.float32))
    write_part(tmp_path / "p.parquet", [scores], NAMES, video="a.mp4", rate=Fraction(30000, 1001))
    part = VideoPart(tmp_path / "p.parquet")
    (file,) = write_label_file(tmp_path / f"t{ending}", {part: BOUTS}, NAMES, [1])
    video = Video(source="a.mp4", n_frames=100, rate=Fraction(30000, 1001))
    found = read_labels([file], Videos(tmp_path, [video]))
    assert found.classes == ("dig", "rest")
    assert {(b.label, b.first, b.stop) for b in found.videos[0].bouts} == {
        ("dig", 0, 13), ("rest", 40, 100), ("dig", 50, 51),
    }  # fmt: skip
