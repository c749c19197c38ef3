from typing import Any

import pytest

from featcache.errors import DataError

SECONDS, FRAMES = "mars/mouse1_seconds.annot", "mars/mouse2_frames.annot"


@pytest.mark.parametrize("channel", ["Ch1", "Ch2"])
def test_seconds_are_the_truth_also_in_a_row_of_whole_numbers(
    channel: str, read: Any, truth: Any, of: Any
) -> None:
    expected = truth("mars")["files"]["mouse1_seconds.annot"]["channels"][channel]
    bouts = of(read(SECONDS, channel=channel), "mouse1_top.mp4").bouts
    assert sorted([float(b.seconds[0]), float(b.seconds[1]), b.label] for b in bouts) == sorted(expected)
    frames = {(b.label, b.first, b.stop) for b in bouts}
    assert channel == "Ch2" or ("attack", 180, 240) in frames


def test_frames_are_the_truth_to_the_frame(read: Any, truth: Any, runs: Any, of: Any) -> None:
    expected = truth("mars")["files"]["mouse2_frames.annot"]["per_frame_rle"]
    assert runs(of(read(FRAMES), "mouse2_top.mp4")) == expected


def test_what_the_files_do_not_tell_is_said(read: Any, kinds: Any) -> None:
    assert {"channels", "other_ending", "empty_class", "views"} <= kinds(read(SECONDS))
    assert {"counting", "rate", "last_frame", "other_ending", "rare"} <= kinds(read(FRAMES))


def test_frames_from_one_where_the_user_says_so(read: Any, of: Any) -> None:
    bouts = of(read(FRAMES, first_frame=1), "mouse2_top.mp4").bouts
    assert ("attack", 9, 29) in {(b.label, b.first, b.stop) for b in bouts}


def annot(*rows: str, first: int = 1, last: int = 100) -> str:
    heading = ["Bento annotation file", "Movie file(s): a.mp4", "", f"Annotation start frame: {first}"]
    heading += [
        f"Annotation stop frame: {last}",
        "Annotation framerate: 10",
        "",
        "List of channels:",
        "Ch1",
        "",
    ]
    classes = ["List of annotations:", "hit", ""]
    channel = ["Ch1----------", ">hit", "Start\tStop\tDuration", *rows, ""]
    return "\n".join([*heading, *classes, *channel])


def test_a_frame_at_the_very_end_shows_that_frames_count_from_one(videos: Any, read_text: Any) -> None:
    (labels,) = read_text("a.annot", annot("1\t5\t5", "96\t100\t5"), videos(a=(10, 100))).videos
    assert [(b.first, b.stop) for b in labels.bouts] == [(0, 5), (95, 100)]


def test_whole_numbers_that_may_be_either_are_asked(videos: Any, read_text: Any) -> None:
    at_hand = videos(a=(10, 100))
    asked = read_text("a.annot", annot("2\t4\t2"), at_hand)
    assert [r.kind for r in asked.remarks if r.weight == "ask"] == ["unit"]
    assert not asked.videos[0].is_labelled
    (labels,) = read_text("a.annot", annot("2\t4\t2"), at_hand, unit="seconds").videos
    assert [(b.first, b.stop) for b in labels.bouts] == [(20, 40)]


def test_frames_outside_the_annotated_range_are_unknown(videos: Any, read_text: Any) -> None:
    (labels,) = read_text("a.annot", annot("2.5\t4.1\t1.6", first=11, last=80), videos(a=(10, 100))).videos
    assert [(span.first, span.stop) for span in labels.unknown] == [(0, 10), (80, 100)]


def test_a_row_that_is_no_time_is_refused_with_its_line(videos: Any, read_text: Any) -> None:
    found = read_text("a.annot", annot("2.5\t4.1\t1.6", "x\t5\t1"), videos(a=(10, 100)))
    assert [(r.kind, r.where) for r in found.remarks if r.weight == "refuse"] == [("no_time", "line 18")]


def test_a_file_without_a_channel_is_one_message(videos: Any, read_text: Any) -> None:
    with pytest.raises(DataError, match="has no channel"):
        read_text("a.annot", "Bento annotation file\n", videos(a=(10, 100)))


ELDER = (
    "Caltech Behavior Annotator - Annotation File\r\n\r\n"
    "Configuration file:\r\nother o\r\nattack a\r\nmount m\r\n"
    "\r\nS1:\tstart\tend\ttype\r\n-----------------------------\r\n   \t1\t4\tother\r\n"
    "   \t5\t20\tattack\r\n   \t21\t40\tother\r\n"
    "\r\nS2:\tstart\tend\ttype\r\n-----------------------------\r\n   \t1\t40\tmount\r\n"
)


def test_streams_of_the_elder_program_count_from_one_with_the_last_frame(
    videos: Any, read_text: Any, kinds: Any
) -> None:
    found = read_text("a.txt", ELDER, videos(a=(10, 40)))
    (labels,) = found.videos
    assert [(b.label, b.first, b.stop) for b in labels.bouts] == [
        ("other", 0, 4), ("attack", 4, 20), ("other", 20, 40)
    ]  # fmt: skip
    assert (found.classes, found.background) == (("other", "attack", "mount"), "other")
    assert "channels" in kinds(found) and not labels.unknown
    assert not [remark for remark in found.remarks if remark.weight != "say"]
    (labels,) = read_text("a.txt", ELDER, videos(a=(10, 40)), channel="S2").videos
    assert [(b.label, b.first, b.stop) for b in labels.bouts] == [("mount", 0, 40)]


def test_a_stop_of_the_heading_that_is_no_whole_number_is_a_time(videos: Any, read_text: Any) -> None:
    text = annot("Ch1----------", ">dig", "Start Stop Duration", "1.5 2.5 1.0").replace("100\n", "9.5\n", 1)
    (labels,) = read_text("a.annot", text, videos(a=(10, 100))).videos
    assert [(span.first, span.stop) for span in labels.unknown] == [(95, 100)]


def test_what_is_written_ends_as_the_program_needs_it(videos: Any) -> None:
    """Bento reads a class's name one line behind the empty one that ends the rows of the one before."""
    from featcache.data.labels.base import Bout, VideoLabels
    from featcache.data.labels.formats import annot as written

    (video,) = videos(a=(10, 100))
    labels = VideoLabels(video=video, bouts=(Bout(label="dig", first=0, stop=1),))
    text = written.write([labels], ["run", "dig"]).decode()
    assert text.endswith("\n0\t0\t1\n\n\n")
