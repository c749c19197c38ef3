"""The picture of a confusion matrix has a square a pair, and its count where it can be read."""

from base64 import b64decode

import numpy as np
import pytest

from readouts.report.figures.confusion import LARGEST, confusion_matrix


@pytest.mark.parametrize("n", [2, LARGEST, LARGEST + 1])
def test_counts_are_written_while_they_can_be_read(n: int) -> None:
    counts = np.full((n, n), 1234)
    drawn = confusion_matrix(counts, [f"class number {i}" for i in range(n)])
    text = b64decode(drawn.partition(",")[2]).decode()
    assert text.count("<!-- 1,234 -->") == (n * n if n <= LARGEST else 0)
    assert text.count("<!-- class number 1 -->") == 2
