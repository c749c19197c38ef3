"""Heads and optimiser at one step, and how a step is taken: losses, gradients, update; nothing is on disk.

Initial weights and dropout are pure functions of the run's seed and the step, and dropout is drawn anew for
each head. No kernel adds in an order of its own (`readouts.training.arithmetic`): on one machine, CPU or GPU,
a repeated step has the same bits, so being killed and resumed changes none of a run. Sharing a pass with
others changes no more than rounding. A tuned backbone repeats as its attention does: on a GPU the fused one's
backward pass adds by atomics.

One step goes through the tokens once for all heads, forward and backward (`readouts.tokens.pooling`). Between
the two each head reads what it pooled, is judged and sends its gradient back: small work of many calls.
Splitting each of those among threads gains little, so on a CPU a head has one thread, and others run beside
it: what it learns from pooled tokens does not depend on how many threads a machine has. A GPU waits for calls
instead, so there equal heads go as one (`readouts.training.stack`).
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast
from weakref import ref

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from featcache.system.threads import Item, Result, parallel_map
from readouts.features.splits import TokensRead
from readouts.heads import build_head
from readouts.heads.base import Found, Name, Readout, find_together, tokens_of
from readouts.tasks.base import Recipe, Rows
from readouts.tasks.from_file import FileTask
from readouts.tokens.pooling import Pooled
from readouts.tokens.prepared import Prepared, TokenPreparation, each_layer
from readouts.training.optim import ReferenceAdamW, WarmupCosine, step_together
from readouts.training.room import heads_at_once
from readouts.training.run import Run
from readouts.training.stack import Stack, in_stacks, losses_of
from readouts.training.tuning import Prepare, Tuned


def backward(
    heads: Mapping[Name, Readout],
    tokens: Prepared,
    inputs: Mapping[str, Any],
    loss_of: Callable[[Name, Float[Tensor, "*outputs"]], Float[Tensor, "*n"]],
) -> dict[Name, Float[Tensor, "*n"]]:
    """Leave the gradients of every head's loss in its parameters; returns the losses, in the heads' order.

    `loss_of` judges the outputs of the head of a name, those of a stack head by head; `inputs` are for heads
    that read the tokens themselves. Those are done one after the other, and no two, or two stacks, hold what
    their backward passes need; unless the tokens learn, for which all heads' gradients are needed at once.
    """
    every = each_layer(tokens)
    learns = any(of_layer.differentiable is not None for of_layer in every)
    found = find_together(heads, tokens)
    leaves = {name: _detached(of_head) for name, of_head in found.items()}

    def backward_to_leaf(name: Name) -> Float[Tensor, "*n"]:
        loss = loss_of(name, heads[name].read(leaves[name]))
        loss.sum().backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    losses: dict[Name, Tensor] = {}
    ends: list[tuple[Tensor, Tensor | None]] = []
    for name, head in heads.items():
        if name not in leaves:
            losses[name] = loss_of(name, head(tokens_of(head, tokens), **inputs))
            if not learns:
                losses[name].sum().backward()  # type: ignore[no-untyped-call]
            else:
                ends.append((losses[name].sum(), None))
    losses |= zip(leaves, for_each(backward_to_leaf, leaves, every[0].native.device), strict=True)
    # One backward for all, so that the tokens are gone through once and not once per head.
    for name, leaf in leaves.items():
        pairs = zip(_parts(found[name]), _parts(leaf), strict=True)
        ends += [(part, own.grad) for part, own in pairs if own.grad is not None]
    if ends:
        torch.autograd.backward([end for end, _ in ends], [grad for _, grad in ends])
    return {name: losses[name].detach() for name in heads}


def for_each(work: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> list[Result]:
    """`work` of every head or run, in order: on a CPU side by side, one thread each."""
    return parallel_map(work, items) if device.type == "cpu" else [work(item) for item in items]


def _detached(found: Found | tuple[Found, ...]) -> Found | tuple[Found, ...]:
    """Cut off from the tokens, so that its gradient stays with it until those of all heads are there."""
    if isinstance(found, tuple):
        return tuple(_detached_of_layer(one) for one in found)
    return _detached_of_layer(found)


def _detached_of_layer(found: Found) -> Found:
    if isinstance(found, Tensor):
        return found.detach().requires_grad_(found.requires_grad)
    tokens, mass = (part.detach().requires_grad_() for part in _parts(found))
    return Pooled(tokens=tokens, mass=mass)


def _parts(found: Found | tuple[Found, ...]) -> tuple[Tensor, ...]:
    if isinstance(found, tuple):
        return tuple(part for one in found for part in _parts(one))
    return (found,) if isinstance(found, Tensor) else (found.tokens, found.mass)


class TrainState:
    """Heads and optimiser of a run, at one step; and what is trained of the backbone."""

    def __init__(self, run: Run, device: torch.device) -> None:
        """Start at step 0, with the seed's initial weights."""
        self.run, self.device, self.step = run, device, 0
        self.company: Company | None = None
        """The runs beside which it took its last step."""
        self.heads = build_heads(run).to(device)
        self.backbone = build_backbone(run, device)
        """None where it is frozen."""
        self.optimizer = ReferenceAdamW(
            self._groups(),
            schedule=schedule_of(run.recipe),
            weight_decay=run.recipe.weight_decay,
            clip_update=run.recipe.clip_update,
        )

    @property
    def readouts(self) -> dict[str, Readout]:
        """The heads by the name of their kind."""
        return {kind: cast("Readout", head) for kind, head in self.heads.items()}

    @property
    def learned(self) -> nn.Module:
        """All that is trained, under the names that a checkpoint has."""
        if self.backbone is None:
            return self.heads
        return nn.ModuleDict({**dict(self.heads.items()), "backbone": self.backbone.module})

    def _groups(self) -> list[dict[str, Any]]:
        heads = {"params": list(self.heads.parameters())}
        if self.backbone is None or self.run.tuning is None:
            return [heads]
        learning = [p for p in self.backbone.module.parameters() if p.requires_grad]
        return [heads, {"params": learning, "multiplier": self.run.tuning.backbone_lr}]


