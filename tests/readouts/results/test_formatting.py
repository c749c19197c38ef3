"""Numbers as tables have them: digits, spreads, brackets, published values."""

from collections.abc import Callable
from typing import Any

from readouts.results.configurations import configurations
from readouts.results.formatting import (
    counted,
    format_interval,
    format_mean,
    format_published,
    format_score,
    format_tuned,
    metric_title,
)
from readouts.results.significance.bootstrap import Interval

MakeRow = Callable[..., dict[str, Any]]


def test_digits() -> None:
    assert [format_score(value) for value in (None, 0.12345, -9.9996, 12.34)] == [
        "",
        "0.123",
        "-10.000",
        "12.3",
    ]
    assert [format_score(3.2034, like=14.0), format_score(12.34, like=9.5)] == ["3.2", "12.340"]


def test_mean_and_deviation_have_the_same_digits(make_row: MakeRow) -> None:
    storms = [make_row(run=str(i), seed=i, val=val) for i, val in enumerate((12.0, 16.0))]
    assert format_mean(configurations(storms)[0], "val") == "14.0 ± 2.8"


def test_a_published_number_is_printed_as_published() -> None:
    published = {4.23: "4.23", 11.71: "11.71", 10.0: "10.0", 601.0: "601", 0.28: "0.280", 0.095: "0.095"}
    assert {value: format_published(value) for value in published} == published


def test_words() -> None:
    assert [counted(n, "seed") for n in (0, 1, 1200)] == ["0 seeds", "1 seed", "1,200 seeds"]
    assert [metric_title(name) for name in ("pressure/rmse", "my_own")] == ["RMSE (hPa)", "my_own"]


def test_brackets() -> None:
    interval = Interval(low=9.0, high=13.0, level=0.95, clusters="")
    assert (format_interval(None, 1.0), format_interval(interval, 11.0)) == ("", "[9.0, 13.0]")


def test_what_was_tuned(make_row: MakeRow) -> None:
    rows = [make_row(), *(make_row(tuned="partial", tuned_blocks=n) for n in (1, 2)), make_row(tuned="whole")]
    assert [format_tuned(row) for row in rows] == [
        "", "1 upper block tuned", "2 upper blocks tuned", "all of it tuned",
    ]  # fmt: skip
