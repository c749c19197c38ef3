"""What of a backbone a run trains beside its readouts: in the run's name, in its rows, in its steps.

Whole: from pixels, as the reference does with a backbone_lr_multiplier above 0. Partial: the upper blocks
below the layer that readouts see, from tokens stored after the block under them. Who makes the module, and
who reads pixels, is said from outside (`readouts.tuning`): nothing here knows a backbone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from featcache.errors import CallError
from featcache.spec import Layer
from readouts.features.batches import Batch, Feed
from readouts.tasks.base import Recipe
from readouts.tokens.prepared import PreparedTokens, dense_tokens

BACKBONE_LR = 0.1
"""Unless another is asked for. The reference's code has no value but 0, which is off."""

FRESH_VIEWS = 2**31
"""How many views there are to draw from where each is made when it is drawn: none comes twice."""

Build = Callable[[torch.device, bool], nn.Module]
"""(device, whether products are of bfloat16) -> the module, with its initial weights, in float32."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What is trained of a backbone, and how far its updates go."""

    blocks: int | None
    """Upper blocks below `layer`, from tokens stored after the block under them; None: all, from pixels."""
    backbone_lr: float
    """What the backbone's finished updates are multiplied by, decay and clip included."""
    layer: Layer
    """That readouts see."""
    build: Build = field(compare=False)
    feeds: Mapping[str, Feed] | None = field(default=None, compare=False)
    """Role -> batches of pixels; None where tokens are read from the stores."""
    cost: Callable[[Recipe], Sequence[str]] = field(default=lambda recipe: (), compare=False)
    """What to know of its cost before it begins, a sentence each."""
    fresh_views: bool = False
    """Whether a training clip is shown in a new view each time, as no store can."""
    micro_batch: int = 0
    """Clips that go through the backbone at a time, 0 for all: no number depends on it but by rounding."""

    def __post_init__(self) -> None:
        if not 0 < self.backbone_lr < inf:
            raise CallError(
                f"--backbone-lr {self.backbone_lr} must be above 0: it multiplies the backbone's updates, "
                "and a frozen backbone is trained without --tune."
            )
        if self.micro_batch < 0:
            raise CallError(f"--micro-batch {self.micro_batch} must be at least 1.")

    @property
    def decisions(self) -> dict[str, Any]:
        """What of it decides a run's numbers."""
        what = "all" if self.blocks is None else self.blocks
        return {"blocks": what, "backbone_lr": self.backbone_lr, "layer": self.layer.name}

    @property
    def columns(self) -> dict[str, Any]:
        """What the results table says of it."""
        whole = self.blocks is None
        return {
            "tuned": "whole" if whole else "partial",
            "tuned_blocks": self.blocks,
            "backbone_lr": self.backbone_lr,
            "layer": self.layer.name,
            **({"exactness": "exact"} if whole else {}),
            **({"views": None} if self.fresh_views else {}),
        }


def given_to(batch: Batch) -> Float[Tensor, "B *axes"]:
    """What a backbone is given of a batch: its pixels, or its tokens in float32, those of one layer."""
    assert not isinstance(batch.tokens, Mapping)
    return batch.tokens if isinstance(batch.tokens, Tensor) else dense_tokens(batch.tokens)


@dataclass(frozen=True, slots=True)
class Tuned:
    """A backbone in training, run some clips at a time."""

    module: nn.Module
    micro_batch: int = 0

    def tokens(self, given: Float[Tensor, "B *axes"]) -> Float[Tensor, "B T N C"]:
        """Tokens of all clips, with nothing kept for a backward pass."""
        with torch.no_grad():
            parts = [self.module(part) for part in self._parts(given)]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

    def tokens_and_backward(
        self, given: Float[Tensor, "B *axes"]
    ) -> tuple[Float[Tensor, "B T N C"], Callable[[], None]]:
        """Tokens that take part in autograd; what sends the gradient that they got into the parameters.

        In several parts each is computed again for its backward pass: readouts and losses see the whole
        batch at once, and only one part's activations are there at a time.
        """
        parts = self._parts(given)
        if len(parts) == 1:
            found: Tensor = self.module(given)
            leaf = found.detach().requires_grad_()
            return leaf, lambda: found.backward(leaf.grad)  # type: ignore[no-untyped-call]
        leaf = self.tokens(given).requires_grad_()

        def backward() -> None:
            assert leaf.grad is not None
            for part, gradient in zip(
                parts, torch.split(leaf.grad, [len(one) for one in parts]), strict=True
            ):
                self.module(part).backward(gradient)

        return leaf, backward

    def _parts(self, given: Float[Tensor, "B *axes"]) -> list[Float[Tensor, "b *axes"]]:
        return list(torch.split(given, self.micro_batch or len(given)))


Prepare = Callable[[Any], PreparedTokens]
"""Makes of tokens what heads see."""