class Company:
    """Runs that take a step together, and their equal heads as stacks where a device gains by that."""

    def __init__(self, states: Sequence[TrainState], tokens: Prepared, targets: Rows) -> None:
        """Stack what can be stacked, heads of one kind and equal settings; batches will be as this one."""
        # Not held: a state holds its company, and a circle would keep both in a GPU's memory for a while.
        self._states = [ref(state) for state in states]
        heads = {(i, kind): head for i, state in enumerate(states) for kind, head in state.readouts.items()}
        settings = {
            (i, kind): json.dumps([dict(states[i].run.readouts[kind]), states[i].run.training.layer_name])
            for i, kind in heads
        }
        at_once = partial(heads_at_once, task=states[0].run.task, tokens=tokens, targets=targets)
        self.heads: dict[Names, Readout] = in_stacks(heads, settings, states[0].device, at_once)

    @classmethod
    def of(cls, states: Sequence[TrainState], tokens: Prepared, targets: Rows) -> "Company":
        """That of the last step, if all of it is here and none was elsewhere since."""
        company = states[0].company
        together = all(state.company is company for state in states)
        if company is not None and together and [of() for of in company._states] == list(states):
            return company
        company = cls(states, tokens, targets)
        for state in states:
            state.company = company
        return company

    def update(self, states: Sequence[TrainState]) -> None:
        """Take one step down the gradients that are there; `states` are its own."""
        for head in self.heads.values():
            if isinstance(head, Stack):
                head.hand_out_gradients()
        optimizers = [state.optimizer for state in states]
        if states[0].device.type == "cpu":
            parallel_map(ReferenceAdamW.step, optimizers)
        else:
            step_together(optimizers)
        for state in states:
            state.optimizer.zero_grad()
            state.step += 1


Names = tuple[tuple[int, str], ...]
"""Of a head or a stack: of each head the number of its run, and its kind."""


