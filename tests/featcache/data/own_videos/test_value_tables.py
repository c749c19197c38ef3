from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from featcache.data.labels import Choices, Videos
from featcache.data.labels.videos import Video
from featcache.data.own_videos.base import Measurements
from featcache.data.own_videos.value_tables import read, recognises
from featcache.errors import DataError

NAN = float("nan")


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Measurements]:
    """Reads a table for videos `a.mp4` and `b.mp4` of 6 frames, 10 a second."""

    def make(text: str | bytes, name: str = "values.csv", **choices: object) -> Measurements:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        videos = [Video(source=f"{stem}.mp4", n_frames=6, rate=Fraction(10)) for stem in "ab"]
        return read([tmp_path / name], Videos(tmp_path, videos), Choices(**choices))

    return make


def series(found: Measurements, video: str = "a.mp4") -> list[float]:
    (one,) = [one for one in found.videos if one.video.source == video]
    (values,) = one.read().values()
    return values.tolist()


@pytest.mark.parametrize(
    ("head", "known"),
    [
        ("video,frame,speed\na.mp4,0,1.5\na.mp4,1,2\n", True),
        ("file_name;weight (g)\na.mp4;21,5\nb.mp4;\n", True),
        ("time,pressure\n0.0,1001\n0.1,1002\n", True),
        ("video,start,stop,label\na.mp4,0,1,run\n", False),
        ("file_name,label\na.mp4,1\n", False),
        ("frame,run,sit\n0,1,0\n1,0,1\n", False),  # labels a frame
        ("scorer,net,net\nbodyparts,nose,nose\ncoords,x,y\n0,1.5,2.5\n", False),
        ("video,note\na.mp4,fine\n", False),
        ("", False),
    ],
)
def test_a_table_of_values_is_known_by_its_columns(head: str, known: bool) -> None:
    assert recognises(Path("t.csv"), head) == known
    assert not recognises(Path("t.json"), head)


def test_empty_cells_and_missing_rows_are_unknown_and_never_zero(table: Callable[..., Measurements]) -> None:
    found = table("video,frame,speed (mm/s)\na.mp4,0,1.5\na.mp4,2,\na.mp4,3,nan\na.mp4,5,0\n")
    assert (found.features, found.unit, found.of_videos) == ({"series": "speed"}, "mm/s", False)
    np.testing.assert_equal(series(found), [1.5, NAN, NAN, NAN, NAN, 0.0])
    assert found.videos[0].known.tolist() == [True, False, False, False, False, True]
    assert any("no value of b.mp4" in line for line in found.said)


def test_times_fall_on_the_frames_that_are_shown_then(table: Callable[..., Measurements]) -> None:
    found = table("video;time_ms;p\na;0;1,5\na;99;2,5\na;300;4\n")
    np.testing.assert_equal(series(found), [2.0, NAN, NAN, 4.0, NAN, NAN])
    assert [remark.kind for remark in found.remarks] == ["table"]


def test_frames_may_be_counted_from_1(table: Callable[..., Measurements]) -> None:
    rows = "".join(f"a.mp4,{frame},{frame}.5\n" for frame in range(1, 7))
    assert series(table(f"video,frame,p\n{rows}")) == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
    assert [remark.kind for remark in table(f"video,frame,p\n{rows}", first_frame=1).remarks] == []
    late = table(f"video,frame,p\n{rows}", first_frame=0)
    assert [(remark.kind, remark.weight) for remark in late.remarks] == [("after_end", "refuse")]


def test_a_file_without_videos_is_of_the_one_that_has_its_name(table: Callable[..., Measurements]) -> None:
    assert series(table("frame,p\n0,7.5\n", name="b.csv"), "b.mp4")[0] == 7.5
    assert series(table("frame,p\n0,7.5\n", video="a.mp4"))[0] == 7.5


def test_what_is_no_number_is_refused_with_its_row(table: Callable[..., Measurements]) -> None:
    rows = "".join(f"a.mp4,{frame},1.5\n" for frame in range(5))
    found = table(f"video,frame,p\n{rows}a.mp4,5,1.5x\n", column="p")
    assert [(remark.kind, remark.where, "'1.5x'" in remark.text) for remark in found.remarks] == [
        ("bad_value", "row 7", True)
    ]
    twice = table(f"video,frame,p\n{rows}a.mp4,4,2\n")
    assert (twice.videos, [remark.kind for remark in twice.remarks]) == ((), ["bad_value"])
    several = table("video,p\na.mp4,1.5\na.mp4,2.5\n")
    assert (several.videos, [remark.kind for remark in several.remarks]) == ((), ["bad_value"])


def test_the_column_is_asked_where_several_hold_numbers(table: Callable[..., Measurements]) -> None:
    text = "video,split,mouse,age,weight [g]\na.mp4,train,m1,3,21.5\nb.mp4,val,m2,4,\n"
    with pytest.raises(DataError, match=r"2 columns of numbers \(age, weight \[g\]\): say which .*--column"):
        table(text)
    with pytest.raises(DataError, match=r"no column 'height': it has video, split"):
        table(text, column="height")
    found = table(text, column="weight")
    assert (found.unit, found.of_videos, series(found)) == ("g", True, [21.5])
    assert [(one.split, one.group, one.known.tolist()) for one in found.videos] == [
        ("train", "m1", [True]), ("val", "m2", [False])
    ]  # fmt: skip
    with pytest.raises(DataError, match="no column of numbers"):
        table("video,p\na.mp4,fast\n")


def test_any_encoding_of_a_spreadsheet(table: Callable[..., Measurements]) -> None:
    text = "video\tframe\tp (°)\na.mp4\t0\t1,5\n"
    for encoding in ("utf-16", "utf-8-sig", "cp1252"):
        found = table(text.encode(encoding))
        assert (series(found)[0], found.unit) == (1.5, "°")
    with pytest.raises(DataError, match="cannot be read"):
        read([Path("/nowhere.csv")], Videos(Path(), []), Choices())


@pytest.mark.parametrize(
    "text",
    [
        'video,frame,w\na.mp4,0,"1,234"\na.mp4,1,"12,345"\n',  # 1.234 or 1234
        "video;frame;w\na.mp4;0;1.234\na.mp4;1;0,5\n",  # points between thousands
    ],
)
def test_a_mark_that_may_be_that_of_thousands_is_refused(text: str, table: Callable[..., object]) -> None:
    with pytest.raises(DataError, match="which mark is decimal"):
        table(text)


def test_commas_between_quotes_are_decimal_where_they_can_be_nothing_else(
    table: Callable[..., Measurements],
) -> None:
    found = table('video,frame,w\na.mp4,0,"1,234"\na.mp4,1,"0,345"\n')
    assert series(found)[:2] == [np.float32(1.234), np.float32(0.345)]


def test_values_of_two_videos_with_one_name_are_never_mixed(table: Callable[..., Measurements]) -> None:
    found = table("video,frame,w\nday1/a.mp4,0,1\nday2/a.mp4,1,2\nb.mp4,0,3\n")
    assert [one.video.source for one in found.videos] == ["b.mp4"]
    assert [remark.kind for remark in found.remarks if remark.weight == "ask"] == ["several_videos"]


def test_a_separator_that_excel_names_clock_times_and_an_index(table: Callable[..., Measurements]) -> None:
    found = table("sep=;\r\nUnnamed: 0;video;time;w\r\n0;a.mp4;00:00:00.1;1,5\r\n1;a.mp4;00:00:00.3;2\r\n")
    values = series(found)
    assert [values[1], values[3]] == [1.5, 2.0]
    assert np.isnan(values).sum() == 4
