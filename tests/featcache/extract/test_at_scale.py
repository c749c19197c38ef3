"""Workers, a bucket and a slow line in a plan: hand-counted, and files and requests as they then happen."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from featcache import synthetic
from featcache.errors import CallError
from featcache.extract import at_scale
from featcache.extract.at_scale import Site, epoch_requests, last_passes, remarks
from featcache.extract.plan import Plan, Speed, SplitPlan, Training
from featcache.extract.run import Machine, extract_all
from tests.featcache.extract.test_plan import jobs, planned

# 10^8 clips of 1,568 tokens of 1,792 numbers in shards of 32: 500 TB as the issue has it, and one beside it.
LARGE = Plan(
    task="t", backbone="b", layers=("1",), dtype="float16", clip_bytes=5_619_712, arrays_a_layer=1,
    weight_bytes=0, precision="bfloat16", host_bytes=0, seconds_a_clip=0.036, speed=Speed(),
    training=Training(steps=40_000, batch=32, steps_per_second=10.0),
    splits=(
        SplitPlan(
            role="train", n_views=1, n_clips=10**8, feature_bytes=1, target_bytes=1, other_bytes=1,
            n_files=3_125_000, n_shards=3_125_000, n_others=107, passes=10**8, shard_passes=32,
        ),
        SplitPlan(
            role="val", n_views=1, n_clips=1000, feature_bytes=1, target_bytes=1, other_bytes=1,
            n_files=32, n_shards=32, n_others=7, passes=1000, shard_passes=32,
        ),
        SplitPlan(role="test", n_views=1, n_clips=None),
    ),
)  # fmt: skip


SOURCES = {"typhoon": "digital_typhoon"}
"""Task -> its data set, where that has another name."""


def test_the_worker_with_most_shards_ends_last() -> None:
    train, val, _ = LARGE.splits
    # 3,125 shards each of 32 clips; of val one shard to each of 32 workers.
    assert [last_passes(train, 1000), last_passes(val, 1000)] == [100_000, 32]
    assert [last_passes(train, 1), last_passes(val, 1), last_passes(val, 3)] == [10**8, 1000, 352]
    said = "\n".join(remarks(LARGE, Site(workers=1000)))
    # (100,000 + 32) clips of 36 ms are 1.0003 hours, (10^8 + 1000) / 1000 as well.
    assert said.startswith(
        "1,000 workers: 1.0 hours until the last ends, who has 3,125 of 3,125,000 shards of train; "
        "1.0 if all had as much. A shard takes 1.15 seconds"
    )
    assert "only 32 workers" in "\n".join(
        remarks(replace(LARGE, splits=LARGE.splits[1:]), Site(workers=1000))
    )
    assert remarks(LARGE, Site()) == []


def test_objects_and_requests_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    train, val, _ = LARGE.splits
    # Of two million shards the end is read again for the next clip; of 32 it is read once.
    assert epoch_requests(LARGE, train) == 2 * 10**8
    assert epoch_requests(LARGE, val) == 1000 + 32
    assert epoch_requests(replace(LARGE, arrays_a_layer=2), val) == 2 * (1000 + 32)
    assert epoch_requests(LARGE, replace(val, chunks_a_clip=8)) == 8000 + 32
    monkeypatch.setattr(at_scale, "MOST_TAILS", 31)
    assert epoch_requests(LARGE, val) == 2000
    said = "\n".join(remarks(LARGE, Site(bucket=True)))
    assert "3,125,146 objects, a PUT each (3,125,032 shards, 114 of clips" in said
    assert "an epoch of train takes 200,000,000 ranged GETs and 561.97 TB out of the bucket" in said
    assert "a readout of 1,280,000 draws 2,560,000 and 7.19 TB; with a local copy" in said
    assert "7.19 TB at the most, once" in said


def test_what_a_read_rate_makes_of_a_step() -> None:
    # 32 clips of 5.62 MB are 180 MB.
    (fast,) = remarks(LARGE, Site(read_mb_s=2000.0))
    assert "take 89.9 ms to read, while the step before takes 100.0: reading keeps up." in fast
    (slow,) = remarks(LARGE, Site(read_mb_s=450.0))
    assert (
        "take 399.6 ms to read, the step itself 100.0: 40,000 steps take 4.4 hours, 4.0 times as long" in slow
    )
    for wrong in ({"workers": 0}, {"read_mb_s": 0.0}):
        with pytest.raises(CallError, match="both must be above 0"):
            Site(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("task", "options"), [("calms21", {"dtype": "int8"}), ("typhoon", {})])
def test_as_many_files_are_written_as_objects_were_planned(
    tmp_path: Path, task: str, options: dict[str, object]
) -> None:
    data = tmp_path / "data"
    synthetic.generate(SOURCES.get(task, task), data, profile="tiny", seed=0)
    some = jobs(task, "resize", **options)  # type: ignore[arg-type]
    plan = planned(some, data)
    machine = Machine(device=torch.device("cpu"), batch=4)
    stores = extract_all(some, machine, data_dir=data, cache_dir=tmp_path / "cache")
    for split, store in zip(plan.splits, stores, strict=True):
        files = [path for path in store.path.parent.rglob("*") if path.is_file() and path.name[0] != "."]
        assert split.n_files is not None
        assert split.n_others is not None
        assert len(files) == split.n_files + split.n_others
        assert split.n_shards == store.spec.n_shards
