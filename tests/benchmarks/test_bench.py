"""The harness: ratios by hand, and every measurement runs at a small size."""

from pathlib import Path
from time import sleep

import pytest

from tests.benchmarks import cold, resident, side_by_side, training, weather_step
from tests.benchmarks.bench import MEASUREMENTS, document, table
from tests.benchmarks.side_by_side import Claim, claim, in_turn


def test_rivals_take_turns_and_the_warm_up_is_not_counted() -> None:
    calls: list[str] = []
    times = in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warm_up=1)
    rounds = ["".join(calls[at : at + 2]) for at in range(0, 8, 2)]
    assert set(rounds) == {"ab", "ba"}
    assert [len(seconds) for seconds in times.values()] == [3, 3]


def test_a_quiet_window_is_waited_for_and_a_loud_one_told(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = iter(range(10_000))  # a second of all cores at each look: others are never at rest
    monkeypatch.setattr(side_by_side, "_busy", lambda: float(next(busy)))
    monkeypatch.setattr(side_by_side, "_quiet_only", True)
    monkeypatch.setattr(side_by_side, "WINDOW", 0.0)
    calls: list[str] = []
    rivals = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = in_turn(rivals, rounds=1, warm_up=0)
    assert len(calls) == 2 * side_by_side.TRIES
    assert "2 of 2 windows loud" in claim(times, group="g", what="w", over="a", under="b").detail
    monkeypatch.setattr(side_by_side, "_busy", lambda: 0.0)
    times = in_turn(rivals, rounds=1, warm_up=0)
    assert len(calls) == 2 * side_by_side.TRIES + 2
    assert "loud" not in claim(times, group="g", what="w", over="a", under="b").detail


def test_what_goes_before_a_call_is_done_for_each_and_not_timed() -> None:
    calls: list[str] = []
    rivals = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = in_turn(rivals, rounds=1, warm_up=0, before=lambda: (calls.append("-"), sleep(0.05)))
    assert "".join(calls) in ("-a-b", "-b-a")
    assert times["a"][0] < 0.05


def test_a_claim_is_the_median_of_ratios_of_a_round() -> None:
    times = {"ours": [1.0, 2.0, 10.0], "theirs": [4.0, 6.0, 80.0]}
    found = claim(times, group="g", what="w", over="theirs", under="ours", target=4.5)
    assert (found.ratio, found.low, found.high, found.met) == (4.0, 3.5, 6.0, False)
    assert found.detail == "theirs 6,000.0 ms, ours 2,000.0 ms"


@pytest.mark.parametrize(
    ("target", "at_least", "met"), [(1.0, True, True), (1.0, False, False), (None, True, None)]
)
def test_a_target_is_a_bound_on_one_side(target: float | None, at_least: bool, met: bool | None) -> None:
    found = Claim(group="g", what="w", ratio=2.0, low=1.9, high=2.1, target=target, at_least=at_least)
    assert found.met is met
    row = table([found])
    assert ("NO" in row, "yes" in row) == (met is False, met is True)
    assert document([found])["claims"][0]["met"] is met


def test_every_measurement_is_there() -> None:
    folder = Path(__file__).parent
    assert all((folder / f"{name}.py").is_file() for name in MEASUREMENTS)


@pytest.mark.parametrize("module", [cold, training, resident, weather_step])
def test_it_runs_at_a_small_size(module: object) -> None:
    claims = module.measure(True)
    assert all(found.ratio > 0 for found in claims)
