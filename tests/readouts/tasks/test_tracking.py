"""The tracking task: windows, masks and baseline as the reference has them, scores worked out by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import StoreError
from featcache.manifest import load_manifest
from featcache.store.targets import Targets
from readouts.heads.tracking import as_tracks
from readouts.results.baselines import score_baselines
from readouts.tasks import load_task
from readouts.tasks.tracking import Tracking, masked_tracks

MakeTargets = Callable[..., Targets]
REFERENCE_NAMES = {
    "queries": "query_coords", "coords": "target_coords", "visible": "target_vis",
    "query_mask": "query_mask", "target_mask": "target_mask",
}  # fmt: skip
FRAMES, TRACKS = 6, 10


@pytest.fixture
def task() -> Tracking:
    """The benchmark's task on clips of four frames and with three tracks a draw."""
    stir = load_task("stir", load_manifest())
    assert isinstance(stir, Tracking)
    return replace(stir, n_frames=4, n_tracks=3)


@pytest.fixture
def rendered(make_targets: MakeTargets) -> Targets:
    """Two clips whose x says frame and clip, whose y says the track; track 4 is hidden in frame 1."""
    clip, frame, track = np.meshgrid(*map(np.arange, (2, FRAMES, TRACKS)), indexing="ij")
    tracks = np.stack([(10 * clip + frame) / 100, track / 100], axis=-1).astype(np.float32)
    return make_targets(2, tracks=tracks, visibility=~((track == 4) & (frame == 1)))


def surgery(make_targets: MakeTargets, queries: np.ndarray, ends: np.ndarray, n_padded: int = 0) -> Targets:
    """Videos [n, point, xy] of marked points, with rows of padding after them."""
    n, n_points, _ = queries.shape
    padding = np.full((n, n_padded, 2), -1.0)
    mask = np.broadcast_to(np.arange(n_points + n_padded) < n_points, (n, n_points + n_padded))
    points = {"queries": queries, "ends": ends}
    arrays = {k: np.concatenate([v, padding], axis=1).astype(np.float32) for k, v in points.items()}
    return make_targets(n, f"surgery {n_padded}", **arrays, query_mask=mask.copy(), end_mask=mask.copy())


def numbers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def as_tensors(rows: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in rows.items()}


