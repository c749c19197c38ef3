"""The measurement runs; that what was written reads back is held beside the writer."""

from pathlib import Path

import numpy as np

from tests.benchmarks import writing


def test_both_kinds_of_store_are_measured() -> None:
    claims = writing.measure(small=True)
    assert [claim.what.partition(", ")[2] for claim in claims[:3]] == [
        "float16", "int8, quantised here", "int8, quantised by the model's device",
    ]  # fmt: skip
    assert "two at a time" in claims[3].what


def test_the_floor_writes_every_byte(tmp_path: Path) -> None:
    data = np.arange(100, dtype=np.uint8)
    writing.plain_write(tmp_path / "plain", data)
    assert (tmp_path / "plain").read_bytes() == data.tobytes()
