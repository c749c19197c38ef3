from pathlib import Path

import pytest

from featcache.data.labels import Choices
from featcache.data.own_videos import Wishes, check, set_up
from featcache.errors import CallError
from featcache.manifest import load_manifest
from tests.own_recordings import write_recording

BOUTS = "video,start,stop,label,subject\n"
ROWS = "a.mp4,0.0,1.0,run,m1\na.mp4,1.0,2.0,sit,m1\na.mp4,0.0,2.0,sit,m2\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A video of 25 frames in 2 seconds, with bouts of two animals."""
    write_recording(tmp_path / "a.mp4", [], 25)
    (tmp_path / "bouts.csv").write_text(BOUTS + ROWS)
    return tmp_path


WISHES = Wishes(n_frames=4, stride=1, every=4, name="mice", subject="m1")


def test_lists_that_follow_from_their_files_are_passed_in_silence(folder: Path) -> None:
    set_up(folder, [], Choices(unclosed="end", modifiers=True), WISHES)
    labels = load_manifest(folder / "scivid.yaml").dataset("mice").labels
    assert labels == {"files": ["."], "subject": "m1", "modifiers": True, "unclosed": "end"}
    assert not [line for line in check(folder)[1] if "follow" in line]


def test_a_bout_that_was_moved_since_and_a_row_that_was_changed_are_said(folder: Path) -> None:
    set_up(folder, [folder / "bouts.csv"], Choices(), WISHES)
    (folder / "bouts.csv").write_text(BOUTS + ROWS.replace("1.0", "0.5") + "a.mp4,1.9,2.0,hop,m1\n")
    listed = folder / "clip_lists" / "train.csv"
    # One clip of one's own near the end, one past it.
    listed.write_text(listed.read_text() + "a.mp4,23,sit\na.mp4,400,sit\n")
    _, said = check(folder)
    (line,) = [line for line in said if "follow" in line]
    assert "train: labels of 2 of 8 clips do not follow" in line
    assert "row 4 (a.mp4/8: run, by the files sit), row 9 (a.mp4/400: sit, by the files unknown)" in line
    assert "mice: label files have 'hop' too, which is no class here." in said


def test_files_that_are_gone_and_rows_that_are_refused_now_are_said(folder: Path) -> None:
    set_up(folder, [folder / "bouts.csv"], Choices(), WISHES)
    (folder / "bouts.csv").write_text(BOUTS + ROWS + "a.mp4,2.0,1.0,run,m1\n")
    assert any(line.startswith("refuse: bouts.csv, row 5") for line in check(folder)[1])
    (folder / "bouts.csv").unlink()
    (line,) = [line for line in check(folder)[1] if "not compared" in line]
    assert "there is no" in line


def test_videos_that_are_new_or_damaged_since_are_said(folder: Path) -> None:
    set_up(folder, [], Choices(), WISHES)
    assert not [line for line in check(folder)[1] if "list" in line]
    write_recording(folder / "b.mp4", [], 25)
    assert any("mice: in no clip list: b.mp4. Where label files tell" in line for line in check(folder)[1])
    video = folder / "b.mp4"
    video.write_bytes(video.read_bytes()[:200])
    assert any(line.startswith("b.mp4 cannot be read: ") for line in check(folder)[1])


@pytest.mark.parametrize("wrong", ["colour: red", "share: half", "files: bouts.csv"])
def test_what_is_not_as_it_was_written_is_refused(folder: Path, wrong: str) -> None:
    made = set_up(folder, [], Choices(), WISHES)
    key = wrong.split(":")[0]
    text = made.manifest.read_text()
    text = text.replace('files: ["."]', wrong) if key == "files" else text.replace('"."]', f'"."], {wrong}')
    made.manifest.write_text(text)
    with pytest.raises(CallError, match=r"datasets\.mice\.labels"):
        check(folder)
