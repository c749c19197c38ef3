from typing import Any

SPLITS = "file_name,label,animal,split\na.mp4,x,m1,train\nb.mp4,y,m1,val\nc.mp4,x,m2,val\n"


def test_an_animal_in_two_splits_and_a_class_that_one_lacks(videos: Any, read_text: Any) -> None:
    found = read_text("metadata.csv", SPLITS, videos(a=(1, 5), b=(1, 6), c=(1, 7)))
    said = {(remark.kind, remark.where) for remark in found.remarks}
    assert {("group_leak", "m1"), ("class_missing", "split train"), ("one_class", "split train")} <= said


def test_copies_of_one_video_in_two_splits_are_found_by_their_content(
    videos: Any, read_text: Any, tmp_path: Any
) -> None:
    at_hand = videos(a=(1, 5), b=(1, 5), c=(1, 5))
    (tmp_path / "a.mp4").write_text("same")
    (tmp_path / "b.mp4").write_text("same")
    (said,) = [r for r in read_text("metadata.csv", SPLITS, at_hand).remarks if r.kind == "leak"]
    assert "a.mp4, b.mp4 have the same content" in said.text


def test_points_subjects_and_videos_without_labels(videos: Any, read_text: Any) -> None:
    text = "video,start,stop,label,subject\na.mp4,1.5,1.5,hop,m1\na.mp4,2.5,3.5,run,m2\n"
    found = read_text("t.csv", text, videos(a=(10, 100), b=(10, 100)))
    said = {remark.kind: remark.text for remark in found.remarks}
    assert "'hop' (1)" in said["points"]
    assert "'m1', 'm2'" in said["subjects"]
    assert "b.mp4" in said["unlisted"]


def test_seconds_of_a_video_without_an_even_rate_are_said(videos: Any, read_text: Any, kinds: Any) -> None:
    from dataclasses import replace

    from featcache.data.labels import Videos

    at_hand = videos(a=(10, 100))
    uneven = Videos(at_hand.folder, [replace(video, n_uneven=40) for video in at_hand])
    assert "uneven" in kinds(read_text("t.csv", "video,start,stop,label\na.mp4,1.5,3,run\n", uneven))
    frames = "video,first_frame,last_frame,label\na.mp4,1,3,run\n"
    assert "uneven" not in kinds(read_text("f.csv", frames, uneven))
