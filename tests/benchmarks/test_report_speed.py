"""Both tables are made, at a small size."""

import pytest

from tests.benchmarks.report_speed import main


def test_it_runs_on_few_clips_and_rows(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--clips", "400", "--rows", "12"])
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if line.startswith(("| 19 videos", "| 400 clips", "| 12 |"))]
    assert len(shown) == 3
