"""A run in training, in its folder: its train state, its curve, its checkpoint."""

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from featcache.errors import TrainingError
from readouts.results.curve import Curve
from readouts.results.run_folder import RunFolder
from readouts.training.checkpoint import checkpoint_tensors, load_state, restore, save_state
from readouts.training.evaluate import Scored
from readouts.training.record import Learned
from readouts.training.run import Run
from readouts.training.train_state import TrainState


class Trainer:
    """One run: what it has learned, what is written of it, whatever feeds it."""

    def __init__(self, run: Run, folder: RunFolder, device: torch.device) -> None:
        """Begin anew, or go on from the last checkpoint.

        Raises:
            StoreError: the checkpoint or the curve is damaged.
        """
        self.run, self.folder = run, folder
        self.state = TrainState(run, device)
        self.started = time.monotonic()
        self.seconds_before = self._resume()
        self.seconds = self.seconds_before
        """Of training up to the last checkpoint, in all processes that took part."""
        self.was_trained = self.step == run.recipe.steps
        """Whether its checkpoint is of the last step, and there is nothing left but to score it."""
        self.last_scored: tuple[int, Scored] | None = None
        """The last whole pass over val, and its step."""
        self.curve = Curve(folder.curve, self.step)
        self._losses: dict[str, list[Tensor]] = {kind: [] for kind in run.readouts}

    @property
    def step(self) -> int:
        """The number of updates taken so far."""
        return self.state.step

    @property
    def is_evaluated(self) -> bool:
        """Whether the curve has this step: a resumed run starts at one that was evaluated before."""
        return any(point["step"] == self.step for point in self.curve.points)

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

    def add_point(self, found: Scored, *, whole: bool) -> None:
        """Add a point to the curve (mean training loss since the last, scores on val), then a checkpoint."""
        points: list[dict[str, Any]] = []
        for kind, losses in self._losses.items():
            loss = float(torch.stack(losses).mean()) if losses else None
            over_all = {f"val/{name}": value for name, value in found.scores[kind].items()} if whole else {}
            points.append(
                {
                    "step": self.step, "readout": kind, "train_loss": loss, "whole": whole,
                    **found.minival_scores[kind], **over_all,
                }
            )  # fmt: skip
            losses.clear()
        self.curve.add(points)
        self.last_scored = (self.step, found) if whole else None
        # After the curve: one that is ahead of its checkpoint is cut back, one that lags would have a gap.
        self._save()

    def learned(self) -> dict[str, Learned]:
        """Readout -> the best point of its curve, and its size."""
        choose, score = max if self.run.task.higher_is_better else min, self.run.task.score
        found = {}
        for kind, head in self.state.heads.items():
            points = [point for point in self.curve.points if point["readout"] == kind]
            best = choose(points, key=lambda point: point[score])
            n_parameters = sum(weight.numel() for weight in head.parameters())
            found[kind] = Learned(best_step=best["step"], best_val=best[score], parameters=n_parameters)
        return found

    def _save(self) -> None:
        self.seconds = self.seconds_before + time.monotonic() - self.started
        tensors = checkpoint_tensors(self.state.heads, self.state.optimizer)
        about = {"step": self.step, "seconds": self.seconds, "decisions": self.run.decisions}
        save_state(self.folder.state, tensors, **about)

    def _resume(self) -> float:
        """Take over the checkpoint, where there is one; returns the seconds of training that it holds."""
        if not self.folder.state.exists():
            return 0.0
        tensors, about = load_state(self.folder.state)
        restore(self.state.heads, self.state.optimizer, tensors, about["step"])
        self.state.step = int(about["step"])
        return float(about.get("seconds", 0.0))
