"""Losses against the reference's values, sums, counts and gradients."""

from typing import Any

import numpy as np
import pytest
import torch

from readouts.losses import MeanLoss, sigmoid_cross_entropy, squared_error

TOLERANCE = 1e-5


def close(found: torch.Tensor, expected: np.ndarray) -> bool:
    largest = max(float(np.abs(expected).max()), 1e-30)
    return float(np.abs(found.detach().numpy() - expected).max()) <= TOLERANCE * largest


def loss_of(golden: Any, inputs: dict[str, torch.Tensor]) -> MeanLoss:
    mask = {"mask": inputs.pop("mask")} if "mask" in inputs else {}
    function = squared_error if golden.name.startswith("loss_l2") else sigmoid_cross_entropy
    return function(*inputs.values(), **mask, **golden.meta["module_kwargs"])


@pytest.mark.golden("loss_sigmoid*", "loss_l2*")
def test_losses_are_the_references(golden: Any) -> None:
    inputs = {name: torch.from_numpy(array) for name, array in golden.under("in/").items()}
    for name in golden.under("grad/in/"):
        inputs[name].requires_grad_()
    loss = loss_of(golden, dict(inputs))
    loss.mean.backward()

    assert close(loss.values, golden.arrays["out/values"])
    assert close(loss.total, golden.arrays["out/state_value"])
    assert close(loss.count, golden.arrays["out/state_count"])
    assert close(loss.mean, golden.arrays["out/loss"])
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
    assert loss.values.tolist() == [1000.0, 0.0]
