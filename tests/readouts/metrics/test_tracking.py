"""Tracking accuracy against the reference's results, and by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange

from featcache.errors import CallError, ScividError
from readouts.metrics.base import concatenated
from readouts.metrics.tracking import (
    JACCARD_THRESHOLDS,
    THRESHOLDS,
    jaccard_counts,
    nearest_endpoint_error,
    per_clip,
    scores,
)

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def numbers(golden: Any) -> list[int]:
    return sorted({int(name.partition("/")[0]) for name in golden.under("in/")})


def batches(golden: Any) -> list[Batch]:
    """Points, end points, query mask and target mask of each batch."""
    names = ("pred_coords", "gt_coords", "query_mask", "target_mask")
    read = [[torch.from_numpy(golden.arrays[f"in/{n}/{name}"]) for name in names] for n in numbers(golden)]
    return [(p, e, *(rearrange(mask, "b n 1 -> b n") for mask in masks)) for p, e, *masks in read]


def tolerance(golden: Any) -> dict[str, float]:
    bounds = golden.meta["tolerances"]["out"]
    return {"rel": bounds["rtol"], "abs": bounds["atol"]}


PIXELS = {"rescale_height": "height", "rescale_width": "width", "round_to_nearest_pixel": None}
"""The reference's settings of distances, and our names of them."""


def pixels_of(settings: dict[str, Any]) -> dict[str, Any]:
    return {(new or old): settings[old] for old, new in PIXELS.items() if old in settings}


def scored(
    taken: list[Batch], thresholds: Sequence[int] = THRESHOLDS, add_average_error: bool = False, **pixels: Any
) -> dict[str, float]:
    """The scores of a split, given points, end points and masks of its batches."""
    found = [per_clip(*batch, thresholds=thresholds, **pixels_of(pixels)) for batch in taken]
    return scores(concatenated(found), thresholds=thresholds, add_average_error=add_average_error)


@pytest.mark.golden("metric_stir*")
def test_accuracy_is_the_references(golden: Any) -> None:
    found = scored(batches(golden), **golden.meta["module_kwargs"])
    expected = {name: float(value) for name, value in golden.under("out/").items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, **tolerance(golden)), name


@pytest.mark.golden("metric_stir*")
def test_errors_are_the_references(golden: Any) -> None:
    passed = pixels_of(golden.meta["module_kwargs"])
    distances = [
        a for name, a in sorted(golden.under("out_extra/").items()) if name.endswith("min_distances")
    ]
    for (points, endpoints, queries, targets), expected in zip(batches(golden), distances, strict=True):
        found = nearest_endpoint_error(points, endpoints, query_mask=queries, target_mask=targets, **passed)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.golden("metric_stir*")
def test_batches_split_in_any_way_score_alike(golden: Any) -> None:
    settings = golden.meta["module_kwargs"]
    whole = [torch.cat(column) for column in zip(*batches(golden), strict=True)]
    one_by_one = list(zip(*(column.split(1) for column in whole), strict=True))
    assert scored([tuple(whole)], **settings) == pytest.approx(scored(one_by_one, **settings), rel=1e-12)


def error(point: tuple[float, float], endpoint: tuple[float, float], **settings: Any) -> float:
    ones = torch.ones(1, 1)
    points, endpoints = torch.tensor([[point]]), torch.tensor([[endpoint]])
    found = nearest_endpoint_error(points, endpoints, query_mask=ones, target_mask=ones, **settings)
    return found.item()


def test_halves_are_rounded_to_the_even_pixel() -> None:
    # Over 1280 x 1024, all exact in float32: x = 0.5, 1.5, 2.5 pixels become 0, 2, 2; y = 3.5 becomes 4.
    assert error((0.5 / 1280, 0.0), (0.0, 0.0)) == 0.0
    assert error((1.5 / 1280, 0.0), (0.0, 0.0)) == 2.0
    assert error((2.5 / 1280, 0.0), (0.0, 0.0)) == 2.0
    assert error((0.0, 3.5 / 1024), (0.0, 0.5 / 1024)) == 4.0
    assert error((0.0, 3.5 / 1024), (0.0, 0.5 / 1024), round_to_nearest_pixel=False) == 3.0
    assert error((-0.5 / 1280, 0.0), (0.0, 0.0)) == 0.0


def test_a_threshold_includes_its_own_distance() -> None:
    # 3, 4 pixels away: exactly 5.
    batch = torch.tensor([[[3 / 1280, 4 / 1024]]]), torch.zeros(1, 1, 2), torch.ones(1, 1), torch.ones(1, 1)
    found = scored([batch], thresholds=(4, 5))
    assert (found["within_4pxl_threshold"], found["within_5pxl_threshold"]) == (0.0, 1.0)
    assert found["average_over_thresholds"] == 0.5


def test_the_nearest_valid_end_point_counts_whatever_its_row() -> None:
    points = torch.tensor([[[0.1, 0.1], [0.9, 0.9]]])
    endpoints = torch.tensor([[[0.9, 0.9], [0.5, 0.5], [0.1, 0.1]]])
    every = torch.ones(1, 2, dtype=torch.bool)
    found = nearest_endpoint_error(
        points, endpoints, query_mask=every, target_mask=torch.tensor([[1, 1, 0]], dtype=torch.int32)
    )
    # 0.4 of 1280 x 1024 from the middle one, the third being padding.
    assert found.tolist() == [[pytest.approx(np.hypot(512, 410), abs=1.0), 0.0]]


