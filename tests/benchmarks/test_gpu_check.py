"""The check for a GPU: all of it runs on a CPU, failures and shares of time are kept, tables by hand."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.benchmarks.gpu_check.check import Check
from tests.benchmarks.gpu_check.tables import markdown
from tests.benchmarks.side_by_side import Claim

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "tests/benchmarks/gpu_check")]


@pytest.mark.slow
def test_all_of_it_runs_in_small_sizes_from_anywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--cpu-smoke", "--out", "found"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "found/gpu.json").read_text())
    assert not [name for of in found["steps"].values() for name in of if "FAILED" in name]
    # Right or wrong does not depend on the size, and what is fast does.
    met = {one["what"]: one["met"] for one in found["ratios"] if "same" in one["what"]}
    assert len(met) >= 7 and all(met.values()), met
    table = (tmp_path / "found/table.md").read_text()
    for wanted in ("training from the store over from memory", "heads over one", "textbook"):
        assert wanted in table
    for step in ("machine", "golden", "extracting", "steps", "training", "kernels", "forward"):
        assert f"## {step}\n" in table


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which the check would take")
def test_without_a_gpu_it_says_how_to_rehearse() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True)
    assert done.returncode == 2 and "torch sees no GPU here" in done.stderr and "--cpu-smoke" in done.stderr
    done = subprocess.run([*COMMAND, "--only", "machin"], capture_output=True, text=True)
    assert done.returncode == 2 and "no step is called machin" in done.stderr


@pytest.fixture
def check(tmp_path: Path) -> Check:
    return Check(device=torch.device("cpu"), small=False, out=tmp_path, budget=100)


def test_a_failure_is_kept_and_the_rest_goes_on(check: Check) -> None:
    def work(check: Check) -> None:
        with check.guarded("one"):
            raise ValueError("why")
        check.note("two", 2)
        check.compare("three", 0.5, target=1.0)

    check.run("step", work, share=10)
    found = json.loads((check.out / "gpu.json").read_text())
    assert found["steps"]["step"]["FAILED one"]["problem"] == "ValueError: why"
    assert found["steps"]["step"]["two"] == 2
    assert found["ratios"] == [{"what": "step: three", "ratio": 0.5, "target": 1.0, "met": False}]
    assert check.failures == ["step: FAILED one"]


def test_what_a_step_leaves_of_its_time_is_the_next_one_s(check: Check) -> None:
    had: list[bool] = []

    def asks(seconds: float) -> Callable[[Check], None]:
        return lambda check: had.append(check.has(seconds))

    check.run("first", asks(15), share=10)
    check.run("second", asks(15), share=10)
    check.run("third", asks(95), share=90)
    assert had == [False, True, True]
    check.run("beyond the whole", asks(101), share=90)
    assert had[-1] is False


def test_tables_have_a_row_a_fact_and_share_their_columns() -> None:
    claim = Claim(group="a", what="b", ratio=2.0, low=2.0, high=2.0, target=1.0)
    text = markdown([claim], {"s": {"n": 3, "x": {"ms": 1, "GB": "p|q"}, "y": {"ms": 2, "GB": 4}}})
    assert "| a | b | 2.00 (2.00 to 2.00) | at least 1: yes |" in text
    assert "## s\n- n: 3\n\n| | ms | GB |\n|---|---|---|\n| x | 1 | p/q |\n| y | 2 | 4 |" in text
