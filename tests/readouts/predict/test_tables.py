"""Tables have a row a frame or a bout, the same in both forms, and names that do not collide."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from featcache.data.labels.formats import BOUT_COLUMNS
from readouts.predict.bouts import Bout
from readouts.predict.frames import FrameScores
from readouts.predict.parts import VideoPart, write_part
from readouts.predict.tables import bout_rows, columns_named, write_csv, write_frames


@pytest.fixture
def parts(tmp_path: Path) -> list[VideoPart]:
    rng, found = np.random.default_rng(0), []
    for name in ("a.mp4", 'b "2", x.mp4'):
        scores = rng.random((10, 2)).astype(np.float32)
        path = tmp_path / f"{len(found)}.parquet"
        blocks = [FrameScores(first=k, scores=scores[k : k + 4]) for k in (0, 4, 8)]
        write_part(path, blocks, ("x", "y"), video=name, rate=Fraction(4))
        found.append(VideoPart(path))
    return found


def test_both_forms_say_the_same(parts: list[VideoPart], tmp_path: Path) -> None:
    for name in ("t.parquet", "t.csv"):
        write_frames(tmp_path / name, parts, ("dig", "time"), VideoPart.blocks)
    parquet, csv = pq.read_table(tmp_path / "t.parquet"), pa_csv.read_csv(tmp_path / "t.csv")
    assert parquet.column_names == csv.column_names == ["video", "frame", "time", "dig", "time score"]
    for name in ("video", "frame", "time"):
        assert parquet[name].to_pylist() == csv[name].to_pylist()
    assert parquet["time"][9].as_py() == 9 / 4
    np.testing.assert_allclose(parquet["dig"], csv["dig"], rtol=1e-6)
    np.testing.assert_array_equal(parquet["dig"][:4], next(parts[0].blocks()).scores[:, 0])


def test_a_bout_ends_where_its_last_frame_does(parts: list[VideoPart], tmp_path: Path) -> None:
    bouts = [Bout(output=1, first=6, stop=8, score=0.25), Bout(output=0, first=2, stop=3, score=1.0)]
    rows = bout_rows(parts[0], bouts, ("dig", "rest"))
    write_csv(tmp_path / "b.csv", rows, BOUT_COLUMNS)
    assert (tmp_path / "b.csv").read_text().splitlines() == [
        "video,class,first frame,last frame,start,stop,mean score",
        "a.mp4,dig,2,2,0.5,0.75,1.0", "a.mp4,rest,6,7,1.5,2.0,0.25",
    ]  # fmt: skip


def test_columns_of_ours_stay_ours() -> None:
    assert columns_named(("run", "video")) == ["run", "video score"]
