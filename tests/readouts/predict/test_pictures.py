"""A picture is as wide for any video, and shows means over equal stretches."""

from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from readouts.predict import pictures
from readouts.predict.bouts import Bout
from readouts.predict.frames import FrameScores
from readouts.predict.parts import VideoPart, write_part


def test_stretches_are_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BINS", 4)
    scores = np.arange(20, dtype=np.float32).reshape(10, 2)
    blocks = [FrameScores(first=k, scores=scores[k : k + 3]) for k in (0, 3, 6, 9)]
    found = pictures.binned(blocks, 10)
    wanted = [scores[[0, 1, 2]], scores[[3, 4]], scores[[5, 6, 7]], scores[[8, 9]]]
    np.testing.assert_allclose(found, [part.mean(axis=0) for part in wanted])
    assert len(pictures.binned(blocks, 10)) == 4
    monkeypatch.setattr(pictures, "BINS", 900)
    np.testing.assert_allclose(pictures.binned(blocks, 10), scores)


@pytest.mark.parametrize("bouts", [[Bout(output=0, first=2, stop=5, score=0.5)], None])
def test_a_picture_is_drawn(tmp_path: Path, bouts: list[Bout] | None) -> None:
    scores = FrameScores(first=0, scores=np.random.default_rng(0).random((50, 2)).astype(np.float32))
    write_part(tmp_path / "p.parquet", [scores], ("a", "b"), video="a.mp4", rate=Fraction(2))
    part = VideoPart(tmp_path / "p.parquet")
    drawn = pictures.picture(part, part.blocks(), bouts, ("dig", "rest"))
    assert drawn == pictures.picture(part, part.blocks(), bouts, ("dig", "rest"))
    assert Image.open(BytesIO(drawn)).size[0] == 1260


def test_tracks_are_drawn_whatever_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BINS", 10)
    rng = np.random.default_rng(0)
    numbers = np.concatenate([rng.random((95, 2, 2)) * 40, np.ones((95, 2, 1))], axis=2)
    rows = numbers.reshape(95, 6).astype(np.float32)
    drawn = []
    for size in (7, 95):
        blocks = [FrameScores(first=k, scores=rows[k : k + size]) for k in range(0, 95, size)]
        path = tmp_path / f"{size}.parquet"
        write_part(path, blocks, ("a", "b"), numbers=3, begins=4, video="a.mp4", rate=Fraction(2))
        part = VideoPart(path)
        drawn.append(pictures.tracks_picture(part, part.blocks(), np.zeros((48, 64, 3), np.uint8)))
    assert drawn[0] == drawn[1]
    assert Image.open(BytesIO(drawn[0])).size[0] > 800
