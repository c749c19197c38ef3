"""Points are followed as the run was scored, from window to window; what is missing or wrong is said."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch
from einops import rearrange
from typer.testing import CliRunner

from cli import app
from readouts.heads.tracking import as_tracks
from readouts.predict.frames import WindowScores
from readouts.predict.kinds.base import Asked
from readouts.predict.kinds.tracks import Tracks
from readouts.predict.videos import Watcher
from readouts.results.per_clip import read_predictions
from tests.own_measurements import FRAMES, SIZE, path_of
from tests.readouts.own_dots import N_FRAMES, Dots, scivid, write_table


def predicted(dots: Dots, video: Path, points: Path, out: Path, n_points: int | None = None) -> np.ndarray:
    """x and y [frame point xy], from the frame on in which points begin."""
    scivid(
        "predict", video, "--run", dots.folder.path, "--points", points, "--out", out, "--device", "cpu",
        "--batch", "1",
    )  # fmt: skip
    table = pq.read_table(out)
    n_points = n_points or len(set(table["point"].to_pylist()))
    xy = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    return rearrange(xy, "(f q) xy -> f q xy", q=n_points)


def test_a_clip_is_followed_as_it_was_scored(dots: Dots, tmp_path: Path) -> None:
    table, kept = read_predictions(dots.folder, "val")
    store = dots.store("val")
    targets, about = store.targets, store.clip_table.take(np.array(table["clip"]), "source", "record")
    assert targets is not None
    asked, seen = targets.read("tracks"), targets.read("visibility")
    for row, clip in enumerate(table["clip"].to_pylist()):
        source, first = (column[row].as_py() for column in about.columns)
        there = seen[clip, 0]
        points = write_table(tmp_path / "p.csv", source, first, asked[clip, 0, there] * SIZE)
        found = predicted(dots, dots.videos / source, points, tmp_path / f"{clip}.parquet")
        assert len(found) == FRAMES - first
        tracks = as_tracks(torch.from_numpy(kept["tracking"][row][None])).points[0].numpy() * SIZE
        np.testing.assert_allclose(found[:N_FRAMES], tracks[:, there], rtol=1e-4, atol=1e-3)


def test_a_window_begins_where_the_one_before_ended(dots: Dots, tmp_path: Path) -> None:
    """What follows its end is what is said when a file begins there, to the last window."""
    video = dots.videos / "d0.mp4"
    begin = np.stack([path_of(0, point)[0] for point in range(3)])
    whole = predicted(dots, video, write_table(tmp_path / "a.csv", "d0", 0, begin), tmp_path / "a.parquet")
    assert whole.shape == (FRAMES, 3, 2)
    end = write_table(tmp_path / "b.csv", "d0.mp4", N_FRAMES - 1, whole[N_FRAMES - 1])
    later = predicted(dots, video, end, tmp_path / "b.parquet")
    np.testing.assert_allclose(later[1:], whole[N_FRAMES:], rtol=1e-5, atol=1e-4)


def test_a_killed_one_goes_on_with_the_points_that_are_left(
    dots: Dots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.csv").write_text("frame,name,x,y\n0,nose,10,8\n10,tail,20,8\n")
    whole = predicted(dots, dots.videos / "d0.mp4", tmp_path / "p.csv", tmp_path / "a.parquet", n_points=1)
    seen, windows = list[int](), Tracks.windows

    def killed(self: Tracks, watcher: Watcher, asked: Asked) -> Iterator[WindowScores]:
        seen.append(asked.first)
        for n, window in enumerate(windows(self, watcher, asked)):
            if len(seen) == 2 and n == 1:
                raise KeyboardInterrupt
            yield window

    monkeypatch.setattr(Tracks, "windows", killed)
    call = [str(dots.videos / "d0.mp4"), "--run", str(dots.folder.path), "--points", str(tmp_path / "p.csv")]
    out = ["--out", str(tmp_path / "b.parquet"), "--device", "cpu", "--batch", "1"]
    assert CliRunner().invoke(app, ["predict", *call, *out]).exit_code != 0
    assert not (tmp_path / "b.parquet").exists()
    again = predicted(dots, dots.videos / "d0.mp4", tmp_path / "p.csv", tmp_path / "b.parquet", n_points=1)
    assert seen == [0, 10, 10]
    np.testing.assert_array_equal(again, whole)


def test_tables_and_pictures(dots: Dots, tmp_path: Path) -> None:
    """Points that begin in different frames; a table by time; poses; what was written begins again."""
    points = tmp_path / "p.csv"
    rows = ["time,name,x,y", "0.0,nose,10,8", "0.4,tail,20,8", "0,tail,,"]
    points.write_text("\n".join(rows) + "\n")
    out = tmp_path / "t.csv"
    call = ["predict", dots.videos / "d0.mp4", "--run", dots.folder.path, "--device", "cpu", "--points"]
    said = scivid(*call, points, "--out", out, "--smooth", "0.1")
    assert "8 frames with stride 1, a window every 7 frames, begun where the one before ended" in said
    table = pa_csv.read_csv(out)
    assert table.column_names == ["video", "frame", "time", "point", "x", "y", "visible"]
    nose, tail = (table.filter(np.array(table["point"]) == name) for name in ("nose", "tail"))
    assert (nose["frame"].to_pylist(), tail["frame"].to_pylist()) == ([*range(32)], [*range(10, 32)])
    assert (nose["time"][5].as_py(), set(table["visible"].to_pylist()) <= {True, False}) == (0.2, True)
    assert all(0 <= x <= SIZE for x in table["x"].to_pylist())
    summary = pa_csv.read_csv(tmp_path / "t_summary.csv").to_pylist()
    assert [(row["point"], row["first frame"], row["frames"]) for row in summary] == [
        ("nose", 0, 32), ("tail", 10, 22),
    ]  # fmt: skip
    length = np.hypot(np.diff(nose["x"].to_numpy()), np.diff(nose["y"].to_numpy())).sum()
    assert summary[0]["path"] == pytest.approx(length, abs=0.06)
    assert sorted(p.name for p in (tmp_path / "t_pictures").iterdir()) == ["d0.png", "d0_2.png"]
    scivid(*call, dots.videos / "d0DLC_net.csv", "--out", tmp_path / "dlc.csv")
    poses = pa_csv.read_csv(tmp_path / "dlc.csv")
    assert (set(poses["point"].to_pylist()), len(poses)) == ({"p0", "p1", "p2"}, 3 * FRAMES)
    scivid(*call, tmp_path / "dlc.csv", "--out", tmp_path / "again.csv")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["video,frame,name,x,y", "d0.mp4,0,nose,90,8"], "point nose is at x 90, y 8 of .*48 x 48 pixels"),
        (["video,frame,name,x,y", "other.mp4,0,nose,9,8"], "has no point of .*its rows name other videos"),
        (["video,frame,name,z", "d0.mp4,0,nose,9"], "it needs x and y in pixels"),
        (["frame,name,x,y", "0.5,nose,9,8"], "row 1: frame 0.5 is no whole number"),
        (["frame,name,x,y", "40,nose,9,8"], "has points of frame 40, and the video has frames 0 to 31"),
    ],
)
def test_points_that_cannot_be(rows: list[str], message: str, dots: Dots, tmp_path: Path) -> None:
    points = tmp_path / "p.csv"
    points.write_text("\n".join(rows) + "\n")
    said = scivid(
        "predict", dots.videos / "d0.mp4", "--run", dots.folder.path, "--points", points, "--out",
        tmp_path / "t.csv", code=1,
    )  # fmt: skip
    assert re.search(message, " ".join(said.split())), said


def test_a_video_without_points_is_left_out(dots: Dots, tmp_path: Path) -> None:
    points = write_table(tmp_path / "p.csv", "d0.mp4", 0, np.array([[9.0, 8.0]]))
    videos, out = [dots.videos / "d0.mp4", dots.videos / "d1.mp4"], tmp_path / "t.csv"
    said = scivid("predict", *videos, "--run", dots.folder.path, "--points", points, "--out", out, code=1)
    assert "d1.mp4: " in said and "has no point of it" in " ".join(said.split())
    assert set(pa_csv.read_csv(out)["video"].to_pylist()) == {str(videos[0])}


def test_what_is_for_others_is_refused(dots: Dots, tmp_path: Path) -> None:
    call = ["predict", dots.videos / "d0.mp4", "--run", dots.folder.path, "--out"]
    points = ["--points", write_table(tmp_path / "p.csv", "d0.mp4", 0, np.array([[9.0, 8.0]]))]
    said = " ".join(scivid(*call, tmp_path / "t.boris", *points, code=2).split())
    assert "the run predicts tracked points: name a file that ends in one of .parquet, .csv" in said
    assert "--points FILE" in scivid(*call, tmp_path / "t.csv", code=2)
    assert "leave it out" in scivid(*call, tmp_path / "t.csv", *points, "--every", "2", code=2)
