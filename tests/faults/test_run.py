"""Seeded shares of `make faults`: files damaged, one command killed, its calls failing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def faults(*words: str) -> None:
    """Runs a share, which has to find nothing."""
    command = [sys.executable, "-m", "tests.faults.run", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_damaged_files_are_refused_said_or_made_anew() -> None:
    kinds = ("store header", "shard", "clip table", "targets", "weights, npz", "index cache", "frame keys")
    faults("--only", "mutations", "--tries", "30", *(word for kind in kinds for word in ("--kind", kind)))


@pytest.mark.slow
def test_an_extraction_survives_kills_and_failures() -> None:
    faults("--only", "kills,failures", "--command", "extract, int8", "--kills", "3", "--failures", "6")


@pytest.mark.slow
def test_an_array_over_the_parts_of_a_split_survives_kills() -> None:
    faults("--only", "arrays", "--arrays", "1", "--tasks", "3")
