"""`scivid data init --check` of values and points that files measure."""

import csv
from pathlib import Path

import pytest

from featcache.data.labels import Choices
from featcache.data.own_videos import Wishes, check, set_up
from featcache.errors import DataError
from featcache.manifest import load_manifest
from tests.own_measurements import write_dots, write_points
from tests.own_recordings import write_recording

WISHES = Wishes(n_frames=4, stride=1, every=4, name="mice")


def write_values(path: Path, speeds: dict[str, list[float]]) -> None:
    rows = [(video, k, speed) for video, of_video in speeds.items() for k, speed in enumerate(of_video)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("video", "frame", "speed (mm/s)"), *rows])


@pytest.fixture
def speeds(tmp_path: Path) -> dict[str, list[float]]:
    """Those of two videos of 25 frames, of which the folder has a table."""
    found = {name: [float(k + n) for k in range(25)] for n, name in enumerate(("a.mp4", "b.mp4"))}
    for name in found:
        write_recording(tmp_path / name, [], 25)
    write_values(tmp_path / "speed.csv", found)
    return found


def test_what_follows_from_its_files_is_passed_in_silence(
    tmp_path: Path, speeds: dict[str, list[float]]
) -> None:
    set_up(tmp_path, [], Choices(value_unit="mm/s"), WISHES)
    assert load_manifest(tmp_path / "scivid.yaml").dataset("mice").labels == {
        "files": ["."],
        "value_unit": "mm/s",
    }
    assert check(tmp_path)[1] == []


def test_a_value_that_was_changed_and_one_that_is_unknown_now_are_said(
    tmp_path: Path, speeds: dict[str, list[float]]
) -> None:
    set_up(tmp_path, [tmp_path / "speed.csv"], Choices(), WISHES)
    write_values(tmp_path / "speed.csv", {**speeds, "a.mp4": [*speeds["a.mp4"][:7], 70.5, *range(8, 25)]})
    (line,) = check(tmp_path)[1]
    assert line.startswith(
        "mice: of 1 of 2 videos the files say something else: a.mp4 (frame 7: speed 7.0, by the files 70.5). "
        "Where the files are right, move"
    )
    write_values(tmp_path / "speed.csv", {**speeds, "b.mp4": speeds["b.mp4"][:9]})
    (line,) = check(tmp_path)[1]
    assert "b.mp4 (frame 9: speed 10.0, by the files nan)" in line


def test_videos_that_are_measured_no_more_or_now_too_are_said(
    tmp_path: Path, speeds: dict[str, list[float]]
) -> None:
    set_up(tmp_path, [], Choices(), WISHES)
    write_recording(tmp_path / "c.mp4", [], 25)
    write_values(tmp_path / "speed.csv", {"a.mp4": speeds["a.mp4"], "c.mp4": speeds["b.mp4"]})
    gone, new = check(tmp_path)[1]
    assert gone.startswith("mice: no file measures anything of b.mp4 any more.")
    assert new.startswith("mice: measured too, and in no clip list: c.mp4.")


def test_a_video_of_which_nothing_is_known_is_none_that_came_later(
    tmp_path: Path, speeds: dict[str, list[float]]
) -> None:
    write_recording(tmp_path / "c.mp4", [], 25)
    write_values(tmp_path / "speed.csv", {**speeds, "c.mp4": [float("nan")] * 25})
    set_up(tmp_path, [], Choices(), WISHES)
    assert check(tmp_path)[1] == []


def test_files_that_are_gone_or_damaged_are_said(tmp_path: Path, speeds: dict[str, list[float]]) -> None:
    set_up(tmp_path, [tmp_path / "speed.csv"], Choices(), WISHES)
    (tmp_path / "speed.csv").write_text("video,frame,speed\na.mp4,nowhere,1\n")
    line, gone = check(tmp_path)[1]
    assert line.startswith("refuse: speed.csv, row 2: ")
    assert "no file measures anything of a.mp4, b.mp4 any more" in gone
    (tmp_path / "speed.csv").write_text("video,frame,speed,weight\na.mp4,1,1,2\n")
    (line,) = check(tmp_path)[1]
    assert line.startswith("mice: what is known of frames was not compared with its files: ")
    (tmp_path / "speed.csv").unlink()
    (line,) = check(tmp_path)[1]
    assert "speed.csv measures nothing any more: nothing was compared." in line


def test_arrays_that_are_gone_are_still_refused(tmp_path: Path, speeds: dict[str, list[float]]) -> None:
    set_up(tmp_path, [], Choices(), WISHES)
    next((tmp_path / "frame_values").rglob("a.mp4.speed.npy")).unlink()
    with pytest.raises(DataError, match="is not there, which the manifest says"):
        check(tmp_path)


def test_points_that_were_tracked_anew_are_said(tmp_path: Path) -> None:
    folder = write_dots(tmp_path / "dots")
    write_points(folder, "dlc.csv")
    set_up(folder, [], Choices(), Wishes(n_frames=8, stride=1, name="dots"))
    assert check(folder)[1] == []
    table = folder / "d1DLC_net.csv"
    table.write_text(table.read_text().replace("\n5,", "\n5,4", 1))
    (line,) = check(folder)[1]
    assert line.startswith("dots: of 1 of 4 videos the files say something else: d1.mp4 (frame 5: tracks ")
