"""A curve is cut back to its checkpoint; damage is named."""

from pathlib import Path

import pytest

from featcache.errors import StoreError
from readouts.results.curve import Curve, read_curve


def test_a_curve_is_cut_back_to_the_step_that_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    Curve(path, 0).add([{"step": step, "loss": 1.0 / (step + 1)} for step in (0, 100, 200)])
    resumed = Curve(path, upto_step=100)
    resumed.add([{"step": 150}])
    assert [row["step"] for row in read_curve(path)] == [0, 100, 150]


def test_a_damaged_curve_is_named(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text('{"step": 0}\n{"st')
    with pytest.raises(StoreError, match=r"h\.jsonl cannot be read as a curve"):
        read_curve(tmp_path / "h.jsonl")
