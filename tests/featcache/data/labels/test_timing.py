from decimal import Decimal
from fractions import Fraction

import pytest

from featcache.data.labels.timing import frame_at, is_whole, parse_number, parse_time, same_rate, shown


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3.25", "3.25"), ("3,25", "3.25"), ("00:00:03,250", "3.25"), ("1:03.5", "63.5"),
        ("01:00:00", "3600"),
        ("9.977000000000000312638803734", "9.977000000000000312638803734"), ("1e1", "10"), (" 5 ", "5"),
        ("-0.5", "-0.5"),
    ],
)  # fmt: skip
def test_times_are_exact(text: str, seconds: str) -> None:
    assert parse_time(text) == Fraction(Decimal(seconds))


@pytest.mark.parametrize("text", ["", "NA", "nan", "inf", "1:2:3:4", "0:61", "1:-5", "1e99", "3.2.1", "x"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert parse_time(text) is None


@pytest.mark.parametrize(
    ("seconds", "rate", "frame"),
    [
        ("0", "25", 0), ("1.999", "25", 50), ("2", "25", 50), ("2.001", "25", 51),
        ("4.004", "30000/1001", 120),
        ("8.5", "30000/1001", 255), ("-1", "25", 0),
        # 5.04 s after another program's arithmetic is frame 126 still, not 127.
        ("5.0400000000001", "25", 126),
    ],
)  # fmt: skip
def test_a_frame_belongs_to_a_bout_from_its_start_up_to_its_stop(seconds: str, rate: str, frame: int) -> None:
    assert frame_at(Fraction(seconds), Fraction(rate)) == frame


def test_rates_are_one_however_many_digits_they_have() -> None:
    assert same_rate(Fraction("29.97"), Fraction(30000, 1001))
    assert not same_rate(Fraction("29.97"), Fraction(30))


def test_numbers_and_how_they_are_shown() -> None:
    assert parse_number(float("nan")) is None
    assert (is_whole(Fraction(2)), is_whole(Fraction(1, 2))) == (True, False)
    assert [shown(Fraction(x)) for x in ("10", "0.5", "30000/1001")] == ["10", "0.5", "29.97"]
