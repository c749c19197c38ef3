from pathlib import Path
from typing import Any

from featcache.data.labels import Choices, read_labels

TABLE = "video,start,stop,label\na.mp4,0.5,{stop},run\n"


def test_a_project_is_preferred_to_its_tables_and_they_are_compared(read: Any, of: Any) -> None:
    found = read("boris", observations=("pair_obs1",))
    # The project says that groom ends at 10.08 s, past the video's end; the table cuts it at 10.04.
    (groomed,) = [bout for bout in of(found, "arena_06.mp4").bouts if bout.subject == "resident"][1:]
    assert float(groomed.seconds[1]) == 10.08
    assert {labels.file.name for labels in found.videos} == {"boris_mice.boris"}
    texts = {remark.text for remark in found.remarks if remark.kind == "disagree"}
    lacking = [text for text in texts if text.startswith("has no row of")]
    assert any("rig/arena_04.mp4" in text for text in lacking)
    # What the plugin made of the observation with a time offset: nothing but "other".
    feral = [text for text in texts if text.startswith("feral_from_boris.json")]
    assert any("rest in 130 frames" in text and "walk in 38 frames" in text for text in feral)


def write(folder: Path, **stops: str) -> list[Path]:
    paths = [folder / f"{name}.csv" for name in stops]
    for path, stop in zip(paths, stops.values(), strict=True):
        path.write_text(TABLE.format(stop=stop))
    return paths


def test_files_of_one_rank_that_say_the_same_are_one(tmp_path: Path, videos: Any) -> None:
    found = read_labels(write(tmp_path, x="2.5", y="2.5"), videos(a=(10, 100)), Choices())
    assert len(found.videos) == 1
    assert not [remark for remark in found.remarks if remark.weight != "say"]


def test_files_of_one_rank_that_differ_are_asked_and_none_counts(tmp_path: Path, videos: Any) -> None:
    found = read_labels(write(tmp_path, x="2.5", y="3.5"), videos(a=(10, 100)), Choices())
    (asked,) = [remark for remark in found.remarks if remark.weight == "ask"]
    assert asked.kind == "labelled_twice"
    assert "run in 10 frames" in asked.text
    assert found.videos == ()


def test_points_that_differ_are_a_difference(tmp_path: Path, videos: Any) -> None:
    found = read_labels(write(tmp_path, x="0.5", y="0.52"), videos(a=(10, 100)), Choices())
    assert len(found.videos) == 1
    found = read_labels(write(tmp_path, x="0.5", y="0.7"), videos(a=(10, 100)), Choices())
    (asked,) = [remark for remark in found.remarks if remark.weight == "ask"]
    assert "run in 1 frames" in asked.text


def test_a_video_in_two_splits_stays_where_it_is_learned(read: Any, of: Any) -> None:
    found = read("vjepa/val.csv", "vjepa/train.csv")
    assert of(found, "p2.mp4").split == "train"
    assert sorted(found.classes) == ["0", "1", "2", "4"]
