from typing import Any

import pytest

from featcache.errors import DataError

FILES = ("seconds.csv", "frames.csv", "clock.csv")


@pytest.mark.parametrize("file", FILES)
def test_each_table_is_its_truth(file: str, read: Any, truth: Any, runs: Any, of: Any) -> None:
    found, expected = read(f"intervals/{file}"), truth("intervals")["files"][file]
    for video, rows in expected["intervals"].items():
        bouts = of(found, video).bouts
        if file == "frames.csv":
            assert [[b.first, b.stop - 1, b.label] for b in bouts] == rows
        else:
            times = [[*map(float, b.seconds), b.label, b.subject] for b in bouts]
            assert times == [row if len(row) == 4 else [*row, ""] for row in rows]
    for video, rle in expected.get("per_frame_rle", {}).items():
        assert runs(of(found, video)) == rle


def test_what_is_wrong_with_a_row_is_said_or_refused_with_its_row(read: Any, of: Any) -> None:
    found = read("intervals/seconds.csv")
    places = {(remark.kind, remark.where, remark.weight) for remark in found.remarks}
    assert {
        ("zero_length", "row 5", "say"), ("backwards", "row 6", "refuse"), ("past_end", "row 7", "say"),
        ("no_video", "row 8", "say"),
    } <= places  # fmt: skip
    labels = of(found, "s2.mp4")
    # Of a row that goes backwards nothing is known: 4.5 to 5.5 s at 30000/1001.
    assert [(span.first, span.stop, span.label) for span in labels.unknown] == [(135, 166, "walk")]
    assert [(p.label, p.frame) for p in labels.points] == [("rear", 30)]


def test_a_label_of_another_case_is_one_with_the_others(read: Any) -> None:
    (said,) = [remark for remark in read("intervals/clock.csv").remarks if remark.kind == "case"]
    assert "'Fly' is taken as 'fly'" in said.text


def bouts_of(found: Any) -> list[tuple[str, int, int]]:
    return [(b.label, b.first, b.stop) for v in found.videos for b in v.bouts]


@pytest.mark.parametrize(
    "heading",
    ["video,start,stop,label", "File Name,onset (s),offset (s),behavior",
     "file_name,t_start_sec,t_end_sec,event",
     "clip,Begin time,End time,Action"],
)  # fmt: skip
def test_columns_have_many_names(heading: str, videos: Any, read_text: Any) -> None:
    heading = heading.replace("File Name", "filename")
    assert bouts_of(read_text("t.csv", f"{heading}\na.mp4,1.5,2.5,run\n", videos(a=(10, 100)))) == [
        ("run", 15, 25)
    ]


@pytest.mark.parametrize(
    ("heading", "row", "expected"),
    [
        ("video,start_ms,stop_ms,label", "a.mp4,1500,2500,run", (15, 25)),
        ("video,first_frame,last_frame,label", "a.mp4,0,9,run", (0, 10)),
        ("video,start,duration,label", "a.mp4,1.5,1.0,run", (15, 25)),
        ("video,start_frame,duration,label", "a.mp4,0,9,run", (0, 9)),
        ("video;start;stop;label", "a.mp4;1,5;2,5;run", (15, 25)),
        ("video\tstart\tstop\tlabel", "a.mp4\t0:01.5\t0:02.5\trun", (15, 25)),
    ],
)
def test_units_are_found(heading: str, row: str, expected: Any, videos: Any, read_text: Any) -> None:
    assert bouts_of(read_text("t.csv", f"{heading}\n{row}\n", videos(a=(10, 100)))) == [("run", *expected)]


def test_whole_numbers_without_a_unit_are_asked(videos: Any, read_text: Any) -> None:
    text, at_hand = "video,start,stop,label\na.mp4,1,3,run\n", videos(a=(10, 100))
    assert [r.kind for r in read_text("t.csv", text, at_hand).remarks if r.weight == "ask"] == ["unit"]
    assert bouts_of(read_text("t.csv", text, at_hand, unit="seconds")) == [("run", 10, 30)]


def test_frames_whose_last_one_may_be_in_or_out_are_asked(videos: Any, read_text: Any) -> None:
    text, at_hand = "video,start_frame,stop_frame,label\na.mp4,1,3,run\n", videos(a=(10, 100))
    asked = [r for r in read_text("t.csv", text, at_hand).remarks if r.weight == "ask"]
    assert [r.kind for r in asked] == ["last_frame_open"]
    assert "--last-frame" in asked[0].text
    assert bouts_of(read_text("t.csv", text, at_hand, last_included=False)) == [("run", 1, 3)]
    assert bouts_of(read_text("t.csv", text, at_hand, last_included=True, first_frame=1)) == [("run", 0, 3)]


def test_frames_that_are_not_whole_are_refused(videos: Any, read_text: Any) -> None:
    text = "video,first_frame,last_frame,label\na.mp4,0,9.5,run\na.mp4,12,14,run\n"
    found = read_text("t.csv", text, videos(a=(10, 100)))
    assert [(r.kind, r.where) for r in found.remarks if r.weight == "refuse"] == [("no_time", "row 2")]
    assert bouts_of(found) == [("run", 12, 15)]


