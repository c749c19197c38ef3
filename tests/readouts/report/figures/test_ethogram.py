"""Strips of scores with bouts below them: dark where the score is high, black where the bout is."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from readouts.report.figures.ethogram import ethogram, value_lines


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)


def test_it_is_dark_where_the_score_is_high() -> None:
    scores = np.zeros((100, 1))
    scores[50:] = 1
    shown = pixels(ethogram(scores, [[(50.0, 50.0)]], ["dig"], 100.0, title="a.mp4"))
    half = shown.shape[1] // 2
    left, right = (part.sum(axis=2) for part in (shown[:, : half - 100], shown[:, half + 50 : half + 300]))
    assert (right < 300).mean() > 5 * (left < 300).mean()


@pytest.mark.parametrize(("seconds", "label"), [(30.0, "s"), (600.0, "m"), (36_000.0, "h")])
def test_any_length_is_drawn(seconds: float, label: str) -> None:
    scores = np.random.default_rng(0).random((10, 3))
    assert ethogram(
        scores, [[], [(0.0, 3.0)], []], ["a", "a long name of a class", "c"], seconds, title=label
    )
    assert value_lines(scores, ["+1 h", "+2 h", "+3 h"], seconds, title=label)
