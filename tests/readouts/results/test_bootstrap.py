"""Intervals against simulated truth; differences, units and kept evidence against answers known by hand."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import t as student

from featcache.errors import CallError, StoreError
from featcache.fingerprint import fingerprint
from featcache.store.feature_store import FeatureStore
from featcache.store.targets import TargetArray, Targets
from readouts.results.bootstrap import (
    NoIntervalError,
    Units,
    interval,
    load_evidence,
    mean_and_spread,
    paired_difference,
    paired_evidence,
    resamples,
    units_of,
)

MakeTargets = Callable[..., Targets]
Evidence = Mapping[str, np.ndarray]


class Mean:
    """A task whose score is the mean of one number a clip."""

    def score_of(self, evidence: Evidence, weights: np.ndarray) -> float:
        return float(weights @ evidence["values"] / weights.sum())


def videos(*of_clip: int) -> Units:
    return Units(of_clip=np.array(of_clip, np.int64), kind="videos")


def values(*numbers: float) -> dict[str, np.ndarray]:
    return {"values": np.array(numbers, np.float64)}


@dataclass
class Simulated:
    """Clips that share half of their variance with those of their video; the true mean is 0."""

    rng: np.random.Generator

    def draw(self, n_units: int) -> tuple[dict[str, np.ndarray], Units]:
        of_clip = np.repeat(np.arange(n_units), self.rng.integers(4, 10, size=n_units))
        shared = self.rng.normal(size=n_units)[of_clip]
        return values(*(shared + self.rng.normal(size=len(of_clip)))), videos(*of_clip.tolist())


def test_an_interval_covers_as_often_as_it_says_and_one_over_clips_does_not() -> None:
    simulated, n_sets = Simulated(np.random.default_rng(7)), 500
    covered = {"videos": 0, "clips": 0}
    for number in range(n_sets):
        evidence, units = simulated.draw(30)
        single = Units(of_clip=np.arange(len(units.of_clip)), kind="clips")
        for name, chosen in (("videos", units), ("clips", single)):
            covered[name] += 0.0 in interval(Mean(), evidence, chosen, n=150, seed=number)
    assert 0.92 <= covered["videos"] / n_sets <= 0.975
    assert covered["clips"] / n_sets < 0.75


def test_a_difference_that_is_none_is_rarely_called_clear() -> None:
    rng, n_sets = np.random.default_rng(3), 300
    clear = 0
    for number in range(n_sets):
        evidence, units = Simulated(rng).draw(20)
        # The second run misses by as much on average, in a way of its own.
        own = rng.normal(size=20)[units.of_clip]
        other = values(*(evidence["values"] + own))
        clear += paired_difference(Mean(), evidence, other, units, n=150, seed=number).is_clear
    assert 0.025 <= clear / n_sets <= 0.085


def test_the_interval_of_a_mean_is_students() -> None:
    numbers = np.random.default_rng(1).normal(size=25)
    found = interval(Mean(), values(*numbers), videos(*range(25)), n=20_000)
    reach = student.ppf(0.975, 24) * numbers.std(ddof=1) / 5
    assert (found.low, found.high) == pytest.approx(
        (numbers.mean() - reach, numbers.mean() + reach), rel=0.05
    )
    assert found.level == 0.95
    wider = interval(Mean(), values(*numbers), videos(*range(25)), n=200, level=0.99)
    assert wider.high - wider.low > found.high - found.low


def test_a_unit_is_drawn_with_all_of_its_clips() -> None:
    units = videos(7, 7, 2, 7, 2, 30)
    drawn = np.stack(list(resamples(units, 50, seed=0)))
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 0] == drawn[:, 3]).all()
    assert (drawn[:, 2] == drawn[:, 4]).all()
    # As many units as there are, so that many clips only on average.
    assert set((drawn[:, 0] + drawn[:, 2] + drawn[:, 5]).tolist()) == {3.0}
    assert len(np.unique(drawn, axis=0)) > 5
    np.testing.assert_array_equal(drawn, np.stack(list(resamples(units, 50, seed=0))))


def test_a_paired_difference_cancels_what_both_find_hard() -> None:
    # A is ahead by about 1 on every clip: the videos differ by hundreds, the difference does not.
    hard, ahead = [0.0, 0.0, 500.0, 900.0, 900.0, 100.0], [1.01, 1.01, 0.99, 1.0, 1.0, 0.98]
    units = videos(0, 0, 1, 2, 2, 3)
    found = paired_difference(Mean(), values(*np.add(hard, ahead)), values(*hard), units, n=200)
    assert found.value == pytest.approx(5.99 / 6)
    assert (found.interval.low, found.interval.high) == pytest.approx((1.0, 1.0), abs=0.05)
    assert (found.flips, found.p_value, found.n_units, found.is_clear) == (0.0, 0.0, 4, True)
    alone = interval(Mean(), values(*hard), units, n=200)
    assert alone.high - alone.low > 500


def test_the_sign_flips_where_the_other_run_is_ahead() -> None:
    # Three videos, +4 and twice -1: below 0 unless the first is drawn, which it is not in 8 of 27.
    a, b, units = values(4.0, -1.0, -1.0), values(0.0, 0.0, 0.0), videos(0, 1, 2)
    found = paired_difference(Mean(), a, b, units, n=4000)
    assert found.value == pytest.approx(2 / 3)
    assert found.flips == pytest.approx(8 / 27, abs=0.02)
    assert found.p_value == 2 * found.flips
    assert not found.is_clear
    turned = paired_difference(Mean(), b, a, units, n=4000)
    assert (turned.value, turned.flips) == (-found.value, found.flips)


def test_a_score_that_all_resamples_agree_on_has_no_interval() -> None:
    perfect, units = values(1.0, 1.0, 1.0, 1.0), videos(0, 1, 2, 3)
    with pytest.raises(
        NoIntervalError, match="no interval: all resamples agree on 1, so 4 videos do not tell"
    ):
        interval(Mean(), perfect, units, n=50)
    # Ahead by the same everywhere, but for the last bits of sums.
    with pytest.raises(NoIntervalError, match=r"agree on 0\.1, so 4 videos"):
        paired_difference(Mean(), values(0.8, 0.4, 0.2, 0.9), values(0.7, 0.3, 0.1, 0.8), units, n=50)
    one_is_wrong = interval(Mean(), values(1.0, 1.0, 1.0, 0.999), units, n=50)
    assert one_is_wrong.low < one_is_wrong.high


@pytest.mark.parametrize(("of_clip", "seen"), [((4, 4, 4), "one"), ((1, 2, 2), "two")])
def test_one_or_two_units_have_no_interval(of_clip: tuple[int, ...], seen: str) -> None:
    a, b, units = values(1.0, 2.0, 3.0), values(0.0, 0.5, 0.0), videos(*of_clip)
    for compute in (lambda: interval(Mean(), a, units), lambda: paired_difference(Mean(), a, b, units)):
        with pytest.raises(
            NoIntervalError,
            match=f"no interval: 3 clips are of {seen} of the videos, .*: 3 at least, 10 or more",
        ):
            compute()


def test_the_text_says_what_was_drawn_and_how_far_it_can_be_trusted() -> None:
    few = interval(Mean(), values(1.0, 2.0, 3.0), videos(0, 1, 2), n=50)
    assert str(few).endswith("(95 %, 3 videos); only 3 of them, a rough guide")
    many = interval(Mean(), values(*range(12)), videos(*range(12)), n=50, level=0.9)
    assert str(many).endswith("(90 %, 12 videos)")
    clips = Units(of_clip=np.arange(12), kind="clips")
    assert "too narrow where several are of one video" in str(
        interval(Mean(), values(*range(12)), clips, n=50)
    )
    difference = paired_difference(Mean(), values(*range(12)), values(*[0.0] * 12), videos(*range(12)), n=50)
    assert str(difference).startswith("+5.5, ")
    assert str(difference).endswith("sign flips in 0.0% of resamples: differs")


def test_seeds_are_told_by_mean_and_spread() -> None:
    found = mean_and_spread([1.0, 2.0, 6.0])
    assert (found.mean, found.deviation, found.n) == (3.0, pytest.approx(7**0.5), 3)
    assert str(found) == "3 ± 2.6 (n=3)"
    assert str(mean_and_spread([0.5])) == "0.5 (n=1)"
    with pytest.raises(CallError, match="no runs"):
        mean_and_spread([])


def test_mistakes_are_told() -> None:
    one = values(1.0, 2.0)
    with pytest.raises(CallError, match=r"evidence of \[2\] clips with units of 3"):
        interval(Mean(), one, videos(1, 2, 3))
    with pytest.raises(CallError, match=r"evidence of \[2, 3\] clips with units of 2"):
        paired_difference(Mean(), one, values(1.0, 2.0, 3.0), videos(1, 2))
    with pytest.raises(CallError, match="n=1 resamples"):
        interval(Mean(), values(1.0, 2.0, 3.0), videos(1, 2, 3), n=1)
    with pytest.raises(CallError, match=r"level=95\.0 must be between 0 and 1"):
        interval(Mean(), values(1.0, 2.0, 3.0), videos(1, 2, 3), n=5, level=95.0)


def test_units_are_sequences_videos_or_clips(make_targets: MakeTargets) -> None:
    clips = np.array([0, 2, 3])
    for name in ("sequence", "video"):
        found = units_of(make_targets(4, name, **{name: np.array([9, 8, 9, 5])}), clips)
        assert (found.of_clip.tolist(), found.kind, found.n_units) == ([9, 9, 5], f"{name}s", 2)
    found = units_of(make_targets(4, "none", labels=np.eye(4, dtype=np.uint8)), clips)
    assert (found.of_clip.tolist(), found.kind) == ([0, 2, 3], "clips")


def test_initial_times_of_one_forecast_span_are_one_unit(make_targets: MakeTargets) -> None:
    # A step is 12 h, a forecast 24 h: two initial times of a day share fields, the third does not.
    places = np.array([[i, i + 1, i + 2] for i in range(5)], np.int32)
    hours = 480_000 + 12 * np.arange(7, dtype=np.int64)
    steps = TargetArray(shape=places.shape, dtype=places.dtype, axes=("clip", "lead"), blocks=[places])
    times = TargetArray(shape=hours.shape, dtype=hours.dtype, axes=("time",), blocks=[hours])
    targets = make_targets(5, places=steps, time=times)
    found = units_of(targets, np.arange(5))
    assert (found.of_clip.tolist(), found.kind) == ([0, 0, 1, 1, 2], "stretches of 24 h")
    assert units_of(targets, np.array([1, 4, 2])).of_clip.tolist() == [0, 1, 0]


def test_clips_of_own_videos_are_of_their_file(make_split: Callable[..., FeatureStore]) -> None:
    store = make_split("val", np.zeros((5, 1, 1, 1, 1, 2)), np.eye(5, dtype=np.uint8))
    targets, clips = store.targets, np.array([0, 2, 3, 4])
    assert targets is not None
    assert units_of(targets, clips).kind == "clips"
    as_of_reader(store, "video_file", ["cages/b.mp4", "cages/b.mp4", "cages/a.mp4", "cages/b.mp4", "c.mp4"])
    found = units_of(targets, clips)
    assert (found.of_clip.tolist(), found.kind) == ([2, 1, 2, 0], "videos")
    # A record file of another reader is no video, and other targets are of other clips.
    as_of_reader(store, "sequence_example", ["a.bin"] * 5)
    assert units_of(targets, clips).kind == "clips"
    as_of_reader(store, "video_file", ["a.mp4"] * 5)
    assert units_of(replace(targets, fingerprint="f00"), clips).kind == "clips"
    (store.path / "clips.parquet").unlink()
    assert units_of(targets, clips).kind == "clips"


def as_of_reader(store: FeatureStore, reader: str, sources: list[str]) -> None:
    """Let a store say what decoded its clips, and which file each is from."""
    header = json.loads((store.path / "zarr.json").read_bytes())
    about = header["attributes"]["scivid"]
    about["parts"]["decoding"] = {"reader": reader}
    about["fingerprint"] = fingerprint(about["parts"])
    (store.path / "zarr.json").write_text(json.dumps(header))
    table = store.clips.set_column(1, "source", pa.array(sources))
    pq.write_table(table, store.path / "clips.parquet")


ROW = {
    "run": "abc", "task": "toy", "backbone": "resize", "readout": "linear", "metric": "mean_AP",
    "targets": json.dumps({"val": "f00"}),
}  # fmt: skip


def kept(results_dir: Path, row: Mapping[str, Any], clips: list[int], **arrays: np.ndarray) -> None:
    folder = results_dir / row["task"] / f"{row['backbone']}-{row['run']}"
    folder.mkdir(parents=True, exist_ok=True)
    named = {name.replace("_of_", "/"): values for name, values in arrays.items()}
    np.savez(folder / "evidence_val.npz", clips=np.array(clips), **named)


def test_evidence_is_read_back_a_readout_at_a_time(tmp_path: Path) -> None:
    kept(tmp_path, ROW, [3, 5], linear_of_values=np.array([1.0, 2.0]), attention_of_values=np.zeros(2))
    clips, evidence = load_evidence(tmp_path, ROW, "val")
    assert clips.tolist() == [3, 5]
    assert {name: rows.tolist() for name, rows in evidence.items()} == {"values": [1.0, 2.0]}
    with pytest.raises(StoreError, match="nothing of readout dpt"):
        load_evidence(tmp_path, {**ROW, "readout": "dpt"}, "val")
    with pytest.raises(
        StoreError, match=r"no evidence of single clips of test: .*evidence_test\.npz is missing"
    ):
        load_evidence(tmp_path, ROW, "test")
    for role in ("tst", "train"):
        with pytest.raises(CallError, match=f"role '{role}': runs are scored on val or test"):
            load_evidence(tmp_path, ROW, role)


@pytest.mark.parametrize("damage", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_damaged_evidence_is_told(tmp_path: Path, damage: bytes) -> None:
    kept(tmp_path, ROW, [1], linear_of_values=np.zeros(1))
    (tmp_path / "toy" / "resize-abc" / "evidence_val.npz").write_bytes(damage)
    with pytest.raises(StoreError, match="cannot be read as evidence"):
        load_evidence(tmp_path, ROW, "val")


def test_only_what_was_scored_on_the_same_clips_is_compared(tmp_path: Path) -> None:
    other = {**ROW, "run": "def"}
    kept(tmp_path, ROW, [3, 5], linear_of_values=np.array([1.0, 2.0]))
    kept(tmp_path, other, [3, 5], linear_of_values=np.array([0.0, 2.0]))
    clips, a, b = paired_evidence(tmp_path, ROW, other, "val")
    assert (clips.tolist(), a["values"].tolist(), b["values"].tolist()) == ([3, 5], [1.0, 2.0], [0.0, 2.0])
    with pytest.raises(StoreError, match="on 2 and 2 clips of val, none of them the same"):
        paired_evidence(tmp_path, ROW, {**other, "targets": json.dumps({"val": "ba4"})}, "val")
    kept(tmp_path, other, [5, 6, 7], linear_of_values=np.zeros(3))
    with pytest.raises(StoreError, match="on 2 and 3 clips of val, 1 of them the same"):
        paired_evidence(tmp_path, ROW, other, "val")
    with pytest.raises(CallError, match="role 'tst': runs are scored on val or test"):
        paired_evidence(tmp_path, ROW, other, "tst")
    with pytest.raises(CallError, match="have task 'toy' and 'fly': only runs of one task"):
        paired_evidence(tmp_path, ROW, {**other, "task": "fly"}, "val")
