"""Errors of global fields against the reference's results, float64, and by hand."""

from typing import Any

import pytest
import torch
from einops import rearrange

from featcache.errors import CallError, ScividError
from readouts.metrics.area import latitude_weights
from readouts.metrics.fields import FieldRMSE, PeakSignalToNoise

Batch = tuple[torch.Tensor, torch.Tensor]


def batches(golden: Any) -> list[Batch]:
    numbers = sorted({int(name.partition("/")[0]) for name in golden.under("in/")})
    names = ("pred", "target")
    read = [[torch.from_numpy(golden.arrays[f"in/{n}/{name}"]) for name in names] for n in numbers]
    return [(predicted, target) for predicted, target in read]


def tolerance(golden: Any) -> dict[str, float]:
    # Relative alone: Q700 is 5e-4 kg/kg, which an absolute bound made for Z500 would let pass.
    return {"rel": golden.meta["tolerances"]["out"]["rtol"], "abs": 0.0}


def scores(metric: FieldRMSE | PeakSignalToNoise, taken: list[Batch]) -> dict[str, float]:
    for batch in taken:
        metric.update(*batch)
    return metric.compute()


def rmse_of(taken: list[Batch]) -> dict[str, float]:
    return scores(FieldRMSE(latitude_weights=latitude_weights(taken[0][0].shape[2])), taken)


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


@pytest.mark.golden("metric_psnr*")
def test_psnr_is_the_references(golden: Any) -> None:
    settings = {k: tuple(v) for k, v in golden.meta["module_kwargs"].items() if k == "in_vrange"}
    found = scores(PeakSignalToNoise(**settings), batches(golden))
    assert found == {"PSNR": pytest.approx(float(golden.arrays["out/value"]), **tolerance(golden))}


def test_batches_split_in_any_way_score_alike() -> None:
    predicted, target = (whole.float() for whole in random_fields(5, 3, 19, 8, 3))
    for split in (1, 2, 3):
        parts = list(zip(predicted.split(split), target.split(split), strict=True))
        assert rmse_of(parts) == pytest.approx(rmse_of([(predicted, target)]), rel=1e-12)
        whole = scores(PeakSignalToNoise(), [(predicted, target)])
        assert scores(PeakSignalToNoise(), parts) == pytest.approx(whole, rel=1e-12)


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
    metric = FieldRMSE(latitude_weights=latitude_weights(2), variables=("a", "b"))
    target = torch.full_like(error, 10.0)
    expected = {"a/t=0/rmwse": 2, "a/t=1/rmwse": 0, "b/t=0/rmwse": 0, "b/t=1/rmwse": 3}
    expected |= {"a/rmwse": 1, "b/rmwse": 1.5, "rmwse": 1.25}
    assert scores(metric, [(target + error, target)]) == pytest.approx(expected, rel=1e-6)


def test_psnr_by_hand() -> None:
    # Mean squares 0.01 and 0.0001: 20 and 40 dB of range 1, and 6.02 more of range 2.
    error = torch.full((1, 2, 3, 4, 2), 0.1)
    error[:, 1] = 0.01
    batch = (error, torch.zeros_like(error))
    assert scores(PeakSignalToNoise(), [batch])["PSNR"] == pytest.approx(30.0, rel=1e-6)
    assert scores(PeakSignalToNoise(in_vrange=(-1.0, 1.0)), [batch])["PSNR"] == pytest.approx(
        36.0206, rel=1e-6
    )
    assert scores(PeakSignalToNoise(), [(error, error)])["PSNR"] == torch.inf


def test_mistakes_are_told() -> None:
    metric = FieldRMSE(latitude_weights=latitude_weights(3))
    with pytest.raises(CallError, match="no fields"):
        metric.compute()
    with pytest.raises(CallError, match="5 rows and 3 channels cannot be scored with 3 latitude weights"):
        metric.update(torch.zeros(1, 1, 5, 2, 3), torch.zeros(1, 1, 5, 2, 3))
    with pytest.raises(ScividError, match="fields are not finite"):
        metric.update(torch.full((1, 1, 3, 2, 3), torch.nan), torch.zeros(1, 1, 3, 2, 3))
    metric.update(torch.zeros(1, 1, 3, 2, 3), torch.zeros(1, 1, 3, 2, 3))
    with pytest.raises(CallError, match="2 frames after 1"):
        metric.update(torch.zeros(1, 2, 3, 2, 3), torch.zeros(1, 2, 3, 2, 3))
    with pytest.raises(CallError, match="no frames"):
        PeakSignalToNoise().compute()
    with pytest.raises(CallError, match="the smaller one first"):
        PeakSignalToNoise(in_vrange=(1.0, 0.0))
    with pytest.raises(ScividError, match="frames are not finite"):
        PeakSignalToNoise().update(torch.full((1, 1, 3, 2, 3), torch.inf), torch.zeros(1, 1, 3, 2, 3))


def test_scoring_outputs_that_carry_gradients_keeps_no_graph() -> None:
    predicted, target = (whole.requires_grad_() for whole in random_fields(2, 1, 3, 4, 3))
    for metric in (FieldRMSE(latitude_weights=latitude_weights(3)), PeakSignalToNoise()):
        assert all(isinstance(value, float) for value in scores(metric, [(predicted, target)]).values())