def take_tuned_step(
    state: TrainState, given: Float[Tensor, "B *axes"], prepare: Prepare, targets: Rows
) -> dict[str, Float[Tensor, ""]]:
    """As `take_step` for one run and its backbone, which is given tokens of a lower block, or pixels."""
    assert state.backbone is not None
    tokens, backward_below = state.backbone.tokens_and_backward(given)
    (losses,) = take_step([state], prepare(tokens), targets, below=backward_below)
    return losses


def take_step(
    states: Sequence[TrainState],
    tokens: Prepared,
    targets: Rows,
    *,
    below: Callable[[], None] = lambda: None,
) -> list[dict[str, Float[Tensor, ""]]]:
    """Take every run a step down the gradient of its heads' losses on one batch; returns those, run by run.

    They are of one task, and share the pass over the tokens and nothing else: each has the numbers it has
    alone, up to rounding. `below` takes the tokens' gradient further down, where they have one.
    """
    task, device = states[0].run.task, states[0].device
    for state in states:
        state.heads.train()
        # What a head drops next is a function of seed and step.
        seed = _mixed(state.run.seed, state.step)
        for head in state.readouts.values():
            head.draw_dropout_from(torch.Generator(device).manual_seed(seed))
    company = Company.of(states, tokens, targets)

    def loss_of(names: Names, outputs: Tensor) -> Tensor:
        own = isinstance(task, FileTask)
        return losses_of(lambda of_one: task.loss(of_one, targets), names, outputs, one_by_one=own)

    losses = backward(company.heads, tokens, task.inputs(targets), loss_of)
    below()
    company.update(states)
    by_name = {
        name: loss
        for names, of_each in losses.items()
        for name, loss in zip(names, of_each.unbind(), strict=True)
    }
    return [{kind: by_name[i, kind] for kind in state.readouts} for i, state in enumerate(states)]


def _mixed(seed: int, step: int) -> int:
    """A seed that depends on both in its low 32 bits as well: torch's generator of a CPU sees no others."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])


def schedule_of(recipe: Recipe) -> WarmupCosine:
    """The learning rate of each update."""
    return WarmupCosine(peak=recipe.lr, steps=recipe.steps, warmup=min(recipe.warmup, recipe.steps - 1))


def build_preparation(run: Run) -> TokenPreparation:
    """The replay of the reference's up-sampling in time, alike for all runs of one pass."""
    return preparation_of(run.reads)


def preparation_of(reads: TokensRead) -> TokenPreparation:
    """That of tokens of this form."""
    return TokenPreparation(steps_in=reads.grid.steps, steps_out=reads.steps, method=reads.upsampling)


def build_heads(run: Run) -> nn.ModuleDict:
    """The heads with the seed's initial weights, by kind."""
    return heads_of(run.readouts, run.reads, n_outputs=run.task.n_outputs, seed=run.seed)


def heads_of(
    readouts: Mapping[str, Mapping[str, Any]], reads: TokensRead, *, n_outputs: int, seed: int
) -> nn.ModuleDict:
    """New heads for tokens of this form, with their settings, by kind."""
    heads = nn.ModuleDict()
    for kind, settings in readouts.items():
        heads[kind] = head = build_head(
            kind,
            channels=reads.grid.channels,
            steps=reads.steps,
            rows=reads.grid.rows,
            columns=reads.grid.columns,
            n_layers=len(reads.layers),
            n_outputs=n_outputs,
            generator=torch.Generator().manual_seed(seed),
            **settings,
        )
        head.layers = reads.layers
    return heads


def build_backbone(run: Run, device: torch.device) -> Tuned | None:
    """What is trained of the backbone, with its initial weights; None where it is frozen."""
    if run.tuning is None:
        return None
    # A CPU's kernels round inside (`readouts.training.arithmetic`).
    rounds = run.recipe.precision == "bfloat16" and device.type != "cpu"
    return Tuned(run.tuning.build(device, rounds), run.tuning.micro_batch)
