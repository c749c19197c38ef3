"""What is a refusal, what was said, and what is a fault of ours."""

from pathlib import Path

import pytest

from tests.faults.damage import Damage, Trial, share
from tests.faults.failures import names_a_part
from tests.faults.kinds.base import Kind, all_kinds
from tests.faults.trial import Ended
from tests.faults.world import World, parts_of

CALM = Ended(how="ok", numbers={"rows": "a"}, output="3 of 50 shards\n")
KIND = Kind(name="table", files=(), read=lambda *_: {}, folders=(), allowed={"swap": "no order"})
FILE = "results/results.parquet/0123.parquet"


@pytest.mark.parametrize(
    ("ended", "name", "anew", "verdict"),
    [
        (Ended(how="refused", message="x/0123.parquet is damaged"), "bit", False, "refused"),
        (Ended(how="refused", message="something is damaged"), "bit", False, "unnamed"),
        (Ended(how="refused", message="there is none"), "missing", False, "refused"),
        (Ended(how="ok", numbers={"rows": "a"}), "bit", False, "harmless"),
        (Ended(how="ok", numbers={"rows": "a"}), "bit", True, "made anew"),
        (Ended(how="ok", numbers={"rows": "b"}), "bit", False, "silent"),
        (Ended(how="ok", numbers={"rows": "b"}, output=CALM.output), "bit", False, "silent"),
        (Ended(how="ok", numbers={}, output="left out: 0123.parquet"), "bit", False, "said"),
        (Ended(how="ok", numbers={"rows": "b"}), "swap", False, "allowed"),
        (Ended(how="traceback", message="TypeError"), "bit", False, "crash"),
        (Ended(how="signal", message="SIGSEGV"), "bit", False, "crash"),
        (Ended(how="hang"), "fifo", False, "hang"),
    ],
)
def test_verdicts(ended: Ended, name: str, anew: bool, verdict: str) -> None:
    judge = Damage(World(Path(), Path()), Path(), workers=1)
    assert judge._verdict(KIND, [FILE], name, ended, CALM, anew=anew)[0] == verdict


def test_a_failure_is_told_by_the_file_or_by_what_it_is_in() -> None:
    path = "/tmp/faults-1/scratch/fail-8/features/typhoon/.targets-0123.zarr.5.ab.partial/series/c.0.0.0"
    assert names_a_part("writing /x/targets-0123.zarr failed", path)
    assert names_a_part("/x/c.0.0.0: Input/output error", path)
    assert names_a_part("/y/features: Input/output error", "/tmp/faults-1/scratch/calm/features")
    assert not names_a_part("Input/output error", path)
    assert not names_a_part("/tmp/faults-1/scratch/fail-8: Input/output error", path)


def test_every_kind_gets_its_share() -> None:
    kinds = list(all_kinds().values())
    trials = share(kinds, 1000, seed=0)
    assert {trial.kind.name for trial in trials} == {kind.name for kind in kinds}
    assert abs(len(trials) - 1000) < len(kinds)


def test_a_trial_is_the_same_each_time() -> None:
    trial = Trial(kind=KIND, seed=3, number=5)
    assert trial.rng.random() == trial.rng.random()


def test_a_part_of_the_world_comes_with_what_it_is_made_from() -> None:
    assert parts_of(["results"]) == ["data", "stores", "results"]
    assert parts_of(["videos", "data/full/*"]) == ["data", "videos"]
