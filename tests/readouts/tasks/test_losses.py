"""Losses against the reference's values, sums, counts and gradients."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange

from readouts.metrics.area import latitude_weights
from readouts.tasks.losses import (
    MeanLoss,
    area_weighted_l1,
    certainty_cross_entropy,
    sigmoid_cross_entropy,
    squared_error,
    total_of,
    track_huber,
    track_losses,
)

TOLERANCE = 1e-5


def close(found: torch.Tensor | None, expected: np.ndarray) -> bool:
    # A loss that an input does not move leaves it without a gradient; the reference writes zeros.
    largest = max(float(np.abs(expected).max()), 1e-30)
    difference = expected if found is None else found.detach().numpy() - expected
    return float(np.abs(difference).max()) <= TOLERANCE * largest


def settings(golden: Any) -> dict[str, Any]:
    """The reference's arguments; the fixtures write fractions such as 1/224 as text."""
    kwargs = dict(golden.meta["module_kwargs"])
    return {k: float(Fraction(v)) if k in ("delta", "threshold") else v for k, v in kwargs.items()}


def on_fields(
    golden: Any, predicted: torch.Tensor, target: torch.Tensor, *, residual_std: list[float], **_: float
) -> MeanLoss:
    assert predicted.shape[2] == round(180 / golden.meta["module_kwargs"]["grid_resolution"]) + 1
    return area_weighted_l1(
        predicted,
        target,
        latitude_weights=latitude_weights(predicted.shape[2]),
        residual_std=torch.tensor(residual_std),
    )


def loss_of(golden: Any, inputs: dict[str, torch.Tensor]) -> MeanLoss:
    mask = inputs.pop("mask", None)
    kwargs = settings(golden)
    if golden.name.startswith("loss_tap_huber"):
        return track_huber(*inputs.values(), mask, **{"weight": 1.0, **kwargs})
    if golden.name.startswith("loss_tap_certainty"):
        return certainty_cross_entropy(*inputs.values(), mask, **kwargs)
    if golden.name.startswith("loss_wb2_l1"):
        return on_fields(golden, *inputs.values(), **kwargs)
    function = squared_error if golden.name.startswith("loss_l2") else sigmoid_cross_entropy
    return function(*inputs.values(), mask=mask, **kwargs)


def inputs_of(golden: Any) -> dict[str, torch.Tensor]:
    """The inputs of a fixture in the order of its json, those with a gradient as leaves."""
    names = [key.removeprefix("in/") for key in golden.meta["arrays"] if key.startswith("in/")]
    inputs = {name: torch.from_numpy(golden.arrays[f"in/{name}"]) for name in names}
    for name in golden.under("grad/in/"):
        inputs[name].requires_grad_()
    return inputs


@pytest.mark.golden("loss_sigmoid*", "loss_l2*", "loss_tap*", "loss_wb2*")
def test_losses_are_the_references(golden: Any) -> None:
    inputs = inputs_of(golden)
    loss = loss_of(golden, dict(inputs))
    loss.mean.backward()

    # Channels of fields are some 1e4 apart: each is held to its own largest value.
    whole = golden.arrays["out/values"]
    channels = [np.s_[..., c] for c in range(whole.shape[-1])] if "wb2" in golden.name else [np.s_[...]]
    assert close(loss.total, golden.arrays["out/state_value"])
    assert close(loss.count, golden.arrays["out/state_count"])
    assert close(loss.mean, golden.arrays["out/loss"])
    for name, gradient in golden.under("grad/in/").items():
        found = inputs[name].grad
        parts = [(None if found is None else found[c], gradient[c]) for c in channels]
        assert all(close(*part) for part in parts), name


@pytest.mark.golden("loss_points_total*")
def test_the_tracking_losses_are_the_references(golden: Any) -> None:
    inputs = inputs_of(golden)
    losses = track_losses(
        inputs["values"],
        inputs["logits_visible"],
        inputs["logits_certainty"],
        targets=inputs["target_coords"],
        visible=inputs["target_vis"],
        query_mask=inputs["query_mask"],
        target_mask=inputs["target_mask"],
        rows=golden.meta["module_kwargs"]["resolution"],
    )
    total = total_of(losses)
    total.backward()

    assert close(total, golden.arrays["out/total"])
    for name, key in {"points": "", "visible": "_visible", "certainty": "_certainty"}.items():
        assert close(losses[name].mean, golden.arrays[f"out/points_readout{key}"]), name
        assert close(losses[name].total, golden.arrays[f"out/points_readout{key}/state_value"]), name
        assert close(losses[name].count, golden.arrays[f"out/points_readout{key}/state_count"]), name
    for name, gradient in golden.under("grad/in/").items():
        assert close(inputs[name].grad, gradient), name


def test_a_mask_is_broadcast_before_it_is_counted() -> None:
    # Squares [[1, 4], [9, 16]], first column kept: sum 10 over 2 kept values, or over all 4.
    predicted, target = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2)
    mask = torch.tensor([[True, False]])
    assert squared_error(predicted, target, mask=mask).mean == 5.0
    assert squared_error(predicted, target, mask=mask, normalize_by="values").mean == 2.5
    assert squared_error(predicted, target, mask=mask, weight=2.0).mean == 10.0
    assert squared_error(predicted, target).mean == 7.5


def test_nothing_kept_is_no_loss_and_no_gradient() -> None:
    logits = torch.tensor([1.0, -2.0], requires_grad=True)
    loss = sigmoid_cross_entropy(logits, torch.tensor([0, 1]), mask=torch.zeros(2))
    loss.mean.backward()
    assert loss.mean == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_extreme_logits_stay_finite() -> None:
    loss = sigmoid_cross_entropy(torch.tensor([1000.0, -1000.0]), torch.tensor([0, 0]))
    assert (loss.total, loss.count) == (1000.0, 2.0)


