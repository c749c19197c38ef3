"""A part gives back what was written, block by block, and notices damage."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import DamagedFileError
from readouts.predict.frames import FrameScores
from readouts.predict.parts import VideoPart, part_name, write_part


def test_it_comes_back(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((10, 2)).astype(np.float32)
    blocks = [FrameScores(first=k, scores=scores[k : k + 4]) for k in (0, 4, 8)]
    write_part(tmp_path / "a.parquet", blocks, ("x", "y"), video="a/é.mp4", rate=Fraction(30000, 1001))
    part = VideoPart(tmp_path / "a.parquet")
    assert (part.video, part.rate, part.n_frames) == ("a/é.mp4", Fraction(30000, 1001), 10)
    assert (part.names, part.begins) == (("x", "y"), 0)
    found = list(part.blocks())
    assert [block.first for block in found] == [0, 4, 8]
    np.testing.assert_array_equal(np.concatenate([block.scores for block in found]), scores)


def test_points_have_several_numbers_and_may_begin_later(tmp_path: Path) -> None:
    block = FrameScores(first=0, scores=np.arange(12, dtype=np.float32).reshape(2, 6))
    write_part(
        tmp_path / "a.parquet", [block], ("é", "q"), numbers=3, begins=7, video="a", rate=Fraction(1)
    )  # fmt: skip
    part = VideoPart(tmp_path / "a.parquet")
    assert (part.names, part.begins, part.n_frames) == (("é", "q"), 7, 2)
    (found,) = part.blocks()
    np.testing.assert_array_equal(found.scores, block.scores)


def test_damage_is_noticed(tmp_path: Path, flips) -> None:
    path = tmp_path / "a.parquet"
    write_part(
        path, [FrameScores(first=0, scores=np.ones((9, 1), np.float32))], ("x",), video="a", rate=Fraction(1)
    )
    for _ in flips(path):
        with pytest.raises(DamagedFileError, match="delete it"):
            VideoPart(path)
    assert VideoPart(path).n_frames == 9


def test_a_part_in_the_place_of_another_is_noticed(tmp_path: Path) -> None:
    block = FrameScores(first=0, scores=np.ones((9, 1), np.float32))
    write_part(tmp_path / "a.parquet", [block], ("x",), video="a", rate=Fraction(1))
    (tmp_path / "a.parquet").rename(tmp_path / "b.parquet")
    with pytest.raises(DamagedFileError, match=r"is of a\.parquet"):
        VideoPart(tmp_path / "b.parquet")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def blocks():
        yield FrameScores(first=0, scores=np.ones((9, 1), np.float32))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_part(tmp_path / "a.parquet", blocks(), ("x",), video="a", rate=Fraction(1))
    assert not list(tmp_path.iterdir())


def test_a_name_is_of_all_that_decides_it() -> None:
    assert part_name({"run": "a", "every": 8}) == part_name({"every": 8, "run": "a"})
    assert part_name({"run": "a", "every": 8}) != part_name({"run": "a", "every": 4})
