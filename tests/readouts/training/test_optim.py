"""The optimiser against optax's numbers, step by step, and against torch's AdamW."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from featcache.errors import CallError
from readouts.training.optim import ReferenceAdamW, WarmupCosine, global_norm

RTOL, ATOL = 1e-5, 5e-7
"""Half the fixtures' own tolerance, all of which an exact bias correction would use up."""


def schedule_of(optax: dict[str, float]) -> WarmupCosine:
    return WarmupCosine(
        peak=optax["peak_value"],
        steps=int(optax["decay_steps"]),
        warmup=int(optax["warmup_steps"]),
        end=optax["end_value"],
    )


def groups_of(parameters: dict[str, Tensor], multiplier: float) -> list[dict[str, Any]]:
    """Heads, and the backbone where it is trained at all."""
    heads = [p for name, p in parameters.items() if not name.startswith("model/")]
    backbone = [p for name, p in parameters.items() if name.startswith("model/")]
    trained = [{"params": backbone, "multiplier": multiplier}] if multiplier else []
    return [{"params": heads}, *trained]


@pytest.mark.golden("optim_adamw*")
def test_every_update_is_optaxs(golden: Any) -> None:
    schedule = schedule_of(golden.optax)
    parameters = {name: torch.tensor(a, requires_grad=True) for name, a in golden.under("param/").items()}
    weights, targets = golden.under("in/a/"), golden.under("in/t/")
    optimizer = ReferenceAdamW(
        groups_of(parameters, golden.optax["scale_backbone"]),
        schedule=schedule,
        weight_decay=golden.optax["weight_decay"],
        clip_update=golden.optax.get("clip_by_global_norm"),
    )
    n_steps = 1 + max(int(name.partition("/")[0]) for name in golden.under("out/"))
    for step in range(n_steps):
        expected = golden.under(f"out/{step}/")
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        loss = sum(
            (0.5 * torch.from_numpy(weights[name]) * (p - torch.from_numpy(targets[name])).square()).sum()
            for name, p in parameters.items()
        )
        optimizer.zero_grad()
        loss.backward()
        assert schedule(step) == pytest.approx(float(expected["lr"]), rel=2e-6, abs=2e-10)
        assert_close(loss.detach(), expected["loss_before"], "loss")
        optimizer.step()
        for name, parameter in parameters.items():
            found = parameter.detach()
            assert_close(found, expected[f"param/{name}"], f"{name} after update {step}")
            assert_close(found - before[name], expected[f"update/{name}"], f"update {step} of {name}")


def assert_close(found: Tensor, expected: np.ndarray, what: str) -> None:
    np.testing.assert_allclose(found, expected, rtol=RTOL, atol=ATOL, err_msg=what)


@pytest.mark.golden("optim_schedule*")
def test_every_learning_rate_is_optaxs(golden: Any) -> None:
    config = golden.meta["module_kwargs"]
    for name, steps in golden.under("in/steps_").items():
        schedule = WarmupCosine(
            peak=config["peak_value"],
            steps=int(name.removeprefix("n")),
            warmup=min(1000, int(name.removeprefix("n")) - 1),
            end=config["end_value"],
        )
        rates = [schedule(int(step)) for step in steps]
        np.testing.assert_allclose(rates, golden.arrays[f"out/{name}"], rtol=2e-6, atol=2e-10)


def test_the_schedule_by_hand() -> None:
    schedule = WarmupCosine(peak=1.0, steps=6, warmup=2, end=0.0)
    # A line 0, 1/2, then a half cosine over 4 updates: 1, (1 + cos 45) / 2, 1/2, ..., 0 for ever.
    assert [schedule(k) for k in (0, 1, 2, 4, 6, 9)] == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0, 0.0])
    assert schedule(3) == pytest.approx(0.8535534)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"peak": 1.0, "steps": 0}, "steps=0"),
        ({"peak": 1.0, "steps": 4, "warmup": 4}, "warm-up of 4"),
        ({"peak": 0.0, "steps": 4, "end": 0.0}, "peak"),
        ({"peak": 1e-8, "steps": 4}, "end=1e-07"),
    ],
)
def test_impossible_schedules_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(CallError, match=told):
        WarmupCosine(**{"warmup": 0, **wrong})


def parameters_and_gradients(seed: int) -> tuple[list[Tensor], list[list[Tensor]]]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(5, 3), (7,)]
    parameters = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    gradients = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(8)]
    return parameters, gradients


def take(optimizer: torch.optim.Optimizer, parameters: list[Tensor], gradients: list[list[Tensor]]) -> None:
    for of_step in gradients:
        for parameter, gradient in zip(parameters, of_step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()


def test_without_a_clip_it_is_adamw() -> None:
    ours, gradients = parameters_and_gradients(0)
    theirs = copy.deepcopy(ours)
    take(ReferenceAdamW(ours, schedule=lambda _: 0.1, weight_decay=0.3), ours, gradients)
    take(torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.3), theirs, gradients)
    # Eight updates of about 0.1; optax's corrections are 1e-5 off.
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_clip_that_never_bites_changes_nothing_but_rounding() -> None:
    free, gradients = parameters_and_gradients(0)
    clipped = copy.deepcopy(free)
    schedule = WarmupCosine(peak=0.1, steps=8, warmup=7)
    take(ReferenceAdamW(free, schedule=schedule), free, gradients)
    take(ReferenceAdamW(clipped, schedule=schedule, clip_update=1e6), clipped, gradients)
    for found, expected in zip(clipped, free, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_the_clip_bounds_the_update_over_all_groups_together() -> None:
    parameters, gradients = parameters_and_gradients(0)
    before = [parameter.detach().clone() for parameter in parameters]
    groups = [{"params": [parameter]} for parameter in parameters]
    optimizer = ReferenceAdamW(groups, schedule=lambda _: 1.0, clip_update=0.5)
    take(optimizer, parameters, gradients[:1])
    moved = [p.detach() - old for p, old in zip(parameters, before, strict=True)]
    assert global_norm(moved).item() == pytest.approx(0.5, rel=1e-6)


def test_parameters_without_a_gradient_stay() -> None:
    moving, still = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    groups = [{"params": [moving]}, {"params": [still]}]
    moving.grad = torch.ones(2)
    ReferenceAdamW(groups, schedule=lambda _: 0.1, clip_update=1.0).step()
    assert still.tolist() == [1.0, 1.0]
    assert moving.tolist() != [1.0, 1.0]


@pytest.mark.parametrize("clip", [None, 0.2])
def test_a_state_dict_continues_bit_for_bit(clip: float | None) -> None:
    schedule = WarmupCosine(peak=0.1, steps=8, warmup=7)
    whole, gradients = parameters_and_gradients(3)
    halves = copy.deepcopy(whole)
    take(ReferenceAdamW(whole, schedule=schedule, clip_update=clip), whole, gradients)

    first = ReferenceAdamW(halves, schedule=schedule, clip_update=clip)
    take(first, halves, gradients[:4])
    second = ReferenceAdamW(halves, schedule=schedule, clip_update=clip)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.n_updates == 4
    take(second, halves, gradients[4:])
    assert all(map(torch.equal, whole, halves))
