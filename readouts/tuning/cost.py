"""What tuning a backbone costs, said before it begins: passes, operations, hours, memory. Arithmetic alone.

A backward pass is counted as two forward ones, blocks as alike; what the readout adds is not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from featcache.backbones.base import BackboneInfo
from featcache.spec import Layer
from featcache.system.device import SUSTAINED_TFLOPS
from featcache.system.files import size
from readouts.tasks.base import Recipe
from readouts.tuning.wish import Wish

KEPT_OF_A_TOKEN = 16
"""Numbers that a block keeps for its backward pass, in those of a token: attention 6, an MLP four times as
wide 8, two norms. With checkpointing it is the token alone."""

STATE_BYTES = 4 * 4
"""Of a weight in training: itself, its gradient, two moments, in float32."""


_OPERATIONS = (("EFLOP", 1e6), ("PFLOP", 1e3), ("TFLOP", 1.0), ("GFLOP", 1e-3))
_TIMES = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningCost:
    """The blocks of one backbone that one run trains, and how often."""

    info: BackboneInfo
    layer: Layer
    """That readouts see."""
    wish: Wish
    recipe: Recipe
    tflops: float = SUSTAINED_TFLOPS

    @property
    def n_tuned(self) -> int:
        """Blocks that are trained."""
        return self.layer.block if self.wish.blocks is None else self.wish.blocks

    @property
    def n_frozen(self) -> int:
        """Blocks below them, which the store stands for."""
        return self.layer.block - self.n_tuned

    @property
    def passes(self) -> int:
        """Forward passes that a step is worth, those that are taken again among them."""
        in_parts = 0 < self.wish.micro_batch < self.recipe.batch
        return 3 + self.wish.checkpointing + in_parts

    @property
    def step_tflop(self) -> float | None:
        """10^12 operations of a step; None where nobody counted the model's."""
        if not self.info.gflop:
            return None
        share = self.n_tuned / self.info.n_blocks
        return self.passes * self.recipe.batch * self.info.gflop * share / 1e3

    @property
    def times_online(self) -> float:
        """How many times as much a step would be if the frozen blocks ran in it."""
        return (self.n_frozen + self.passes * self.n_tuned) / (self.passes * self.n_tuned)

    @property
    def weights(self) -> float:
        """Weights that are trained, in about: those of a block are taken to be alike."""
        return self.info.params_m * 1e6 * self.n_tuned / self.info.n_blocks

    @property
    def activation_bytes(self) -> int:
        """Of float32, kept for the backward passes of the clips that go through at a time."""
        grid, clips = self.info.grid, self.wish.micro_batch or self.recipe.batch
        token = 4 * grid.channels * grid.steps * grid.tokens_per_step
        kept = self.n_tuned + KEPT_OF_A_TOKEN if self.wish.checkpointing else self.n_tuned * KEPT_OF_A_TOKEN
        return min(clips, self.recipe.batch) * token * kept

    def sentences(self) -> list[str]:
        """A line of what is computed, and one of what the device must hold."""
        return [f"{self._work()}{self._operations()}; {self._besides()}", self._memory()]

    def _work(self) -> str:
        recipe, name = self.recipe, self.info.name
        if self.wish.blocks is None:
            blocks = f"runs {name} up to layer {self.layer.name}"
            return f"--tune all decodes {recipe.batch} clips and {blocks} at each of {recipe.steps:,} steps"
        first, last = self.n_frozen + 1, self.layer.block
        blocks = f"block {last}" if first == last else f"blocks {first} to {last}"
        return (
            f"--tune {self.wish.text} runs {blocks} of {name}, forward and backward, for {recipe.batch} "
            f"clips at each of {recipe.steps:,} steps"
        )

    def _operations(self) -> str:
        if self.step_tflop is None:
            return ""
        total = self.step_tflop * self.recipe.steps
        operations = [_told(amount, _OPERATIONS) for amount in (self.step_tflop, total)]
        took = _told(total / self.tflops, _TIMES)
        return f", about {operations[0]} a step and {operations[1]} in all, {took} at {self.tflops:g} TFLOP/s"

    def _besides(self) -> str:
        evaluated = "and val at each point of the curve"
        if self.wish.blocks is None:
            return f"{evaluated}; --tune M learns from stored tokens instead"
        if not self.n_frozen:
            return f"{evaluated}; no block below them is saved"
        return (
            f"{evaluated}; with the {self.n_frozen} below in each step, which the store stands for, it would "
            f"be {self.times_online:.2g} times as much"
        )

    def _memory(self) -> str:
        state, kept = size(round(self.weights * STATE_BYTES)), size(self.activation_bytes)
        less = [
            *([] if 0 < self.wish.micro_batch < self.recipe.batch else ["--micro-batch"]),
            *([] if self.wish.checkpointing else ["--checkpoint-blocks"]),
        ]
        way_out = f" (less with {' or '.join(less)}, for one more forward pass each)" if less else ""
        clips = min(self.wish.micro_batch or self.recipe.batch, self.recipe.batch)
        return (
            f"the device holds about {self.weights / 1e6:,.3g} M tuned weights with gradients and moments, "
            f"{state}, and {kept} of activations of {clips} clips{way_out}"
        )


def _told(amount: float, units: Sequence[tuple[str, float]]) -> str:
    """In the largest unit of which there is one, or the smallest."""
    name, one = next(((name, one) for name, one in units if amount >= one), units[-1])
    return f"{amount / one:,.3g} {name}"