def test_track_huber_by_hand() -> None:
    # Distances 0.3 (below delta 0.5: 0.09 / 2), 1.0 (0.5 * (1 - 0.25)), 0 and a masked one; over all four.
    points = torch.tensor([[[[0.3, 0.0], [0.6, 0.8], [0.0, 0.0], [9.0, 9.0]]]], requires_grad=True)
    mask = torch.tensor([True, True, True, False]).reshape(1, 1, 4, 1)
    loss = track_huber(points, torch.zeros(1, 1, 4, 2), mask, delta=0.5, weight=1.0)
    assert loss.mean.item() == pytest.approx((0.045 + 0.375) / 4)
    loss.mean.backward()
    assert points.grad is not None
    expected = [[0.3 / 4, 0], [0.5 * 0.6 / 4, 0.5 * 0.8 / 4], [0, 0], [0, 0]]
    np.testing.assert_allclose(points.grad[0, 0], expected, atol=1e-7)


def test_certainty_is_decided_at_the_threshold_and_leaves_the_points_alone() -> None:
    points = torch.tensor([[[[0.5, 0.0], [0.75, 0.0]]]], requires_grad=True)
    logits = torch.zeros(1, 1, 2, 1, requires_grad=True)
    targets = torch.zeros(1, 1, 2, 2)
    loss = certainty_cross_entropy(logits, points, targets, None, threshold=0.5, weight=1.0)
    loss.mean.backward()
    assert points.grad is None
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == [-0.25, 0.25]


def test_a_masked_batch_of_tracks_is_no_loss_and_no_gradient() -> None:
    points, visible, certain = (torch.rand(2, 3, 4, n, requires_grad=True) for n in (2, 1, 1))
    zeros = torch.zeros(2, 3, 4, 1)
    losses = track_losses(
        points, visible, certain, targets=torch.full((2, 3, 4, 2), -1.0), visible=zeros,
        query_mask=zeros[:, 0], target_mask=zeros,
    )  # fmt: skip
    total_of(losses).backward()
    assert total_of(losses) == 0.0
    assert not any(leaf.grad is None or leaf.grad.any() for leaf in (points, visible, certain))


def fields(*shape: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    predicted, target = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    weights = {"latitude_weights": latitude_weights(shape[2]), "residual_std": torch.rand(shape[-1]) + 0.5}
    return predicted, target, weights


def test_area_weighted_l1_by_hand() -> None:
    # Two rows are two poles of weight 1; frame 1 (0-based) weighs 1/sqrt(2), channel 1 is in units of 4.
    predicted = torch.zeros(1, 2, 2, 1, 2)
    predicted[0, 0, 0, 0, 0], predicted[0, 1, 1, 0, 1] = 3.0, -8.0
    loss = area_weighted_l1(
        predicted,
        torch.zeros_like(predicted),
        latitude_weights=latitude_weights(2),
        residual_std=torch.tensor([1.0, 4.0]),
    )
    assert loss.mean.item() == pytest.approx((3 + 2 / 2**0.5) / 8)


def test_area_weighted_l1_has_the_gradient_of_its_values() -> None:
    predicted, target, weights = fields(2, 3, 5, 4, 2)
    # The gradient of an exact forecast is 0, as everywhere in the reference.
    exact = predicted.clone().requires_grad_()
    area_weighted_l1(exact, predicted, **weights).mean.backward()
    assert exact.grad is not None
    assert not exact.grad.any()

    predicted.requires_grad_()
    target.requires_grad_()
    assert torch.autograd.gradcheck(lambda p, t: area_weighted_l1(p, t, **weights).mean, (predicted, target))


def test_area_weighted_l1_of_many_forecasts_is_that_of_each() -> None:
    predicted, target, weights = fields(2, 3, 5, 4, 2)
    many = torch.stack([predicted, target, 2.0 * predicted]).requires_grad_()

    def loss(of_one: torch.Tensor) -> torch.Tensor:
        return area_weighted_l1(of_one, target, **weights).mean

    found, expected = torch.vmap(loss)(many), torch.stack([loss(one) for one in many])
    assert torch.equal(found, expected)
    ours, theirs = (
        torch.autograd.grad(of @ torch.tensor([1.0, 2.0, 3.0]).to(of), many) for of in (found, expected)
    )
    assert torch.equal(ours[0], theirs[0])


def test_area_weighted_l1_takes_any_layout_and_sums_in_little_error() -> None:
    predicted, target, weights = fields(3, 4, 37, 72, 3)
    expected = area_weighted_l1(predicted, target, **weights).mean.item()
    single = predicted.float()
    channels_first = rearrange(
        rearrange(single, "b f y x c -> b f c y x").contiguous(), "b f c y x -> b f y x c"
    )
    for layout in (single, channels_first):
        assert area_weighted_l1(layout, target.float(), **weights).mean.item() == pytest.approx(
            expected, rel=1e-6
        )


def test_area_weighted_l1_of_half_precision_is_weighed_and_counted_in_float32() -> None:
    # 3 * 700 values: more than float16 or bfloat16 can count.
    predicted = torch.ones(1, 1, 3, 700, 1, dtype=torch.bfloat16, requires_grad=True)
    loss = area_weighted_l1(
        predicted,
        torch.zeros(1, 1, 3, 700, 1),
        latitude_weights=latitude_weights(3),
        residual_std=torch.ones(1),
    )
    loss.mean.backward()
    assert loss.count == 2100.0
    assert loss.mean.item() == pytest.approx(1.0, rel=1e-6)
    assert predicted.grad is not None
    assert predicted.grad.dtype == torch.bfloat16
