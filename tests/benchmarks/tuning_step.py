"""A step that trains two upper blocks from stored tokens, beside one that runs the ten below for it online.

Both read their batches from a store of a tiny ViT's tokens; the online rival then runs the lower blocks on
clips that are decoded already, in its favour, and goes on with what they give: the two steps are of the same
arithmetic. With a forward pass as the unit and a backward one as two, the blocks alone make the ratio
(k + 3m) / 3m; what reading, readout and update cost takes away from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from featcache.backbones.base import Backbone
from featcache.backbones.model import vit_info
from featcache.backbones.trainable import TrainableBackbone, trainable
from featcache.spec import Layer
from featcache.system.device import choose_device
from readouts.features.batches import Batch
from readouts.heads import AttentionReadout
from readouts.tokens.prepared import TokenPreparation
from readouts.training.optim import ReferenceAdamW
from readouts.training.step import backward, for_each
from readouts.training.tuning import Tuned, given_to
from tests.benchmarks.feed import feed_of
from tests.benchmarks.random_backbones import random_backbone
from tests.benchmarks.side_by_side import Claim, claim, in_turn
from tests.benchmarks.stores import N_CLASSES, Setting

FROZEN, TUNED = 10, 2
ARITHMETIC = (FROZEN + 3 * TUNED) / (3 * TUNED)
GROUP = f"{TUNED} tuned blocks above {FROZEN} frozen ones"


def deep(n_blocks: int, device: torch.device, *, small: bool = False) -> Backbone:
    """A 4DS of so many blocks of 192 channels, whose readouts see the last, with random weights."""
    whole: Any = random_backbone("4ds_b_dist_e", device, depth=n_blocks)
    width, side = (24, 32) if small else (192, 112)
    block = replace(whole.size.block, width=width, heads=3, mlp=4 * width)
    size = replace(whole.size, block=block, input_size=(side, side))
    info = replace(vit_info("4ds_tiny", "4ds", size), default_layers=(Layer(n_blocks),))
    tiny: Backbone = replace(whole, info=info, size=size)
    return tiny


def setting_of(backbone: Backbone, small: bool) -> Setting:
    """A store of the tokens that the tuned blocks begin at."""
    n_clips, batch = (8, 2) if small else (64, 8)
    return Setting(
        grid=backbone.info.grid, n_clips=n_clips, clips_per_shard=8, batch=batch, threads=2, rounds=1
    )


@dataclass(frozen=True, slots=True)
class TunedRun:
    """Upper blocks and a readout in training, as `readouts.training.step` steps them."""

    blocks: Tuned
    head: AttentionReadout
    prepare: TokenPreparation
    optimizer: ReferenceAdamW

    @classmethod
    def of(cls, backbone: Backbone, device: torch.device) -> "TunedRun":
        """With its initial weights."""
        grid, layer = backbone.info.grid, backbone.info.default_layers[0]
        upper = trainable(backbone, layer, device, begin=layer.block - TUNED)
        head = AttentionReadout(
            channels=grid.channels, steps=grid.steps, n_outputs=N_CLASSES, width=grid.channels, heads=2
        ).to(device)
        prepare = TokenPreparation(steps_in=grid.steps, steps_out=grid.steps, method="linear").to(device)
        groups = [
            {"params": list(head.parameters())},
            {"params": list(upper.parameters()), "multiplier": 0.1},
        ]
        return cls(Tuned(upper), head, prepare, ReferenceAdamW(groups, schedule=lambda update: 1e-4))

    def step(self, given: Tensor, batch: Batch) -> None:
        """Take one from the tokens that the blocks begin at."""
        tokens, backward_below = self.blocks.tokens_and_backward(given)
        labels = batch.targets["labels"].float()
        backward({"it": self.head}, self.prepare(tokens), {}, lambda _, found: bce(found, labels)[None])
        backward_below()
        for_each(ReferenceAdamW.step, [self.optimizer], given.device)
        self.optimizer.zero_grad()


def cached(run: TunedRun, batches: Iterator[Batch]) -> None:
    """Steps from what is read."""
    for batch in batches:
        run.step(given_to(batch), batch)


def online(run: TunedRun, batches: Iterator[Batch], lower: TrainableBackbone, pixels: Tensor) -> None:
    """The same steps, each from what the lower blocks make of pixels."""
    for batch in batches:
        with torch.no_grad():
            given = lower(pixels)
        run.step(given, batch)


def measure(small: bool) -> list[Claim]:
    """A step online over one from the cache, in shares of the arithmetic; what reading takes of a step."""
    device = choose_device("auto")
    backbone = deep(FROZEN + TUNED, device, small=small)
    setting, n_steps = setting_of(backbone, small), 1 if small else 3
    lower = trainable(backbone, Layer(FROZEN), device)
    pixels = torch.rand(setting.batch, backbone.info.n_frames, 3, *backbone.info.input_size, device=device)
    run = TunedRun.of(backbone, device)
    with feed_of(setting, n_steps) as feed:
        times = in_turn(
            {
                "cached": lambda: cached(run, feed.read(device)),
                "online": lambda: online(run, feed.read(device), lower, pixels),
                "reading": lambda: list(map(given_to, feed.read(device))),
            },
            rounds=1 if small else 7,
        )
    detail = f"{n_steps} steps of {setting.batch} clips; the arithmetic alone {ARITHMETIC:.2f}"
    step = claim(times, group=GROUP, what="", over="online", under="cached", detail=detail)
    return [
        replace(
            step, what="a step online over one from the cache, over (k + 3m) / 3m", target=0.9,
            ratio=step.ratio / ARITHMETIC, low=step.low / ARITHMETIC, high=step.high / ARITHMETIC,
        ),
        claim(times, group=GROUP, what="reading over a step from the cache", over="reading", under="cached"),
    ]  # fmt: skip
