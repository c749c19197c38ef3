from typing import Any

import pytest

from featcache.data.labels.base import NO, UNKNOWN, YES
from featcache.errors import DataError


def test_each_file_is_its_truth_to_the_frame(read: Any, truth: Any, runs: Any, of: Any) -> None:
    found = read("deepethogram")
    for video, expected in truth("deepethogram")["videos"].items():
        if video != "mouse_c.mp4":
            # Rows of zeros are read as background, as DeepEthogram reads them when it trains.
            rle = [["background" if text == "(all 0)" else text, n] for text, n in expected["per_frame_rle"]]
            assert runs(of(found, video)) == rle, video


def test_rows_that_nobody_looked_at_are_unknown_and_never_negative(read: Any, of: Any, kinds: Any) -> None:
    found = read("deepethogram")
    states = of(found, "mouse_b.mp4").states(found.classes)
    assert (states[:, 120:] == UNKNOWN).all()
    assert not (states[:, :120] == UNKNOWN).any()
    assert {"unlabelled", "all_zero", "rare"} <= kinds(found)


def test_two_rows_too_few_are_refused_and_nothing_of_the_video_is_known(read: Any, of: Any) -> None:
    found = read("deepethogram")
    (refused,) = [remark for remark in found.remarks if remark.weight == "refuse"]
    assert (refused.kind, refused.file) == ("row_count", "mouse_c_labels.csv")
    assert "198 rows for 200 frames" in refused.text
    assert not of(found, "mouse_c.mp4").is_labelled


def test_one_unknown_cell_leaves_the_other_classes_known(videos: Any, read_text: Any) -> None:
    (labels,) = read_text("a_labels.csv", ",background,dig,run\n0,0,-1,1\n1,1,0,0\n", videos(a=(1, 2))).videos
    assert labels.states(["background", "dig", "run"]).tolist() == [[NO, YES], [UNKNOWN, NO], [YES, NO]]


@pytest.mark.parametrize("heading", [",dig,run", "dig,run", "frame,dig,run"])
def test_a_column_of_row_numbers_is_no_class(heading: str, videos: Any, read_text: Any) -> None:
    rows = ["1,0", "0,1", "0,0"]
    if not heading.startswith("dig"):
        rows = [f"{n},{row}" for n, row in enumerate(rows)]
    found = read_text("a_labels.csv", "\n".join([heading, *rows, ""]), videos(a=(1, 3)))
    assert found.classes == ("background", "dig", "run")
    assert [(bout.label, bout.first) for bout in found.videos[0].bouts] == [
        ("dig", 0), ("run", 1), ("background", 2)
    ]  # fmt: skip


def test_a_cell_of_another_value_is_refused_with_its_row(videos: Any, read_text: Any) -> None:
    found = read_text("a_labels.csv", ",dig\n0,1\n1,0\n2,1\n3,0\n4,2\n", videos(a=(1, 5)))
    assert [(r.kind, r.where) for r in found.remarks if r.weight == "refuse"] == [("bad_value", "row 6")]


def test_an_empty_file_is_one_message(videos: Any, tmp_path: Any) -> None:
    from featcache.data.labels.base import Choices
    from featcache.data.labels.formats import deepethogram

    path = tmp_path / "a_labels.csv"
    path.write_text(",background,dig\n")
    with pytest.raises(DataError, match="no row below its heading"):
        deepethogram.read(path, videos(a=(1, 1)), Choices())