def outputs_at(points: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """What a head would have to give to say exactly this, and be sure of it."""
    logits = points.double().clamp(1e-6, 1 - 1e-6).logit().float()
    return torch.cat([logits, 40 * seen - 20, torch.full_like(seen, 20.0)], dim=-1)


def test_the_benchmarks_settings() -> None:
    task = load_task("stir", load_manifest())
    assert isinstance(task, Tracking)
    assert (task.n_frames, task.rows, task.n_tracks, task.n_outputs) == (16, 224, 64, 4)
    assert task.readouts == ("tracking",)
    assert task.head_config("correlation") == {"n_frames": 16}
    assert task.higher_is_better
    assert task.predictions_kept is None


@pytest.mark.golden("data_tracks*")
def test_masks_are_the_references(golden: Any) -> None:
    given, expected = golden.under("in/"), golden.under("out/")
    found = masked_tracks(given["target_coords"][None], given["target_vis"][None] > 0.5)
    for ours, theirs in REFERENCE_NAMES.items():
        np.testing.assert_array_equal(found[ours][0], expected[theirs], strict=True, err_msg=ours)


def test_training_samples_are_the_references(shared: Path, make_targets: MakeTargets) -> None:
    """Tracks hidden in the first frame come back as -1, whichever they were: any hidden one may stand in."""
    files = sorted(shared.glob("golden/records*/expected/movi_train_samples*.npz"))
    assert files
    for file in files:
        with (
            np.load(file, allow_pickle=False) as samples,
            np.load(file.with_name("movi_reader_full.npz"), allow_pickle=False) as full,
        ):
            for i in {key.partition("/")[0] for key in samples.files}:
                case = {k.partition("/")[2]: samples[k] for k in samples.files if k.startswith(f"{i}/")}
                record, start = int(case["chosen/record"]), int(case["chosen/start"])
                tracks, visible = full[f"{record}/target_coords"], full[f"{record}/target_vis"] > 0.5
                chosen = case["chosen/track_ids(-1=hidden at query)"].copy()
                hidden = np.flatnonzero(~visible[start])
                chosen[chosen < 0] = hidden[: (chosen < 0).sum()]
                window = slice(start, start + len(case["target_coords"]))
                found = masked_tracks(tracks[window][:, chosen][None], visible[window][:, chosen][None])
                for ours, theirs in REFERENCE_NAMES.items():
                    np.testing.assert_array_equal(found[ours][0], case[theirs], strict=True, err_msg=ours)


def test_a_view_is_the_window_that_starts_at_its_frame(task: Tracking, rendered: Targets) -> None:
    rows = task.select(rendered, numbers(1, 0), numbers(2, 0), None)
    np.testing.assert_allclose(rows["coords"][:, :, 0, 0], [[0.12, 0.13, 0.14, 0.15], [0, 0.01, 0.02, 0.03]])
    # Without a generator the first tracks are taken.
    np.testing.assert_allclose(rows["queries"][0], [[0.12, 0.0], [0.12, 0.01], [0.12, 0.02]])
    assert rows["query_mask"].shape == (2, 3, 1)
    assert rows["target_mask"].shape == rows["visible"].shape == (2, 4, 3, 1)


def test_tracks_are_drawn_without_repeats_and_keep_to_their_visibility(
    task: Tracking, rendered: Targets
) -> None:
    seen: set[int] = set()
    for seed in range(16):
        rows = task.select(rendered, numbers(0, 0), numbers(0, 1), np.random.default_rng(seed))
        again = task.select(rendered, numbers(0, 0), numbers(0, 1), np.random.default_rng(seed))
        assert all(np.array_equal(rows[name], again[name]) for name in rows)
        drawn = np.where(rows["query_mask"][..., 0] > 0, 100 * rows["queries"][..., 1], 4).round().astype(int)
        assert all(len(set(of_clip)) == 3 for of_clip in drawn.tolist())
        seen |= set(drawn.ravel().tolist())
        # Window 0 loses sight of track 4 in its second frame; to window 1, where it begins, it is unknown.
        hidden = rows["target_mask"][..., 0] == 0
        assert np.array_equal(hidden[0], np.arange(4)[:, None] == np.where(drawn[0] == 4, 1, -1))
        assert np.array_equal(hidden[1].all(axis=0), drawn[1] == 4)
        assert (rows["coords"][1][:, drawn[1] == 4] == -1).all()
    assert seen == set(range(TRACKS))


def test_fewer_tracks_than_are_drawn_are_all_taken(task: Tracking, rendered: Targets) -> None:
    rng = np.random.default_rng(0)
    rows = replace(task, n_tracks=64).select(rendered, numbers(0), numbers(2), rng)
    assert sorted((100 * rows["queries"][0, :, 1]).round().tolist()) == list(range(TRACKS))


def test_marked_points_come_with_masks_of_one_column(task: Tracking, make_targets: MakeTargets) -> None:
    queries = np.full((2, 3, 2), 0.25)
    rows = task.select(
        surgery(make_targets, queries, queries + 0.5, n_padded=2), numbers(1), numbers(0), None
    )
    assert rows["query_mask"][0, :, 0].tolist() == rows["end_mask"][0, :, 0].tolist() == [1, 1, 1, 0, 0]
    np.testing.assert_array_equal(rows["ends"][0, 2:], [[0.75, 0.75], [-1, -1], [-1, -1]])
    assert task.inputs(as_tensors(rows)).keys() == {"queries"}


def test_targets_of_another_task_are_refused(task: Tracking, make_targets: MakeTargets) -> None:
    labels = make_targets(2, labels=np.zeros((2, 7), np.uint8))
    with pytest.raises(StoreError, match="neither tracks nor end points: it is not of a tracking task"):
        task.select(labels, numbers(0), numbers(0), None)


def test_only_what_is_true_and_seen_costs_nothing(task: Tracking, rendered: Targets) -> None:
    targets = as_tensors(task.select(rendered, numbers(0, 1), numbers(0, 1), np.random.default_rng(1)))
    perfect = outputs_at(targets["coords"], targets["visible"])
    best = float(task.loss(perfect, targets))
    assert best < 1e-4
    # Ten pixels off: Huber is delta (10 delta - delta / 2) = 9.5 / 224^2, times 100; the certainty, by now
    # wrong, costs 20 x 0.1; both of the share of points that count.
    moved = outputs_at(targets["coords"] + torch.tensor([10 / 224, 0.0]), targets["visible"])
    share = float(targets["target_mask"].mean())
    assert float(task.loss(moved, targets)) == pytest.approx(share * (950 / 224**2 + 2.0), rel=1e-3)
    blind = outputs_at(targets["coords"], 1 - targets["visible"])
    assert float(task.loss(blind, targets)) == pytest.approx(2.0, rel=1e-3)


def test_points_that_do_not_move_are_the_queries_bit_for_bit(task: Tracking, rendered: Targets) -> None:
    """The metric rounds to pixels: a coordinate half way between two must not fall to the other side."""
    rng = np.random.default_rng(0)
    halves = (np.arange(1024) + 0.5) / np.array([[1280], [1024]])
    points = np.concatenate([rng.random((4096, 2)), halves.T, [[0, 1], [1e-7, 1 - 1e-7]]]).astype(np.float32)
    queries = torch.from_numpy(points)[None]
    unmoved = task.baselines(rendered)["points do not move"]
    outputs = unmoved({"queries": queries})
    assert outputs.shape == (1, 4, len(points), 4)
    found = as_tracks(outputs).points.float()
    assert all(torch.equal(found[:, frame], queries) for frame in range(4))


def test_points_that_do_not_move_score_what_did_not_move(task: Tracking, make_targets: MakeTargets) -> None:
    # By 0, 10, 20 and 200 of 1280 pixels: 1, 2, 3 and 3 of the 4 are within 4 or 8, 16, 32 and 64.
    queries = np.stack([[0.1, 0.1], [0.3, 0.3], [0.5, 0.5], [0.7, 0.7]])[None]
    ends = queries + np.array([[0, 0], [10 / 1280, 0], [20 / 1280, 0], [0, 200 / 1024]])
    for n_padded in (0, 3):
        targets = surgery(make_targets, queries, ends, n_padded)
        scores = score_baselines(task, targets, targets, numbers(0))["points do not move"]
        assert scores["average_over_thresholds"] == pytest.approx((1 + 1 + 2 + 3 + 3) / 4 / 5)
        assert scores["within_8pxl_threshold"] == 0.25
        assert scores["num_queries"] == 4


def test_what_is_predicted_for_padding_changes_no_score(task: Tracking, make_targets: MakeTargets) -> None:
    rng = np.random.default_rng(3)
    queries, ends = rng.random((2, 5, 2)), rng.random((2, 5, 2))
    found = []
    for n_padded in (0, 7):
        targets = surgery(make_targets, queries, ends, n_padded)
        rows = as_tensors(task.select(targets, numbers(0, 1), numbers(0, 0), None))
        outputs = torch.zeros(2, 4, 5 + n_padded, 4)
        outputs[:, :, :5] = outputs_at(torch.from_numpy(ends).float(), torch.ones(2, 5, 1))[:, None]
        outputs[0, -1, 0] = 3.0
        outputs[:, :, 5:] = torch.nan
        found.append(task.scores(task.per_clip(outputs, rows)))
    assert found[0] == found[1]
    assert found[0]["num_queries"] == 10
    assert 0.8 <= found[0]["average_over_thresholds"] < 1


def test_rendered_clips_are_scored_at_their_last_frame(task: Tracking, rendered: Targets) -> None:
    rows = as_tensors(task.select(rendered, numbers(0), numbers(0), None))
    outputs = torch.zeros(1, 4, 3, 4)
    outputs[:, -1] = outputs_at(rows["coords"], rows["visible"])[:, -1]
    assert task.scores(task.per_clip(outputs, rows))["within_4pxl_threshold"] == 1.0


def test_whole_tracks_are_scored_by_average_jaccard_too(task: Tracking, rendered: Targets) -> None:
    rows = as_tensors(task.select(rendered, numbers(0, 1), numbers(0, 1), None))
    rows["visible"][:, 2] = 0
    perfect = task.scores(task.per_clip(outputs_at(rows["coords"], rows["visible"]), rows))
    assert perfect["average_jaccard"] == 1.0
    # All points said to be seen: what is hidden counts against it, once each.
    every = outputs_at(rows["coords"], torch.ones_like(rows["visible"]))
    visible = rows["visible"][:, 1:]
    asked = rows["query_mask"][:, None].expand_as(visible)
    expected = [float(one.sum() / n.sum()) for one, n in zip(visible, asked, strict=True)]
    found = task.scores(task.per_clip(every, rows))["average_jaccard"]
    assert found == pytest.approx(sum(expected) / 2) and found < 1
    unmoved = score_baselines(task, rendered, rendered, numbers(0, 1))["points do not move"]
    assert unmoved["average_jaccard"] > 0


def test_what_defines_score_and_loss_is_identified(task: Tracking) -> None:
    changed = [replace(task, n_frames=8), replace(task, rows=256), replace(task, n_tracks=32)]
    identities = [dict(one.identity()) for one in (task, *changed)]
    assert all(identities.count(one) == 1 for one in identities)


def test_clips_counted_once_give_the_scores(task: Tracking, make_targets: MakeTargets) -> None:
    rng = np.random.default_rng(0)
    queries = rng.random((5, 3, 2)).astype(np.float32)
    targets = surgery(make_targets, queries, queries + rng.normal(scale=0.02, size=queries.shape))
    rows = as_tensors(task.select(targets, np.arange(5), np.zeros(5, np.int64), None))
    per_clip = task.per_clip(task.baselines(targets)["points do not move"](rows), rows)
    assert 0 < task.scores(per_clip)[task.score] < 1
    assert task.scores(per_clip, np.ones(5)) == task.scores(per_clip)
    assert task.takes == "tracks"
