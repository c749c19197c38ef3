"""One run at one step: heads, optimiser, curve and checkpoint, whatever feeds it.

Initial weights and dropout are pure functions of the run's seed and the step, and dropout is drawn anew for
each head: a run's numbers depend neither on being killed and resumed nor on the company it trains in.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor, nn

from featcache.errors import TrainingError
from featcache.store.feature_store import FeatureStore
from readouts.heads import build_head
from readouts.heads.base import Readout
from readouts.results.curve import Curve
from readouts.results.per_clip import write_per_clip
from readouts.results.predictions import write_predictions
from readouts.results.run_folder import RunFolder
from readouts.tasks.base import Recipe, Rows
from readouts.tokens.prepared import PreparedTokens, TokenPreparation
from readouts.training.checkpoint import (
    load_state,
    restore_training,
    save_state,
    training_state,
)
from readouts.training.evaluate import Scored
from readouts.training.optim import ReferenceAdamW, WarmupCosine
from readouts.training.run import Run
from readouts.training.step import descend, on_threads


class Learner:
    """Heads and optimiser of a run, at one step; nothing of it is on disk."""

    def __init__(self, run: Run, device: torch.device) -> None:
        """At step 0, with the seed's initial weights."""
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
        """The heads by kind."""
        return {kind: cast("Readout", head) for kind, head in self.heads.items()}

    def seed_dropout(self, head: Readout) -> None:
        """Make what a head drops next a function of seed and step."""
        head.draw_dropout_from(torch.Generator(self.device).manual_seed((self.run.seed << 32) + self.step))

    def update(self) -> None:
        """Take one step down the gradients that are there."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1


def take_step(
    learners: Sequence[Learner], tokens: PreparedTokens, targets: Rows
) -> list[dict[str, Float[Tensor, ""]]]:
    """Take every run a step down the gradient of its heads' losses on one batch; returns those, run by run.

    They are of one task, and share the pass over the tokens and nothing else: each has, to the bit, the
    numbers it has alone.
    """
    task, device = learners[0].run.task, learners[0].device
    heads: dict[tuple[int, str], Readout] = {}
    for i, one in enumerate(learners):
        one.heads.train()
        for kind, head in one.readouts.items():
            one.seed_dropout(head)
            heads[i, kind] = head
    losses = descend(heads, tokens, task.inputs(targets), lambda _, outputs: task.loss(outputs, targets))
    on_threads(Learner.update, learners, device)
    return [{kind: losses[i, kind] for kind in one.readouts} for i, one in enumerate(learners)]


@contextmanager
def training_arithmetic() -> Iterator[None]:
    """Convolutions are as exact as products: by default a GPU rounds their inputs to ten bits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


class Trainee(Learner):
    """A run in training, in its folder."""

    def __init__(self, run: Run, folder: RunFolder, device: torch.device) -> None:
        """New, or as its last checkpoint left it.

        Raises:
            StoreError: the checkpoint or the curve is damaged.
        """
        super().__init__(run, device)
        self.folder = folder
        self.started = time.monotonic()
        self.step, self.seconds_before = self._resume()
        self.seconds = self.seconds_before
        """Of training up to the last checkpoint, in all processes that took part."""
        self.was_trained = self.step == run.recipe.steps
        """Whether its checkpoint is of the last step, and there is nothing left but to score it."""
        self.last_scored: tuple[int, Scored] | None = None
        """The last whole pass over val, and its step."""
        self.curve = Curve(folder.curve, self.step)
        self._losses: dict[str, list[Tensor]] = {kind: [] for kind in self.heads}

    @property
    def is_evaluated(self) -> bool:
        """Whether the curve has this step: a resumed run starts at one that was evaluated before."""
        return any(row["step"] == self.step for row in self.curve.points)

    def remember(self, losses: Mapping[str, Float[Tensor, ""]]) -> None:
        """Keep the heads' losses on one batch for the curve."""
        for kind, loss in losses.items():
            self._losses[kind].append(loss)

    def refuse_divergence(self) -> None:
        """Refuse to go on with a loss that is no longer a number.

        Raises:
            TrainingError: names the run, the head and the step.
        """
        for kind, losses in self._losses.items():
            if losses and not math.isfinite(float(torch.stack(losses).sum())):
                settings = ", ".join(f"{name}={value}" for name, value in self.run.readouts[kind].items())
                raise TrainingError(
                    f"the loss of {kind} ({settings}) on {self.run.task.name}, seed {self.run.seed}, is no "
                    f"number before step {self.step}: lr={self.run.recipe.lr:g} may be too high "
                    "(--set lr=...), or a feature is not finite (`scivid validate` the store)."
                )

    def record(self, found: Scored, *, whole: bool) -> None:
        """One point of the curve (mean training loss since the last, scores on val), then a checkpoint."""
        rows: list[dict[str, Any]] = []
        for kind in self.heads:
            losses = self._losses[kind]
            loss = float(torch.stack(losses).mean()) if losses else None
            over_all = {f"val/{name}": value for name, value in found.scores[kind].items()} if whole else {}
            rows.append(
                {
                    "step": self.step, "readout": kind, "train_loss": loss, "whole": whole,
                    **found.minival_scores[kind], **over_all,
                }
            )  # fmt: skip
            losses.clear()
        self.curve.add(rows)
        self.last_scored = (self.step, found) if whole else None
        self._save()

    def best(self, kind: str) -> dict[str, Any]:
        """The best point of a head's curve."""
        points = [point for point in self.curve.points if point["readout"] == kind]
        choose = max if self.run.task.higher_is_better else min
        return choose(points, key=lambda point: point[self.run.task.score])

    def keep(self, role: str, found: Scored) -> None:
        """Write the predictions and the per-clip statistics of a whole split beside the checkpoint."""
        kept = found.clips[: self.run.task.predictions_kept]
        ids = self.run.splits[role].store.clips.column("id").take(pa.array(kept))
        write_predictions(self.folder.predictions(role), kept, ids, found.outputs)
        write_per_clip(self.folder.per_clip(role), found.clips, found.per_clip)

    def _save(self) -> None:
        self.seconds = self.seconds_before + time.monotonic() - self.started
        state = training_state(self.heads, self.optimizer)
        about = {"step": self.step, "seconds": self.seconds, "decisions": self.run.decisions}
        save_state(self.folder.state, state, **about)

    def _resume(self) -> tuple[int, float]:
        """Step and seconds of training that a checkpoint holds; 0 of both where there is none."""
        if not self.folder.state.exists():
            return 0, 0.0
        state, about = load_state(self.folder.state)
        restore_training(self.heads, self.optimizer, state, about["step"])
        return int(about["step"]), float(about.get("seconds", 0.0))


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
