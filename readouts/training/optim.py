"""The reference's optimiser: AdamW on everything, warm-up and cosine, and a clip of the finished update.

optax chains the clip *after* Adam, so it bounds the step that is taken, learning rate included, and never
touches a gradient. torch has no such option, hence an optimiser of our own around torch's fused kernel;
without the clip it is AdamW (Loshchilov & Hutter 2019).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from math import cos, pi
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

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

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one update, at the schedule's rate for its number."""
        lr = self.schedule(self.n_updates)
        groups = [(group, [p for p in group["params"] if p.grad is not None]) for group in self.param_groups]
        taking = [(group, params) for group, params in groups if params]
        if self.clip_update is None:
            for group, params in taking:
                self._adam(group, params, params, lr=lr * group["multiplier"], decay=group["weight_decay"])
        elif taking:
            self._clipped_step(taking, lr, self.clip_update)
        for group in self.param_groups:
            group["n_updates"] += 1

    def _clipped_step(self, taking: list[_Taking], lr: float, largest: float) -> None:
        updates = [[torch.zeros_like(p) for p in params] for _, params in taking]
        for (group, params), group_updates in zip(taking, updates, strict=True):
            self._adam(group, params, group_updates, lr=lr, decay=0.0)
            torch._foreach_add_(group_updates, params, alpha=-lr * group["weight_decay"])
        flat = list(chain.from_iterable(updates))
        torch._foreach_mul_(flat, _clip_factor(flat, largest))
        for (group, params), group_updates in zip(taking, updates, strict=True):
            torch._foreach_add_(params, group_updates, alpha=group["multiplier"])

    def _adam(
        self, group: dict[str, Any], params: list[Tensor], into: list[Tensor], *, lr: float, decay: float
    ) -> None:
        """Advance the moments of `params` and add their Adam step to `into`, by torch's fused kernel."""
        moments = [self._moments_of(parameter) for parameter in params]
        # The kernel counts in tensors, one a parameter; the count itself lives in the group.
        taken = float(group["n_updates"])
        counts = torch.full((len(params),), taken, dtype=torch.float32, device=params[0].device)
        beta1, beta2 = group["betas"]
        first_off = _correction_error(beta1, group["n_updates"] + 1)
        second_off = _correction_error(beta2, group["n_updates"] + 1) ** 0.5
        adamw(
            into,
            [p.grad for p in params if p.grad is not None],
            [first for first, _ in moments],
            [second for _, second in moments],
            [],
            list(counts.unbind()),
            fused=True,
            amsgrad=False,
            maximize=False,
            beta1=beta1,
            beta2=beta2,
            lr=lr * second_off / first_off,
            weight_decay=decay * first_off / second_off,
            eps=group["eps"] * second_off,
        )

    def _moments_of(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        state = self.state[parameter]
        if not state:
            state |= {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        return state["exp_avg"], state["exp_avg_sq"]


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
