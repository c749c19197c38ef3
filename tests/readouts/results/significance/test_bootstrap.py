"""Intervals against simulated truth, differences against answers known by hand, and what is independent."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import t as student

from featcache.clips import CLIP_SCHEMA, ClipIndex
from featcache.errors import CallError, StoreError
from featcache.fingerprint import fingerprint
from featcache.manifest import load_manifest
from featcache.store.clip_table import clip_table_bytes
from featcache.store.feature_store import FeatureStore
from featcache.store.header import read_header
from featcache.store.targets import TargetArray, Targets
from readouts.metrics.base import Weights
from readouts.results.significance.bootstrap import (
    Clusters,
    MeanScore,
    NoIntervalError,
    WeightedScore,
    clusters_of,
    interval,
    resampled,
)
from readouts.results.significance.differences import paired_difference
from readouts.tasks import load_task
from tests.featcache.store.small_header import forge


def mean(*values: float) -> WeightedScore:
    """A score that is the mean of one number a clip."""

    def score(weights: Weights) -> float:
        return float(weights @ np.array(values) / weights.sum())

    return score


def videos(*of_clip: int) -> Clusters:
    return Clusters(of_clip=np.array(of_clip, np.int64), kind="videos")


@dataclass
class Simulated:
    """Clips that share half of their variance with those of their video; the true mean is 0."""

    rng: np.random.Generator

    def draw(self, n_videos: int) -> tuple[np.ndarray, Clusters]:
        """A number a clip, and the videos."""
        of_clip = np.repeat(np.arange(n_videos), self.rng.integers(4, 10, size=n_videos))
        shared = self.rng.normal(size=n_videos)[of_clip]
        return shared + self.rng.normal(size=len(of_clip)), videos(*of_clip.tolist())


def test_an_interval_covers_as_often_as_it_says_and_one_over_clips_does_not() -> None:
    simulated, n_sets = Simulated(np.random.default_rng(7)), 500
    covered = {"videos": 0, "clips": 0}
    for number in range(n_sets):
        values, clusters = simulated.draw(30)
        single = Clusters(of_clip=np.arange(len(values)), kind="clips")
        for name, chosen in (("videos", clusters), ("clips", single)):
            covered[name] += 0.0 in interval(mean(*values), chosen, n=150, seed=number)
    assert 0.92 <= covered["videos"] / n_sets <= 0.975
    assert covered["clips"] / n_sets < 0.75


def test_a_difference_that_is_none_is_rarely_called_clear() -> None:
    rng, n_sets = np.random.default_rng(3), 300
    clear = 0
    for number in range(n_sets):
        values, clusters = Simulated(rng).draw(20)
        # The second run misses by as much on average, in a way of its own.
        other = values + rng.normal(size=20)[clusters.of_clip]
        clear += paired_difference(mean(*values), mean(*other), clusters, n=150, seed=number).is_clear
    assert 0.025 <= clear / n_sets <= 0.085


def test_the_interval_of_a_mean_is_students() -> None:
    numbers = np.random.default_rng(1).normal(size=25)
    found = interval(mean(*numbers), videos(*range(25)), n=20_000)
    reach = student.ppf(0.975, 24) * numbers.std(ddof=1) / 5
    assert (found.low, found.high) == pytest.approx(
        (numbers.mean() - reach, numbers.mean() + reach), rel=0.05
    )
    assert found.level == 0.95
    wider = interval(mean(*numbers), videos(*range(25)), n=200, level=0.99)
    assert wider.high - wider.low > found.high - found.low


@pytest.mark.parametrize("n", [3, 4, 10])
def test_the_reach_of_an_interval_by_hand(n: int) -> None:
    """Of few clusters: a resample of n varies too little by sqrt((n - 1) / n), which is 22 % of three."""
    numbers, clusters = np.arange(n) ** 2.0, videos(*range(n))
    drawn = resampled(mean(*numbers), clusters, n=300).drawn
    reach = student.ppf(0.975, n - 1) * np.std(drawn, ddof=1) * np.sqrt(n / (n - 1))
    found = interval(mean(*numbers), clusters, n=300)
    assert (found.low, found.high) == pytest.approx((numbers.mean() - reach, numbers.mean() + reach))
    less = mean(*(0.5 * numbers))
    difference = paired_difference(mean(*numbers), less, clusters, n=300)
    assert difference.value == pytest.approx(numbers.mean() / 2)
    assert difference.interval.high - difference.interval.low == pytest.approx(reach)


def seen(clusters: Clusters) -> np.ndarray:
    """How often each clip counted in 50 draws."""
    found = list[Weights]()

    def score(weights: Weights) -> float:
        found.append(weights)
        return 0.0

    resampled(score, clusters, n=50)
    return np.stack(found[:50])


def test_a_cluster_is_drawn_with_all_of_its_clips() -> None:
    clusters = videos(7, 7, 2, 7, 2, 30)
    drawn = seen(clusters)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 0] == drawn[:, 3]).all()
    assert (drawn[:, 2] == drawn[:, 4]).all()
    # As many clusters as there are, so that many clips only on average.
    assert set((drawn[:, 0] + drawn[:, 2] + drawn[:, 5]).tolist()) == {3.0}
    assert len(np.unique(drawn, axis=0)) > 5
    np.testing.assert_array_equal(drawn, seen(clusters))


def test_a_paired_difference_cancels_what_both_find_hard() -> None:
    # A is ahead by about 1 on every clip: the videos differ by hundreds, the difference does not.
    hard, ahead = [0.0, 0.0, 500.0, 900.0, 900.0, 100.0], [1.01, 1.01, 0.99, 1.0, 1.0, 0.98]
    clusters = videos(0, 0, 1, 2, 2, 3)
    found = paired_difference(mean(*np.add(hard, ahead)), mean(*hard), clusters, n=200)
    assert found.value == pytest.approx(5.99 / 6)
    assert (found.interval.low, found.interval.high) == pytest.approx((1.0, 1.0), abs=0.05)
    assert (found.flips, found.is_clear) == (0.0, True)
    alone = interval(mean(*hard), clusters, n=200)
    assert alone.high - alone.low > 500


def test_the_sign_flips_where_the_other_run_is_ahead() -> None:
    # Three videos, +4 and twice -1: below 0 unless the first is drawn, which it is not in 8 of 27.
    a, b, clusters = mean(4.0, -1.0, -1.0), mean(0.0, 0.0, 0.0), videos(0, 1, 2)
    found = paired_difference(a, b, clusters, n=4000)
    assert found.value == pytest.approx(2 / 3)
    assert found.flips == pytest.approx(8 / 27, abs=0.02)
    assert not found.is_clear
    turned = paired_difference(b, a, clusters, n=4000)
    assert (turned.value, turned.flips) == (-found.value, found.flips)


def test_a_score_that_all_resamples_agree_on_has_no_interval() -> None:
    perfect, clusters = mean(1.0, 1.0, 1.0, 1.0), videos(0, 1, 2, 3)
    with pytest.raises(
        NoIntervalError, match="no interval: all resamples agree on 1, so 4 videos do not tell"
    ):
        interval(perfect, clusters, n=50)
    # Ahead by the same everywhere, but for the last bits of sums.
    with pytest.raises(NoIntervalError, match=r"agree on 0\.1, so 4 videos"):
        paired_difference(mean(0.8, 0.4, 0.2, 0.9), mean(0.7, 0.3, 0.1, 0.8), clusters, n=50)
    one_is_wrong = interval(mean(1.0, 1.0, 1.0, 0.999), clusters, n=50)
    assert one_is_wrong.low < one_is_wrong.high


@pytest.mark.parametrize(("of_clip", "seen"), [((4, 4, 4), "one"), ((1, 2, 2), "two")])
def test_one_or_two_clusters_have_no_interval(of_clip: tuple[int, ...], seen: str) -> None:
    a, b, clusters = mean(1.0, 2.0, 3.0), mean(0.0, 0.5, 0.0), videos(*of_clip)
    for compute in (lambda: interval(a, clusters), lambda: paired_difference(a, b, clusters)):
        with pytest.raises(
            NoIntervalError,
            match=f"no interval: 3 clips are of {seen} of the videos, .*: 3 at least, 10 or more",
        ):
            compute()


def test_the_text_says_what_was_drawn_and_how_far_it_can_be_trusted() -> None:
    few = interval(mean(1.0, 2.0, 3.0), videos(0, 1, 2), n=50)
    assert str(few).endswith("(95 %, 3 videos); only 3 of them, a rough guide")
    many = interval(mean(*range(12)), videos(*range(12)), n=50, level=0.9)
    assert str(many).endswith("(90 %, 12 videos)")
    clips = Clusters(of_clip=np.arange(12), kind="clips")
    assert "too narrow where several are of one video" in str(interval(mean(*range(12)), clips, n=50))
    difference = paired_difference(mean(*range(12)), mean(*[0.0] * 12), videos(*range(12)), n=50)
    assert str(difference).startswith("+5.5, ")
    assert str(difference).endswith("sign flips in 0.0% of resamples")


def test_the_score_of_several_runs_is_their_mean() -> None:
    task, rng = load_task("calms21", load_manifest()), np.random.default_rng(0)
    labels = rng.integers(2, size=(12, 4), dtype=np.uint8)
    runs = [
        {"ranks": rng.permuted(np.tile(np.arange(12, dtype=np.int32)[:, None], 4), axis=0), "labels": labels}
        for _ in range(2)
    ]
    weights = rng.integers(1, 4, size=12).astype(np.float64)
    first, second = (task.scores(run, weights)["mean_AP"] for run in runs)
    assert first != second
    assert MeanScore(task, runs)(weights) == pytest.approx((first + second) / 2)
    assert MeanScore(task, runs[:1])(weights) == first


@pytest.mark.parametrize("n_videos", [4, 40])
def test_a_task_that_scores_many_draws_at_once_gives_the_same(n_videos: int) -> None:
    task, rng = load_task("calms21", load_manifest()), np.random.default_rng(1)
    labels = (rng.random((60, 4)) < 0.3).astype(np.uint8)
    labels[:, 1] = 0  # of a class that no clip has
    labels[:50, 2] = 0  # of one that most draws have little of
    outputs = torch.from_numpy((labels + rng.normal(size=(60, 4))).round(1).astype(np.float32))  # with ties
    run = task.join([task.per_clip(outputs, {"labels": torch.from_numpy(labels)})])
    clusters = videos(*np.concatenate([np.arange(n_videos), rng.integers(n_videos, size=60 - n_videos)]))
    at_once = resampled(MeanScore(task, [run]), clusters, n=100)
    one_by_one = resampled(lambda weights: task.scores(run, weights)["mean_AP"], clusters, n=100)
    np.testing.assert_allclose(at_once.drawn, one_by_one.drawn, rtol=1e-6)
    assert at_once.value == one_by_one.value
    assert np.ptp(at_once.drawn) > 0.05


def test_mistakes_are_told() -> None:
    with pytest.raises(CallError, match="n=1 resamples"):
        interval(mean(1.0, 2.0, 3.0), videos(1, 2, 3), n=1)
    with pytest.raises(CallError, match=r"level=95\.0 must be between 0 and 1"):
        interval(mean(1.0, 2.0, 3.0), videos(1, 2, 3), n=5, level=95.0)


MakeTargets = Callable[..., Targets]


def test_clusters_are_subjects_sequences_videos_or_clips(make_targets: MakeTargets) -> None:
    clips = np.array([0, 2, 3])
    for name in ("subject", "sequence", "video"):
        found = clusters_of(make_targets(4, name, **{name: np.array([9, 8, 9, 5])}), clips)
        assert (found.of_clip.tolist(), found.kind, len(found)) == ([9, 9, 5], f"{name}s", 2)
    both = make_targets(4, "both", video=np.arange(4), subject=np.array([1, 1, 2, 2]))
    assert clusters_of(both, clips).of_clip.tolist() == [1, 2, 2]
    found = clusters_of(make_targets(4, "none", labels=np.eye(4, dtype=np.uint8)), clips)
    assert (found.of_clip.tolist(), found.kind) == ([0, 2, 3], "clips")


def test_initial_times_of_one_forecast_span_are_one_cluster(make_targets: MakeTargets) -> None:
    # A step is 12 h, a forecast 24 h: two initial times of a day share fields, the third does not.
    places = np.array([[i, i + 1, i + 2] for i in range(5)], np.int32)
    hours = 480_000 + 12 * np.arange(7, dtype=np.int64)
    steps = TargetArray(shape=places.shape, dtype=places.dtype, axes=("clip", "lead"), blocks=[places])
    times = TargetArray(shape=hours.shape, dtype=hours.dtype, axes=("time",), blocks=[hours])
    targets = make_targets(5, places=steps, time=times)
    found = clusters_of(targets, np.arange(5))
    assert (found.of_clip.tolist(), found.kind) == ([0, 0, 1, 1, 2], "stretches of 24 h")
    assert clusters_of(targets, np.array([1, 4, 2])).of_clip.tolist() == [0, 1, 0]


def test_clips_of_own_videos_are_of_their_file(make_split: Callable[..., FeatureStore]) -> None:
    store = make_split("val", np.zeros((5, 1, 1, 1, 1, 2)), np.eye(5, dtype=np.uint8))
    targets, clips = store.targets, np.array([0, 2, 3, 4])
    assert targets is not None
    assert clusters_of(targets, clips).kind == "clips"
    as_of_reader(store, "video_file", ["cages/b.mp4", "cages/b.mp4", "cages/a.mp4", "cages/b.mp4", "c.mp4"])
    found = clusters_of(targets, clips)
    assert (found.of_clip.tolist(), found.kind) == ([2, 1, 2, 0], "videos")
    # A record file of another reader is no video, and other targets are of other clips.
    as_of_reader(store, "sequence_example", ["a.bin"] * 5)
    assert clusters_of(targets, clips).kind == "clips"
    as_of_reader(store, "video_file", ["a.mp4"] * 5)
    assert clusters_of(replace(targets, fingerprint="f00"), clips).kind == "clips"
    # Were they taken as independent for want of the list, intervals would be too narrow.
    (store.path / "clips.parquet").unlink()
    with pytest.raises(StoreError, match=r"clips\.parquet"):
        clusters_of(targets, clips)


def as_of_reader(store: FeatureStore, reader: str, sources: list[str]) -> None:
    """Let a store say what decoded its clips, and which file each is from."""
    table = store.clips.select(CLIP_SCHEMA.names).set_column(1, "source", pa.array(sources))
    index = ClipIndex(table.cast(CLIP_SCHEMA))

    def change(document: dict[str, Any]) -> None:
        about = document["attributes"]["scivid"]
        about["parts"]["decoding"] = {"reader": reader}
        about |= {"fingerprint": fingerprint(about["parts"]), "clips_digest": index.digest}

    forge(store.path / "zarr.json", change)
    (store.path / "clips.parquet").write_bytes(clip_table_bytes(read_header(store.path), index))
