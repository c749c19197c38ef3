"""What a log file and a terminal get to see."""

from io import StringIO

import pytest
from rich.console import Console

from featcache.system import console as progress
from featcache.system.console import reporter


def test_a_log_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    out = StringIO()
    with reporter(Console(file=out, width=100)) as report:
        for second in range(41):
            now[0] = float(second)
            report("extracting val", 2 * second, 100)
    # One line each time more than 15 seconds have gone by; 2 clips a second.
    assert out.getvalue().splitlines() == [
        "extracting val: 32 of 100, 2.0/s, 34 s left",
        "extracting val: 64 of 100, 2.0/s, 18 s left",
    ]


def test_work_that_is_done_at_the_first_word_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    out = StringIO()
    with reporter(Console(file=out, width=100)) as report:
        now[0] = 16.0
        report("scoring val", 2, 2)
    assert out.getvalue() == "scoring val: 2 of 2\n"


def test_a_terminal_gets_a_bar() -> None:
    out = StringIO()
    with reporter(Console(file=out, width=100, force_terminal=True)) as report:
        report.of("checking")(3, 4)
    assert "checking" in out.getvalue()
    assert "3/4" in out.getvalue()
