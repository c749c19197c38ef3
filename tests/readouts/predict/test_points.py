"""Where points begin: tables and poses, of one video or several."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featcache.errors import DataError
from readouts.predict.points import read_points
from tests.own_measurements import path_of, write_dots, write_points


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = write_dots(tmp_path_factory.mktemp("points") / "dots")
    return [folder / f"d{number}.mp4" for number in range(3)]


def test_a_point_begins_where_the_table_has_it_first(videos: list[Path], tmp_path: Path) -> None:
    rows = {
        "Video": ["d1", "d1.mp4", "D:\\rig\\d1.mp4", "d0.mp4", "d9.mp4"],
        "frame": [7, 3, 3, 0, 0],
        "Point": ["a", "a", "b", "a", "a"],
        "x": [1.0, 2.0, 3.0, 4.0, 900.0],
        "y": [5.0, 6.0, 7.0, 8.0, 900.0],
    }
    pq.write_table(pa.table(rows), tmp_path / "p.parquet")
    found = read_points(tmp_path / "p.parquet", videos)
    assert found.keys() == {videos[0], videos[1]}
    (begins,) = found[videos[1]]
    assert (begins.frame, begins.names, begins.xy.tolist()) == (3, ("a", "b"), [[2, 6], [3, 7]])


def test_poses_begin_where_a_point_is_first_seen(videos: list[Path]) -> None:
    write_points(videos[0].parent, "dlc.csv")
    text = (videos[1].parent / "d1DLC_net.csv").read_text().splitlines()
    cells = text[3].split(",")
    cells[6] = "0.1"  # the second point's likelihood in frame 0
    text[3] = ",".join(cells)
    (videos[1].parent / "d1DLC_net.csv").write_text("\n".join(text) + "\n")
    found = read_points(videos[1].parent / "d1DLC_net.csv", videos)
    first, later = found[videos[1]]
    assert (first.frame, first.names, later.frame, later.names) == (0, ("p0", "p2"), 1, ("p1",))
    np.testing.assert_allclose(later.xy[0], path_of(1, 1)[1], rtol=1e-6)


def test_a_table_of_several_videos_names_them(videos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("name,x,y\na,1,2\n")
    with pytest.raises(DataError, match="no column video, and there are 3 videos"):
        read_points(tmp_path / "p.csv", videos)
    found = read_points(tmp_path / "p.csv", videos[:1])
    assert found[videos[0]][0].frame == 0
    (tmp_path / "p.csv").write_text("name,x,y\na,1\n")
    with pytest.raises(DataError, match="cannot be read as points"):
        read_points(tmp_path / "p.csv", videos)
