"""Bouts are found when they share more than half with a true one; runs end where clips do not follow."""

import numpy as np
import pytest

from readouts.metrics.bouts import bout_decisions, runs


def flags(text: str) -> np.ndarray:
    return np.array([letter == "x" for letter in text])


def counted(said: str, true: str, begins: str = "") -> tuple[float, float, float]:
    found = bout_decisions(
        flags(said)[:, None], flags(true)[:, None].astype(np.uint8), flags(begins.ljust(len(said), "."))
    )
    return float(found.hits[0]), float(found.false_alarms[0]), float(found.misses[0])


@pytest.mark.parametrize(
    ("said", "true", "wanted"),
    [
        ("..xxxx..", "..xxxx..", (1, 0, 0)),
        ("..xxx...", "..xxxx..", (1, 0, 0)),
        ("..xx....", "..xxxx..", (0, 1, 1)),
        ("..xx.xx.", "..xxxxx.", (0, 2, 1)),
        ("xxxxxxxx", "xx.xxxxx", (1, 0, 1)),
        ("........", "..xx.xx.", (0, 0, 2)),
        ("xx....xx", "........", (0, 2, 0)),
        ("x......x", "x......x", (2, 0, 0)),
    ],
)
def test_more_than_half_is_found(said: str, true: str, wanted: tuple[int, int, int]) -> None:
    assert counted(said, true) == wanted


def test_a_bout_ends_with_its_video() -> None:
    assert counted("xxxx", "xxxx", "x.x.") == (2, 0, 0)
    assert runs(flags("xxxx.x"), flags("x.x...")).tolist() == [[0, 2], [2, 4], [5, 6]]


def test_it_is_what_all_pairs_give() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        said, true = rng.random((60, 1)) < 0.6, rng.random((60, 1)) < 0.6
        begins = rng.random(60) < 0.1
        ours, theirs = runs(said[:, 0], begins), runs(true[:, 0], begins)
        pairs = [(set(range(*a)), set(range(*b))) for a in ours.tolist() for b in theirs.tolist()]
        hits = sum(2 * len(a & b) > len(a | b) for a, b in pairs)
        found = bout_decisions(said, true.astype(np.uint8), begins)
        assert (found.hits[0], found.false_alarms[0], found.misses[0]) == (
            hits, len(ours) - hits, len(theirs) - hits,
        )  # fmt: skip
