"""Gradients of many heads on one batch, which is gone through once for all of them.

Tokens meet all heads in one pass forward and one backward (`readouts.tokens.pooling`). Between the two a head
reads its answer, is judged and sends its gradient back: small work of many calls. On few cores, splitting
each of those gains nothing, so heads are dealt to threads instead; a head on its own stays on one thread
too, so that what it computes does not depend on its company.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from featcache.system.threads import Item, Result, deal
from readouts.heads.base import Name, Readout, answers_of
from readouts.tokens.pooling import Answer
from readouts.tokens.prepared import PreparedTokens

FEW_THREADS = 4
"""Of torch, up to which a head stays on one: with more, a head alone would leave too many of them idle."""


def descend(
    heads: Mapping[Name, Readout],
    tokens: PreparedTokens,
    inputs: Mapping[str, Any],
    loss_of: Callable[[Name, Float[Tensor, "B *outputs"]], Float[Tensor, ""]],
) -> dict[Name, Float[Tensor, ""]]:
    """Leave the gradients of every head's loss in its parameters; returns the losses.

    `loss_of` judges the outputs of the head of a name, `inputs` are for heads that go to the tokens
    themselves. To the bit, losses and gradients of a head are those that it has alone.
    """
    answers = answers_of(heads, tokens)
    leaves = {name: _cut_off(answer) for name, answer in answers.items()}

    def study(name: Name) -> Float[Tensor, ""]:
        loss = loss_of(name, heads[name].read(leaves[name]))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    direct = {
        name: loss_of(name, head(tokens, **inputs)) for name, head in heads.items() if name not in leaves
    }
    asking = dict(zip(leaves, on_threads(study, leaves, tokens.native.device), strict=True))
    # One backward, so that the tokens are gone through once more and not once a head.
    ends: list[tuple[Tensor, Tensor | None]] = [(loss, None) for loss in direct.values()]
    for name, leaf in leaves.items():
        parts = (answers[name].pooled, leaf.pooled.grad), (answers[name].mass, leaf.mass.grad)
        ends += [(part, grad) for part, grad in parts if grad is not None]
    torch.autograd.backward([end for end, _ in ends], [grad for _, grad in ends])
    return {name: asking[name] if name in asking else direct[name].detach() for name in heads}


def on_threads(work: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> list[Result]:
    """`work` of every head or run, in order: each on one thread where there are few, and else on all."""
    if device.type == "cpu" and torch.get_num_threads() <= FEW_THREADS:
        return deal(work, items)
    return [work(item) for item in items]


def _cut_off(answer: Answer) -> Answer:
    """The same in no need of the tokens: its gradient stays with it until those of all heads are there."""
    pooled, mass = (part.detach().requires_grad_() for part in (answer.pooled, answer.mass))
    return Answer(pooled=pooled, mass=mass)
