"""The walk of an extraction stays short, and a store's header is looked up once a reason."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("planning_walk.py")


@pytest.fixture(scope="module")
def walks() -> dict[str, dict[str, object]]:
    """Counted in a process of their own: the suite's checks of types are calls too."""
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["walk"]: line for line in lines}


def test_the_job_stays_on_few_stops_until_the_first_pixel(walks: dict[str, dict[str, object]]) -> None:
    # Where every step looked again there were 26 and 18. Of eleven two are the pipeline: it, and its views;
    # one asks whether an older store has clips to be taken over.
    assert 1 <= walks["fresh"]["stays with the job"] <= 11  # type: ignore[operator]
    assert 1 <= walks["finished"]["stays with the job"] <= 6  # type: ignore[operator]
    assert walks["fresh"]["all entries"] > walks["fresh"]["stays with the job"]  # type: ignore[operator]


def test_a_finished_stores_header_is_read_when_it_is_planned_and_when_its_lock_is_held(
    walks: dict[str, dict[str, object]],
) -> None:
    (reads,) = walks["finished"]["reads of zarr.json"].values()  # type: ignore[attr-defined]
    assert reads <= 3  # and once more to see that it is as it would be written
