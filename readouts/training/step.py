"""Heads and optimiser at one step, and how a step is taken: losses, gradients, update; nothing is on disk.

Initial weights and dropout are pure functions of the run's seed and the step, and dropout is drawn anew for
each head: being killed and resumed changes no bit of a run, sharing a pass with others no more than rounding.

One step goes through the tokens once for all heads, forward and backward (`readouts.tokens.pooling`). Between
the two each head reads what it pooled, is judged and sends its gradient back: small work of many calls.
Splitting each of those among threads gains little, so on a CPU a head has one thread, and others run beside
it: what it learns from pooled tokens does not depend on how many threads a machine has.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from featcache.store.feature_store import FeatureStore
from featcache.system.threads import Item, Result, parallel_map
from readouts.heads import build_head
from readouts.heads.base import Name, Readout, pool_together
from readouts.tasks.base import Recipe, Rows
from readouts.tokens.pooling import Pooled
from readouts.tokens.prepared import PreparedTokens, TokenPreparation
from readouts.training.optim import ReferenceAdamW, WarmupCosine
from readouts.training.run import Run


def backward(
    heads: Mapping[Name, Readout],
    tokens: PreparedTokens,
    inputs: Mapping[str, Any],
    loss_of: Callable[[Name, Float[Tensor, "B *outputs"]], Float[Tensor, ""]],
) -> dict[Name, Float[Tensor, ""]]:
    """Leave the gradients of every head's loss in its parameters; returns the losses, in the heads' order.

    `loss_of` judges the outputs of the head of a name, `inputs` are for heads that read the tokens
    themselves.
    """
    pooled = pool_together(heads, tokens)
    leaves = {name: _detached(of_head) for name, of_head in pooled.items()}

    def backward_to_leaf(name: Name) -> Float[Tensor, ""]:
        loss = loss_of(name, heads[name].read(leaves[name]))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    losses: dict[Name, Float[Tensor, ""]] = {}
    ends: list[tuple[Tensor, Tensor | None]] = []
    for name, head in heads.items():
        if name not in leaves:
            losses[name] = loss_of(name, head(tokens, **inputs))
            if tokens.differentiable is None:
                # At once, so that no two heads hold what their backward passes need.
                losses[name].backward()  # type: ignore[no-untyped-call]
            else:
                ends.append((losses[name], None))
    losses |= zip(leaves, for_each(backward_to_leaf, leaves, tokens.native.device), strict=True)
    # One backward for all, so that the tokens are gone through once and not once per head.
    for name, leaf in leaves.items():
        parts = (pooled[name].tokens, leaf.tokens.grad), (pooled[name].mass, leaf.mass.grad)
        ends += [(part, grad) for part, grad in parts if grad is not None]
    if ends:
        torch.autograd.backward([end for end, _ in ends], [grad for _, grad in ends])
    return {name: losses[name].detach() for name in heads}


def for_each(work: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> list[Result]:
    """`work` of every head or run, in order: on a CPU side by side, one thread each."""
    return parallel_map(work, items) if device.type == "cpu" else [work(item) for item in items]


def _detached(pooled: Pooled) -> Pooled:
    """Cut off from the tokens, so that its gradient stays with it until those of all heads are there."""
    tokens, mass = (part.detach().requires_grad_() for part in (pooled.tokens, pooled.mass))
    return Pooled(tokens=tokens, mass=mass)


class TrainState:
    """Heads and optimiser of a run, at one step."""

    def __init__(self, run: Run, device: torch.device) -> None:
        """Start at step 0, with the seed's initial weights."""
        self.run, self.device, self.step = run, device, 0
        self.heads = build_heads(run).to(device)
        self.optimizer = ReferenceAdamW(
            self.heads.parameters(),
            schedule=schedule_of(run.recipe),
            weight_decay=run.recipe.weight_decay,
            clip_update=run.recipe.clip_update,
        )

    @property
    def readouts(self) -> dict[str, Readout]:
        """The heads by the name of their kind."""
        return {kind: cast("Readout", head) for kind, head in self.heads.items()}

    def update(self) -> None:
        """Take one step down the gradients that are there."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1


def take_step(
    states: Sequence[TrainState], tokens: PreparedTokens, targets: Rows
) -> list[dict[str, Float[Tensor, ""]]]:
    """Take every run a step down the gradient of its heads' losses on one batch; returns those, run by run.

    They are of one task, and share the pass over the tokens and nothing else: each has the numbers it has
    alone, up to rounding.
    """
    task, device = states[0].run.task, states[0].device
    heads: dict[tuple[int, str], Readout] = {}
    for i, state in enumerate(states):
        state.heads.train()
        for kind, head in state.readouts.items():
            # What a head drops next is a function of seed and step.
            seed = (state.run.seed << 32) + state.step
            head.draw_dropout_from(torch.Generator(device).manual_seed(seed))
            heads[i, kind] = head
    losses = backward(heads, tokens, task.inputs(targets), lambda _, outputs: task.loss(outputs, targets))
    for_each(TrainState.update, states, device)
    return [{kind: losses[i, kind] for kind in state.readouts} for i, state in enumerate(states)]


def schedule_of(recipe: Recipe) -> WarmupCosine:
    """The learning rate of each update."""
    return WarmupCosine(peak=recipe.lr, steps=recipe.steps, warmup=min(recipe.warmup, recipe.steps - 1))


def build_preparation(run: Run) -> TokenPreparation:
    """The replay of the reference's up-sampling in time, alike for all runs of one pass."""
    store = run.splits["train"].store
    return TokenPreparation(
        steps_in=store.spec.grid.steps, steps_out=_readout_steps(store), method=store.attrs["upsampling"]
    )


def build_heads(run: Run) -> nn.ModuleDict:
    """The heads with the seed's initial weights, by kind."""
    store = run.splits["train"].store
    grid = store.spec.grid
    heads = nn.ModuleDict()
    for kind, settings in run.readouts.items():
        heads[kind] = build_head(
            kind,
            channels=grid.channels,
            steps=_readout_steps(store),
            rows=grid.rows,
            columns=grid.columns,
            n_outputs=run.task.n_outputs,
            generator=torch.Generator().manual_seed(run.seed),
            **settings,
        )
    return heads


def _readout_steps(store: FeatureStore) -> int:
    """Steps that heads see: those of the reference's readouts, or the backbone's own."""
    steps: int = store.attrs["readout_steps"] or store.spec.grid.steps
    return steps
