"""A run in training, in its folder: its train state, its curve, its checkpoint.

A checkpoint (weights, moments and step, in safetensors) is durable before it has its name, so a killed run
finds either the old state or the new one, and goes on bit for bit as if it had not been killed (on the same
machine, beside the same runs: others change roundings). That of the last step has no moments. It is sealed
and says whose it is: a damaged one, or one of another run, is refused.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from featcache.errors import StoreError, TrainingError
from featcache.system.files import Staged, write_all
from featcache.system.sealed import KEY, UNSEALED, check_file, drop_seal, sealed_pieces
from readouts.results.run_folder import Curve, RunFolder
from readouts.training.evaluate import Scored
from readouts.training.optim import ReferenceAdamW
from readouts.training.record import Learned
from readouts.training.run import Run, run_id
from readouts.training.step import TrainState


def save_state(path: Path, tensors: Mapping[str, Tensor], **about: Any) -> None:
    """Write tensors and a few JSON values about them: all of it or nothing."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    # One entry: the format does not keep the order of several.
    content = save(whole, {"about": json.dumps({**about, KEY: UNSEALED})})
    with Staged(path) as staged:
        write_all(staged.fd, sealed_pieces(content))
        staged.publish()


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint (on the CPU) and what was said about them.

    Raises:
        StoreError: the file is not a checkpoint or is damaged.
    """
    try:
        sealed = check_file(path)
        with safe_open(path, framework="pt") as file:
            about = dict(json.loads((file.metadata() or {}).get("about", "{}")))
            drop_seal(about, sealed=sealed)
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except Exception as problem:  # safetensors raises its own, undocumented kinds
        raise StoreError(f"{path} cannot be read as a checkpoint ({problem}). {DELETE}") from None


MOMENTS = ("exp_avg", "exp_avg_sq")
"""What the optimiser keeps of each weight, once it was updated."""

DELETE = (
    "Nothing was trained from it. Delete it (train-readout: or add --again) and give the same command again, "
    "which trains the run anew, from its first step."
)
"""The way out where a checkpoint cannot be used."""


def checkpoint_tensors(heads: nn.Module, optimizer: ReferenceAdamW | None) -> dict[str, Tensor]:
    """Weights, and both moments of the optimiser, by the weight's name.

    Without an optimiser the weights alone: all that is read of a run that has taken its last step.
    """
    weights = dict(heads.named_parameters())
    moments = {}
    if optimizer is not None:
        moments = {
            f"{moment}/{name}": value
            for name, weight in weights.items()
            for moment, value in optimizer.state[weight].items()
        }
    return {f"weight/{name}": weight.detach() for name, weight in weights.items()} | moments


def restore(heads: nn.Module, optimizer: ReferenceAdamW, state: Mapping[str, Tensor], step: int) -> None:
    """Put back what `checkpoint_tensors` gave after `step` updates.

    Raises:
        StoreError: it is of other weights.
    """
    weights = dict(heads.named_parameters())
    there: dict[str, set[str]] = {}
    for key, tensor in state.items():
        kind, _, name = key.partition("/")
        if name in weights and tensor.shape == weights[name].shape and tensor.dtype == weights[name].dtype:
            there.setdefault(name, set()).add(kind)
    whole = {name for name, kinds in there.items() if kinds in ({"weight"}, {"weight", *MOMENTS})}
    if whole != weights.keys() or sum(map(len, there.values())) != len(state):
        raise StoreError(
            "the checkpoint is of heads of other weights, of another version of scivid perhaps: train with "
            "--again."
        )
    with torch.no_grad():
        for key, tensor in state.items():
            kind, _, name = key.partition("/")
            if kind == "weight":
                weights[name].copy_(tensor)
            else:
                optimizer.state[weights[name]][kind] = tensor.to(weights[name].device)
    for group in optimizer.param_groups:
        group["n_updates"] = step


class Trainer:
    """One run: what it has learned, what is written of it, whatever feeds it."""

    def __init__(self, run: Run, folder: RunFolder, device: torch.device) -> None:
        """Begin anew, or go on from the last checkpoint.

        Raises:
            StoreError: the checkpoint or the curve is damaged, or of another run.
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
        self.curve = Curve(folder.curve, self._evaluated_steps())
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

    def last_point(self) -> str:
        """What stands at the last point of the curve, in a line: loss and score of each head."""
        score = self.run.task.score
        heads = [
            f"{point['readout']} "
            + ("" if point["train_loss"] is None else f"loss {point['train_loss']:.4g}, ")
            + f"{score} {point['val/' + score] if point['whole'] else point[score]:.4g}"
            for point in self.curve.points[-len(self.run.readouts) :]
        ]
        n_clips = self.run.recipe.minival_clips
        is_all = self.last_scored is not None or n_clips >= self.run.splits["val"].n_usable
        clips = "val" if is_all else f"the first {n_clips:,} clips of val"
        return f"step {self.step:,} of {self.run.recipe.steps:,}: {'; '.join(heads)} on {clips}"

    def learned(self) -> dict[str, Learned]:
        """Readout -> the best point of its curve, and its size, that of tuned blocks with it."""
        choose, score = max if self.run.task.higher_is_better else min, self.run.task.score
        backbone = self.state.backbone
        tuned = [] if backbone is None else [p for p in backbone.module.parameters() if p.requires_grad]
        found = {}
        for kind, head in self.state.heads.items():
            points = [point for point in self.curve.points if point["readout"] == kind]
            best = choose(points, key=lambda point: point[score])
            n_parameters = sum(weight.numel() for weight in (*head.parameters(), *tuned))
            found[kind] = Learned(best_step=best["step"], best_val=best[score], parameters=n_parameters)
        return found

    def _save(self) -> None:
        self.seconds = self.seconds_before + time.monotonic() - self.started
        goes_on = self.step < self.run.recipe.steps
        tensors = checkpoint_tensors(self.state.learned, self.state.optimizer if goes_on else None)
        run = self.run
        about = {
            "step": self.step, "seconds": self.seconds, "decisions": run.decisions,
            "reads": run.reads.to_json(), "gives": run.gives,
        }  # fmt: skip
        save_state(self.folder.state, tensors, **about)

    def _resume(self) -> float:
        """Take over the checkpoint, where there is one; returns the seconds of training that it holds."""
        path = self.folder.state
        if not path.exists():
            return 0.0
        tensors, about = load_state(path)
        step = about.get("step")
        if not isinstance(step, int) or not 0 <= step <= self.run.recipe.steps:
            raise StoreError(f"{path} is a checkpoint of step {step!r}, of {self.run.recipe.steps}. {DELETE}")
        decisions = json.loads(json.dumps(self.run.decisions))
        if about.get("decisions") != decisions:
            found = run_id(about.get("decisions", {}))
            raise StoreError(f"{path} is the checkpoint of run {found}, and this is {self.run.id}. {DELETE}")
        try:
            restore(self.state.learned, self.state.optimizer, tensors, step)
        except StoreError as problem:
            raise StoreError(f"{path}: {problem}") from None
        self.state.step = step
        return float(about.get("seconds", 0.0))

    def _evaluated_steps(self) -> list[int]:
        """The steps at which the run was evaluated on its way here; a run that begins has none."""
        every = range(0, self.step + 1, self.run.recipe.minival_every)
        return sorted({*every, self.step}) if self.folder.state.exists() else []
