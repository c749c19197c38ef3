"""A seeded share of `make faults`: kinds of files that hold, kills, and jobs at once."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOLD = ("token shard of frames", "scale shard", "weights, npz")
"""Kinds (or parts of their names) of which a share is tried here; `make faults` tries all of them."""


@pytest.mark.slow
def test_a_share_of_the_faults_finds_none() -> None:
    kinds = [word for name in HOLD for word in ("--kind", name)]
    command = [
        sys.executable,
        "-m",
        "tests.faults.run",
        "--only",
        "mutations",
        "--seed",
        "1",
        "--tries",
        "60",
    ]
    done = subprocess.run([*command, *kinds], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "**all**" in done.stdout
