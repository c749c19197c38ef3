"""Errors of global fields against the reference's results, float64, and by hand."""

from typing import Any

import pytest
import torch
from einops import rearrange

from featcache.errors import ScividError
from readouts.metrics.area import latitude_weights
from readouts.metrics.base import concatenated
from readouts.metrics.fields import per_clip, scores

Batch = tuple[torch.Tensor, torch.Tensor]


def batches(golden: Any) -> list[Batch]:
    numbers = sorted({int(name.partition("/")[0]) for name in golden.under("in/")})
    names = ("pred", "target")
    read = [[torch.from_numpy(golden.arrays[f"in/{n}/{name}"]) for name in names] for n in numbers]
    return [(predicted, target) for predicted, target in read]


def tolerance(golden: Any) -> dict[str, float]:
    # Relative alone: Q700 is 5e-4 kg/kg, which an absolute bound made for Z500 would let pass.
    return {"rel": golden.meta["tolerances"]["out"]["rtol"], "abs": 0.0}


def rmse_of(taken: list[Batch], variables: tuple[str, ...] = ("Z500", "T850", "Q700")) -> dict[str, float]:
    """The scores of a split, given predicted and true fields of its batches."""
    weights = latitude_weights(taken[0][0].shape[2])
    found = [per_clip(predicted, target, latitude_weights=weights) for predicted, target in taken]
    return scores(concatenated(found), variables=variables)


def random_fields(*shape: int) -> Batch:
    """Fields of the weather task's three sizes, in float64."""
    generator = torch.Generator().manual_seed(1)
    target, error = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    size, mean = torch.tensor([3358.6, 15.7, 2.5e-3]), torch.tensor([54088.7, 274.4, 2.4e-3])
    target = mean + size * target
    return target + 0.2 * size * error, target


@pytest.mark.golden("metric_wb2_rmse*")
def test_rmse_is_the_references(golden: Any) -> None:
    taken = batches(golden)
    assert taken[0][0].shape[2] == round(180 / golden.meta["module_kwargs"]["grid_resolution"]) + 1
    found = rmse_of(taken)
    expected = {name.replace("|", "/"): float(value) for name, value in golden.under("out/").items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, **tolerance(golden)), name


def test_batches_split_in_any_way_score_alike() -> None:
    predicted, target = (whole.float() for whole in random_fields(5, 3, 19, 8, 3))
    for split in (1, 2, 3):
        parts = list(zip(predicted.split(split), target.split(split), strict=True))
        assert rmse_of(parts) == pytest.approx(rmse_of([(predicted, target)]), rel=1e-12)


def test_float32_is_within_1e_6_of_float64_in_any_layout() -> None:
    predicted, target = random_fields(3, 2, 91, 180, 3)
    single = predicted.float(), target.float()
    # Both see the same rounded fields: what is compared is how the squares are summed.
    expected = rmse_of([(single[0].double(), single[1].double())])
    first = rearrange(rearrange(single[0], "b f y x c -> b f c y x").contiguous(), "b f c y x -> b f y x c")
    for layout in (single[0], first):
        assert rmse_of([(layout, single[1])]) == pytest.approx(expected, rel=1e-6)


def test_rmse_by_hand() -> None:
    # Two rows are two poles of weight 1. Frame 0 of a: mean squares 2 and 6 of the clips, mean 4, root 2.
    error = torch.zeros(2, 2, 2, 2, 2)
    error[0, 0, 0, :, 0], error[1, 0, :, :, 0] = 2.0, -(6.0**0.5)
    error[:, 1, :, :, 1] = 3.0
    target = torch.full_like(error, 10.0)
    expected = {"a/t=0/rmwse": 2, "a/t=1/rmwse": 0, "b/t=0/rmwse": 0, "b/t=1/rmwse": 3}
    expected |= {"a/rmwse": 1, "b/rmwse": 1.5, "rmwse": 1.25}
    assert rmse_of([(target + error, target)], ("a", "b")) == pytest.approx(expected, rel=1e-6)


def test_statistics_are_a_number_a_clip_frame_and_variable() -> None:
    predicted, target = random_fields(4, 2, 19, 8, 3)
    found = per_clip(predicted, target, latitude_weights=latitude_weights(19))
    assert {name: rows.shape for name, rows in found.items()} == {"squares": (4, 2, 3)}


def test_mistakes_are_told() -> None:
    with pytest.raises(ScividError, match="fields are not finite"):
        rmse_of([(torch.full((1, 1, 3, 2, 3), torch.nan), torch.zeros(1, 1, 3, 2, 3))])


def test_scoring_outputs_that_carry_gradients_keeps_no_graph() -> None:
    predicted, target = (whole.requires_grad_() for whole in random_fields(2, 1, 3, 4, 3))
    assert all(isinstance(value, float) for value in rmse_of([(predicted, target)]).values())