def test_rows_that_start_where_the_last_ends_leave_it_out(videos: Any, read_text: Any) -> None:
    text = "video,start_frame,stop_frame,label\na.mp4,0,3,run\na.mp4,3,9,sit\n"
    assert bouts_of(read_text("t.csv", text, videos(a=(10, 100)))) == [("run", 0, 3), ("sit", 3, 9)]


def test_rows_without_a_time_or_a_label(videos: Any, read_text: Any) -> None:
    text = "video,start,stop,label\na.mp4,x,2.5,run\na.mp4,1.5,2.5,\n\na.mp4,3.5,4,run\n"
    found = read_text("t.csv", text, videos(a=(10, 100)))
    said = {(r.kind, r.where) for r in found.remarks}
    assert {("no_time", "row 2"), ("empty_label", "row 3"), ("empty_rows", "")} <= said
    assert bouts_of(found) == [("run", 35, 40)]


def test_a_table_that_names_no_video_asks_for_it(videos: Any, read_text: Any) -> None:
    text, at_hand = "start,stop,label\n1.5,2.5,run\n", videos(a=(10, 100))
    with pytest.raises(DataError, match="--video NAME"):
        read_text("t.csv", text, at_hand)
    assert bouts_of(read_text("t.csv", text, at_hand, video="a.mp4")) == [("run", 15, 25)]


def test_bouts_of_two_videos_with_one_name_are_never_mixed(videos: Any, read_text: Any) -> None:
    text = (
        "video,start,stop,label\nday1/cam.mp4,1.0,2.0,dig\nday2/cam.mp4,3.0,4.0,dig\nother.avi,5.5,6.0,dig\n"
        "other.mp4,7.0,8.0,dig\n"
    )
    at_hand = videos(names={"day2/cam.mp4": (10, 100), "other.mp4": (10, 100)})
    found = read_text("t.csv", text, at_hand)
    bouts = {of.video.source: [(b.first, b.stop) for b in of.bouts] for of in found.videos}
    assert bouts == {"day2/cam.mp4": [(30, 40)], "other.mp4": [(70, 80)]}
    assert found.missing == ("day1/cam.mp4", "other.avi")
    assert not [r for r in found.remarks if r.weight != "say"]


def test_one_video_may_be_named_in_several_ways(videos: Any, read_text: Any) -> None:
    names = "D:\\x\\day2\\cam.mp4", "cam", "./cam.MP4"
    rows = (f"{name},{n}.0,{n}.5,dig\n" for n, name in enumerate(names, 1))
    text = "video,start,stop,label\n" + "".join(rows)
    (labels,) = read_text("t.csv", text, videos(names={"day2/cam.mp4": (10, 100)})).videos
    assert [(b.first, b.stop) for b in labels.bouts] == [(10, 15), (20, 25), (30, 35)]


@pytest.mark.parametrize(
    "heading",
    [
        "video,StartTime,EndTime,Label", "video_name,start_sec,end_sec,label_name",
        "video,start (hh:mm:ss),end (hh:mm:ss),trial_type", "file,start_timestamp,stop_timestamp,behavior",
    ],
)  # fmt: skip
def test_headings_as_other_programs_have_them(heading: str, videos: Any, read_text: Any) -> None:
    (labels,) = read_text("t.csv", f"{heading}\na.mp4,0:00:01.5,2.5,dig\n", videos(a=(10, 100))).videos
    assert [(b.label, b.first, b.stop) for b in labels.bouts] == [("dig", 15, 25)]


def test_a_start_and_a_stop_are_of_one_unit(videos: Any, read_text: Any) -> None:
    at_hand = videos(a=(25, 250))
    text = "video,start_frame,start_s,stop_s,stop_frame,label\na.mp4,25,1.0,2.0,50,dig\n"
    (labels,) = read_text("t.csv", text, at_hand, last_included=False).videos
    assert [(b.first, b.stop) for b in labels.bouts] == [(25, 50)]
    text = "video,start_s,stop_frame,duration_s,stop_s,label\na.mp4,1.0,50,9.0,2.0,dig\n"
    (labels,) = read_text("t.csv", text, at_hand).videos
    assert [(b.first, b.stop) for b in labels.bouts] == [(25, 50)]


def test_a_row_that_begins_before_the_video_is_refused(videos: Any, read_text: Any) -> None:
    text = "video,start,stop,label\na.mp4,-1.0,2.5,dig\na.mp4,-0.04,1.0,run\n"
    found = read_text("t.csv", text, videos(a=(25, 250)))
    assert [(r.kind, r.where) for r in found.remarks if r.weight == "refuse"] == [("backwards", "row 2")]
    (labels,) = found.videos
    assert [(b.label, b.first, b.stop) for b in labels.bouts] == [("run", 0, 25)]
    assert [(u.label, u.first, u.stop) for u in labels.unknown] == [("dig", 0, 63)]


@pytest.mark.parametrize("said", ["sep=;\r\n", '"sep=;"\n'])
def test_a_line_in_which_excel_names_the_separator(said: str, videos: Any, read_text: Any) -> None:
    text = said + "video;start;stop;label\r\na.mp4;1,0;2,0;dig, then run\r\n"
    (labels,) = read_text("t.csv", text, videos(a=(10, 100))).videos
    assert [(b.label, b.first, b.stop) for b in labels.bouts] == [("dig, then run", 10, 20)]
