"""Errors of pressure series against the reference's results, and by hand."""

from typing import Any

import pytest
import torch

from featcache.errors import CallError, ScividError
from readouts.metrics.base import concatenated
from readouts.metrics.series import per_clip, scores

Batch = tuple[torch.Tensor, torch.Tensor]


def batches(golden: Any) -> list[Batch]:
    numbers = sorted({int(name.partition("/")[0]) for name in golden.under("in/")})
    names = ("preds", "targets")
    read = [[torch.from_numpy(golden.arrays[f"in/{n}/{name}"]) for name in names] for n in numbers]
    return [(predicted, true) for predicted, true in read]


def tolerance(golden: Any) -> dict[str, float]:
    bounds = golden.meta["tolerances"]["out"]
    return {"rel": bounds["rtol"], "abs": bounds["atol"]}


def scored(taken: list[Batch], **settings: Any) -> dict[str, float]:
    """The scores of a split, given predicted and true series of its batches."""
    return scores(concatenated([per_clip(*batch) for batch in taken]), **settings)


@pytest.mark.golden("metric_typhoon*")
def test_errors_are_the_references(golden: Any) -> None:
    found = scored(batches(golden))
    assert golden.meta["module_kwargs"] == {"pred_len": 12}
    expected = {name.replace("|", "/"): float(value) for name, value in golden.under("out/").items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, **tolerance(golden)), name


@pytest.mark.golden("metric_typhoon*")
def test_batches_split_in_any_way_score_alike(golden: Any) -> None:
    predicted, true = (torch.cat(column) for column in zip(*batches(golden), strict=True))
    one_by_one = list(zip(predicted.split(1), true.split(1), strict=True))
    assert scored([(predicted, true)]) == pytest.approx(scored(one_by_one), rel=1e-12)


def test_errors_by_hand() -> None:
    # Step 0: errors 3 and 4 of 1000; step 1: exact and -10 of 500.
    true = torch.tensor([[1000.0, 900.0], [1000.0, 500.0]])
    error = torch.tensor([[3.0, 0.0], [4.0, -10.0]])
    found = scored([(true + error, true)], score_steps=(0, 1))
    assert found["pressure/t=0/abs_error"] == pytest.approx(3.5)
    assert found["pressure/t=0/reative_abs_error"] == pytest.approx(0.0035)
    assert found["pressure/t=0/rmse"] == pytest.approx(12.5**0.5)
    assert found["pressure/t=1/reative_abs_error"] == pytest.approx(0.01)
    assert found["pressure/t=1/rmse"] == pytest.approx(50**0.5)
    assert found["pressure/rmse"] == pytest.approx((12.5**0.5 + 50**0.5) / 2)


def test_the_score_is_of_hours_1_2_3_6_and_12() -> None:
    # The error of step t is t: 0, 1, 2, 5 and 11 of them.
    true = torch.full((4, 12), 983.0)
    assert scored([(true + torch.arange(12.0), true)])["pressure/rmse"] == pytest.approx(
        (0 + 1 + 2 + 5 + 11) / 5
    )


def test_mistakes_are_told() -> None:
    with pytest.raises(CallError, match="no clips"):
        scored([])
    with pytest.raises(ScividError, match="series are not finite"):
        scored([(torch.full((1, 12), torch.nan), torch.ones(1, 12))])
