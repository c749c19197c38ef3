"""The reference's optimiser: AdamW on everything, warm-up and cosine, and a clip of the finished update.

optax chains the clip *after* Adam, so it bounds the step that is taken, learning rate included, and never
touches a gradient. torch has no such option, hence an optimiser of our own around torch's fused kernel;
without the clip it is AdamW (Loshchilov & Hutter 2019).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from featcache.errors import CallError


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmupCosine:
    """Learning rate of update k = 0, 1, ...: a line from 0 to `peak`, then a half cosine to `end`."""

    peak: float
    steps: int
    """The update at which the cosine has arrived; later ones stay at `end`."""
    warmup: int
    """How many updates come before the peak."""
    end: float = 1e-7

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.warmup < self.steps:
            raise CallError(f"a warm-up of {self.warmup} updates does not fit into steps={self.steps}.")
        if not 0 <= self.end <= self.peak or self.peak == 0:
            raise CallError(
                f"the peak learning rate {self.peak} must be positive and at least end={self.end}."
            )

    def __call__(self, update: int) -> float:
        """The rate of one update: the first has rate 0 wherever there is a warm-up."""
        if update < self.warmup:
            return self.peak * update / self.warmup
        progress = min(1.0, (update - self.warmup) / (self.steps - self.warmup))
        return self.end + (self.peak - self.end) * 0.5 * (1.0 + cos(pi * progress))


_Taking = tuple[dict[str, Any], list[Tensor]]
"""A group, and those of its parameters that have a gradient."""


class ReferenceAdamW(Optimizer):
    """AdamW with decay on all parameters, whose finished update is clipped to a global norm.

    update = -lr(k) * (m / (sqrt(v) + eps) + weight_decay * p), m and v bias-corrected; then, over all groups
    together, update *= clip_update / norm where norm >= clip_update; then, by group, update *= `multiplier`
    (the reference's backbone_lr_multiplier, 1 by default). Parameters without a gradient stay as they are.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        schedule: Callable[[int], float],
        weight_decay: float = 1e-4,
        clip_update: float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        """Optimise `params`; groups may set their own weight_decay, betas, eps and multiplier."""
        self.schedule = schedule
        self.clip_update = clip_update
        own = {"weight_decay": weight_decay, "betas": betas, "eps": eps, "multiplier": 1.0}
        super().__init__(params, {**own, "n_updates": 0})

    @property
    def n_updates(self) -> int:
        """Updates taken so far: k of the next one. Part of the state dict."""
        taken: int = self.param_groups[0]["n_updates"]
        return taken

    def step(self) -> None:  # type: ignore[override]
        """Take one update, at the schedule's rate for its number."""
        step_together([self])

    def _moments_of(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        state = self.state[parameter]
        if not state:
            state |= {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        return state["exp_avg"], state["exp_avg_sq"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rates:
    """What the kernel takes as numbers, alike for all parameters of a call."""

    lr: float
    decay: float
    betas: tuple[float, float]
    eps: float
    taken: int
    """Updates before this one."""


_Advances = tuple[Tensor, Tensor, Tensor, Tensor]
"""What an Adam step is added to, and of its parameter the gradient and both moments."""


@torch.no_grad()
def step_together(optimizers: Sequence[ReferenceAdamW]) -> None:
    """Take one update of each, all parameters of equal rates in one call: numbers are those of each alone."""
    advances: dict[_Rates, list[_Advances]] = {}
    clipped: list[tuple[ReferenceAdamW, list[tuple[_Taking, list[Tensor]]]]] = []
    for optimizer in optimizers:
        lr, clip = optimizer.schedule(optimizer.n_updates), optimizer.clip_update
        updates: list[tuple[_Taking, list[Tensor]]] = []
        for group in optimizer.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            into = params if clip is None else _zeros_like(params)
            updates.append(((group, params), into))
            rates = _Rates(
                lr=lr * group["multiplier"] if clip is None else lr,
                decay=group["weight_decay"] if clip is None else 0.0,
                betas=tuple(group["betas"]),
                eps=group["eps"],
                taken=group["n_updates"],
            )
            advances.setdefault(rates, []).extend(
                (to, p.grad, *optimizer._moments_of(p))
                for to, p in zip(into, params, strict=True)
                if p.grad is not None
            )
        if clip is not None and updates:
            clipped.append((optimizer, updates))
    counts: dict[tuple[int, torch.device], Tensor] = {}
    for rates, of_all in advances.items():
        key = rates.taken, of_all[0][0].device
        if key not in counts:
            counts[key] = torch.full((), float(rates.taken + 1), dtype=torch.float32, device=key[1])
        _adam(rates, of_all, counts[key])
    for optimizer, updates in clipped:
        _finish(optimizer, updates)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["n_updates"] += 1


def _zeros_like(params: Sequence[Tensor]) -> list[Tensor]:
    """In one piece, for the device's sake."""
    first = params[0]
    flat = torch.zeros(sum(p.numel() for p in params), dtype=first.dtype, device=first.device)
    parts = torch.split(flat, [p.numel() for p in params])
    return [part.view(p.shape) for part, p in zip(parts, params, strict=True)]


def _finish(optimizer: ReferenceAdamW, updates: list[tuple[_Taking, list[Tensor]]]) -> None:
    """Decay and clip what Adam made of one optimiser's parameters, and add it to them."""
    assert optimizer.clip_update is not None
    lr = optimizer.schedule(optimizer.n_updates)
    for (group, params), into in updates:
        torch._foreach_add_(into, params, alpha=-lr * group["weight_decay"])
    flat = [update for _, into in updates for update in into]
    torch._foreach_mul_(flat, _clip_factor(flat, optimizer.clip_update))
    for (group, params), into in updates:
        torch._foreach_add_(params, into, alpha=group["multiplier"])


def _adam(rates: _Rates, advances: list[_Advances], count: Float[Tensor, ""]) -> None:
    """Advance moments and add the Adam step of each parameter, by torch's fused kernel.

    `count` is the update's number from 1, which the kernel takes from the device.
    """
    into, grads, firsts, seconds = (list(of_all) for of_all in zip(*advances, strict=True))
    beta1, beta2 = rates.betas
    first_off = _correction_error(beta1, rates.taken + 1)
    second_off = _correction_error(beta2, rates.taken + 1) ** 0.5
    torch._fused_adamw_(
        into,
        grads,
        firsts,
        seconds,
        [],
        [count] * len(into),
        lr=rates.lr * second_off / first_off,
        beta1=beta1,
        beta2=beta2,
        weight_decay=rates.decay * first_off / second_off,
        eps=rates.eps * second_off,
        amsgrad=False,
        maximize=False,
    )


def _correction_error(beta: float, count: int) -> float:
    """The bias correction 1 - beta^count as optax takes it, in float32, over the exact one.

    0.999 has no float32: early updates of the reference differ by 1e-5 of their size from those of torch.
    """
    single = np.float32(1.0) - np.float32(beta) ** np.float32(count)
    return float(single) / (1.0 - beta**count)


def global_norm(tensors: list[Tensor]) -> Float[Tensor, ""]:
    """The Euclidean norm of all elements of all tensors, on their device."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
    return norm


def _clip_factor(updates: list[Tensor], largest: float) -> Float[Tensor, ""]:
    """1 up to `largest`, then largest / norm: no epsilon, and no wait for the device."""
    factor: Tensor = largest / global_norm(updates).clamp(min=largest)
    return factor