@pytest.mark.parametrize("n_endpoints", [0, 3])
def test_a_clip_without_end_points_is_all_misses(n_endpoints: int) -> None:
    none = torch.full((1, n_endpoints, 2), -1.0), torch.ones(1, 2), torch.zeros(1, n_endpoints)
    found = scored([(torch.rand(1, 2, 2), *none)], add_average_error=True)
    assert found["num_queries"] == 2.0
    assert found["average_over_thresholds"] == 0.0
    assert found["average_error"] == np.inf


def test_a_batch_of_padding_changes_nothing() -> None:
    batch = torch.rand(2, 3, 2), torch.rand(2, 3, 2), torch.ones(2, 3), torch.ones(2, 3)
    padding = torch.full((2, 3, 2), torch.nan), *batch[1:2], torch.zeros(2, 3), torch.ones(2, 3)
    settings: dict[str, Any] = {"add_average_error": True}
    assert scored([batch, padding], **settings) == scored([batch], **settings)
    with pytest.raises(CallError, match="no points"):
        scored([padding])


def tracks_of(*frames: list[tuple[float, float]]) -> torch.Tensor:
    """Pixels of points in frames, as [1 F Q 2] of width and height."""
    return torch.tensor([list(frames)]) / torch.tensor([1280.0, 1024.0])


def test_average_jaccard_by_hand() -> None:
    # Three points and one of padding in two frames after that in which they are asked for.
    start = [(0.0, 0.0), (100.0, 0.0), (200.0, 0.0), (0.0, 0.0)]
    true = tracks_of(start, [(0, 0), (100, 0), (200, 0), (0, 0)], [(0, 0), (100, 0), (200, 0), (0, 0)])
    found = tracks_of(start, [(3, 0), (100, 0), (200, 0), (0, 0)], [(0, 10), (100, 1), (200, 50), (0, 0)])
    truly_seen = torch.tensor([[[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]]]).bool()
    seen = torch.tensor([[[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]]]).bool()
    asked = torch.tensor([[1.0, 1, 1, 0]])
    counts = jaccard_counts(found, seen, true_points=true, truly_seen=truly_seen, query_mask=asked)
    # Seen: two, then three. Right below 2 pixels: only the second point's 1 px in the last frame. Said to be
    # seen and not right: the first at 3 px and the hidden third, then the first at 10 px and the third at 50.
    assert counts["jaccard_hits"].tolist() == [[1, 2, 2, 3, 3]]
    assert counts["jaccard_union"].tolist() == [[5 + 4, 5 + 3, 5 + 3, 5 + 2, 5 + 2]]
    statistics = {"hits": np.ones((1, 5)), "points": np.ones(1), "pixels": np.ones(1), **counts}
    result = scores(statistics)
    assert result["jaccard_2pxl"] == pytest.approx(1 / 9)
    assert result["average_jaccard"] == pytest.approx((1 / 9 + 2 / 8 + 2 / 8 + 3 / 7 + 3 / 7) / 5)
    # A distance of the threshold itself is not below it.
    assert JACCARD_THRESHOLDS == (2, 4, 8, 16, 32)
    exact = tracks_of(start, [(2, 0), (100, 0), (200, 0), (0, 0)], [(0, 0), (100, 0), (200, 0), (0, 0)])
    every = torch.ones_like(seen)
    counts = jaccard_counts(exact, every, true_points=true, truly_seen=every, query_mask=asked)
    assert counts["jaccard_hits"].tolist() == [[5, 6, 6, 6, 6]]


def test_average_jaccard_is_a_mean_over_clips_that_have_points() -> None:
    counts = {"jaccard_hits": np.array([[2] * 5, [1] * 5, [0] * 5]),
              "jaccard_union": np.array([[2] * 5, [4] * 5, [0] * 5])}  # fmt: skip
    statistics = {"hits": np.ones((3, 5)), "points": np.ones(3), "pixels": np.ones(3), **counts}
    assert scores(statistics)["average_jaccard"] == pytest.approx((1 + 0.25) / 2)
    assert scores(statistics, np.array([0.0, 2, 1]))["average_jaccard"] == pytest.approx(0.25)
    assert scores(statistics, np.array([0.0, 0, 1]))["average_jaccard"] == 0.0
    assert "average_jaccard" not in scores({name: statistics[name] for name in ("hits", "points", "pixels")})


def test_points_that_are_not_finite_are_told() -> None:
    ones = torch.ones(1, 1)
    with pytest.raises(ScividError, match="not finite"):
        per_clip(torch.full((1, 1, 2), torch.nan), torch.zeros(1, 1, 2), ones, ones)


def test_of_known_tracks_a_point_is_held_against_its_own_end() -> None:
    points = torch.tensor([[[0.0, 0.0], [0.5, 0.5]]])
    ends = torch.tensor([[[0.5, 0.5], [0.5, 0.5]]])
    both = torch.ones(1, 2)
    seen = torch.tensor([[0.0, 1.0]])
    far = nearest_endpoint_error(
        points, ends, query_mask=both, target_mask=both, matched=True, height=8, width=8
    )
    assert far.tolist() == [[pytest.approx(32**0.5), 0.0]]
    masked = nearest_endpoint_error(points, ends, query_mask=seen, target_mask=seen, matched=True)
    assert masked.tolist() == [[0.0, 0.0]]
    hidden = nearest_endpoint_error(points, ends, query_mask=both, target_mask=seen, matched=True)
    assert hidden[0, 0] == torch.inf
