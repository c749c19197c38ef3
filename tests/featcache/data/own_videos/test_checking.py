import shutil
from pathlib import Path

import pytest

from featcache.data.labels.base import Choices
from featcache.data.own_videos import Wishes, check, set_up
from featcache.errors import CallError, DataError


@pytest.fixture
def folder(own_data: Path, tmp_path: Path) -> Path:
    """Videos of two classes with a manifest."""
    folder = Path(shutil.copytree(own_data / "videofolder_classes", tmp_path / "moves"))
    set_up(folder, [], Choices(), Wishes())
    return folder


def test_it_counts_the_clips_of_the_lists_as_they_are_now(folder: Path) -> None:
    path = folder / "clip_lists" / "test.csv"
    path.write_text(path.read_text() + "test/dig/a1.mp4,8,rear up\n")
    rows, said = check(folder)
    assert [(row["class"], row["clips train"], row["clips test"]) for row in rows] == [
        ("dig", 2, 1), ("rear up", 2, 2), ("sleep", 1, 0), ("(none of them)", 0, 0)
    ]  # fmt: skip
    assert "moves: no clip of 'sleep' in test." in said


def test_a_video_in_two_splits_and_a_wrong_row_are_refused_together(folder: Path) -> None:
    (folder / "clip_lists" / "test.csv").write_text("video,first_frame,labels\ntrain/dig/a2.mp4,0,dig\n")
    with pytest.raises(DataError, match=r"train/dig/a2\.mp4 stands in train and test"):
        check(folder)
    (folder / "clip_lists" / "test.csv").write_text("video,first_frame,labels\ntrain/dig/a2.mp4,0,digs\n")
    with pytest.raises(DataError, match=r"row 2: no class is called 'digs'"):
        check(folder)


def test_a_manifest_that_is_wrong_or_missing_is_one_message(folder: Path) -> None:
    (folder / "scivid.yaml").write_text("datasets: []")
    with pytest.raises(CallError, match=r"scivid\.yaml"):
        check(folder)
    (folder / "scivid.yaml").unlink()
    with pytest.raises(CallError, match="cannot be read"):
        check(folder)
