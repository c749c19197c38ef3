"""Train readouts from the cache: one pass over the data, the asked-for heads side by side.

The loop is the reference's: evaluate at step 0, every 1,000 steps and at the end, each time before that
step's update; the losses of all heads are summed; the update, not the gradient, is clipped. Draws,
dropout and initial weights are pure functions of the seed and the step, so a killed run that is resumed
ends with the same bits as one that was not.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from featcache.device import device_name
from featcache.durable import Lock, make_directory, sweep
from featcache.progress import Progress
from readouts.checkpoint import (
    History,
    forget,
    load_state,
    restore_training,
    save_state,
    training_state,
    write_predictions,
)
from readouts.features import (
    Batch,
    Draws,
    evaluation_batches,
    splits_summary,
    training_batches,
)
from readouts.heads import build_head
from readouts.optim import ReferenceAdamW, WarmupCosine
from readouts.results import add_run, load_run
from readouts.run import Run as Run
from readouts.run import configure as configure
from readouts.tasks.base import Recipe
from readouts.tokens import TokenPreparation


def train(
    run: Run,
    *,
    results_dir: Path,
    device: torch.device,
    again: bool = False,
    command: str = "",
    progress: Progress = lambda what, done, total: None,
) -> list[dict[str, Any]]:
    """Train, evaluate and record one run; returns its rows of the results table, one a head.

    A run that is in the table already is not trained again (unless `again`), one that was killed goes on
    from its last checkpoint.

    Raises:
        StoreError: another process is training this run, or a checkpoint or results file is damaged.
    """
    if not again and (rows := _recorded(results_dir, run)):
        return rows
    folder = run.folder(results_dir)
    make_directory(folder)
    busy = f"{folder} is being trained by another process: wait for it, or stop it and run this again."
    lock = Lock(folder / ".lock", wait=False, busy=busy)
    try:
        # Asked again under the lock: its last holder may have just finished this very run.
        if not again and (rows := _recorded(results_dir, run)):
            return rows
        sweep(folder)
        if again:
            forget(folder)
        seeds = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
        # Convolutions as exact as products: by default a GPU rounds their inputs to ten bits.
        with seeds, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            trainer = Trainer(run, folder, device)
            trainer.fit(progress)
            scores = trainer.final_scores(progress)
        ended = {"finished": datetime.now(UTC), "seconds": trainer.seconds, "command": command}
        add_run(results_dir, run.id, [{**_row(run, kind, trainer, scores), **ended} for kind in run.readouts])
        return load_run(results_dir, run.id)
    finally:
        lock.release()


def _recorded(results_dir: Path, run: Run) -> list[dict[str, Any]]:
    """The run's rows if they say all that is asked for; none of them if test is yet to be scored."""
    rows = load_run(results_dir, run.id)
    return rows if "test" not in run.splits or all(row["test"] is not None for row in rows) else []


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What one pass over a split gave; all mappings are by the kind of head."""

    clips: Int64[np.ndarray, " n"]
    outputs: Mapping[str, Float[np.ndarray, "kept *O"]]
    """Of as many clips as the task keeps."""
    scores: Mapping[str, dict[str, float]]
    """Over all clips of the pass."""
    minival_scores: Mapping[str, dict[str, float]]
    """Over the first `minival_clips` of them: the same clips at every point of the curve."""


class Trainer:
    """Heads, optimiser and curve of one run, at one step."""

    def __init__(self, run: Run, folder: Path, device: torch.device) -> None:
        self.run, self.folder, self.device = run, folder, device
        self.started = time.monotonic()
        self.prepare, self.heads = build_models(run)
        self.prepare.to(device)
        self.heads.to(device)
        self.optimizer = ReferenceAdamW(
            self.heads.parameters(),
            schedule=schedule_of(run.recipe),
            weight_decay=run.recipe.weight_decay,
            clip_update=run.recipe.clip_update,
        )
        self.step, self.seconds_before = self._resume()
        self.seconds = self.seconds_before
        """Of training up to the last checkpoint, in all processes that took part."""
        self.last_scored: tuple[int, Scored] | None = None
        """The last whole pass over val, and its step."""
        self.history = History(folder / "history.jsonl", self.step)

    @property
    def state_file(self) -> Path:
        """The checkpoint a killed run goes on from."""
        return self.folder / "last.safetensors"

    def fit(self, progress: Progress) -> None:
        """From the current step to the recipe's last."""
        recipe, train = self.run.recipe, self.run.splits["train"]
        draws = Draws(
            n_clips=len(train.usable),
            n_views=train.distinct_views,
            batch=recipe.batch,
            seed=self.run.seed,
        )
        steps = range(self.step, recipe.steps)
        batches = training_batches(train, self.run.task.select, draws, steps, self.device)
        losses: dict[str, list[Tensor]] = {kind: [] for kind in self.heads}
        for batch in batches:
            if self.step % recipe.minival_every == 0 and not self._is_evaluated():
                self._evaluate(losses, progress)
            for kind, loss in self._update(batch).items():
                losses[kind].append(loss)
            self.step += 1
            progress("training", self.step, recipe.steps)
        if not self._is_evaluated():
            self._evaluate(losses, progress)

    def final_scores(self, progress: Progress) -> dict[str, dict[str, dict[str, float]]]:
        """Role -> head -> scores of the last step over the whole split; predictions go to Parquet."""
        scores = {}
        for role in (role for role in ("val", "test") if role in self.run.splits):
            last = self.last_scored if role == "val" else None
            found = last[1] if last and last[0] == self.step else self._score(role, progress)
            kept = found.clips[: self.run.task.predictions_kept]
            ids = self.run.splits[role].store.clips.column("id").take(pa.array(kept))
            write_predictions(self.folder / f"predictions_{role}.parquet", kept, ids, found.outputs)
            scores[role] = dict(found.scores)
        return scores

    def _update(self, batch: Batch) -> dict[str, Tensor]:
        # Dropout is a function of (seed, step), which is what makes a resumed run exact.
        torch.manual_seed((self.run.seed << 32) + self.step)
        self.heads.train()
        tokens, task = self.prepare(batch.tokens), self.run.task
        inputs = task.inputs(batch.targets)
        losses = {kind: task.loss(head(tokens, **inputs), batch.targets) for kind, head in self.heads.items()}
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {kind: loss.detach() for kind, loss in losses.items()}

    def _evaluate(self, losses: dict[str, list[Tensor]], progress: Progress) -> None:
        """One point of the curve (mean training loss since the last, scores on val), then a checkpoint."""
        recipe = self.run.recipe
        whole = self.step % recipe.val_every == 0 or self.step == recipe.steps
        found = self._score("val", progress, limit=None if whole else recipe.minival_clips)
        rows: list[dict[str, Any]] = []
        for kind in self.heads:
            loss = float(torch.stack(losses[kind]).mean()) if losses[kind] else None
            over_all = {f"val/{name}": value for name, value in found.scores[kind].items()} if whole else {}
            rows.append(
                {
                    "step": self.step, "readout": kind, "train_loss": loss, "whole": whole,
                    **found.minival_scores[kind], **over_all,
                }
            )  # fmt: skip
            losses[kind].clear()
        for row in rows:
            if self._is_best(row):
                head = self.heads[row["readout"]].state_dict()
                save_state(self.folder / f"best_{row['readout']}.safetensors", head, **row)
        self.history.add(rows)
        self.last_scored = (self.step, found) if whole else None
        self._save()

    def _save(self) -> None:
        self.seconds = self.seconds_before + time.monotonic() - self.started
        state = training_state(self.heads, self.optimizer)
        about = {"step": self.step, "seconds": self.seconds, "decisions": self.run.decisions}
        save_state(self.state_file, state, **about)

    def _is_evaluated(self) -> bool:
        """Whether the curve has this step: a resumed run starts at one that was evaluated before."""
        return any(row["step"] == self.step for row in self.history.rows)

    def _is_best(self, row: Mapping[str, Any]) -> bool:
        before = [old[self.run.task.score] for old in self.history.rows if old["readout"] == row["readout"]]
        sign = 1 if self.run.task.higher_is_better else -1
        return all(sign * row[self.run.task.score] > sign * value for value in before)

    @torch.inference_mode()
    def _score(self, role: str, progress: Progress, limit: int | None = None) -> "Scored":
        """Score the first `limit` clips of a split, and in the same pass the first `minival_clips`."""
        self.heads.eval()
        split, recipe = self.run.splits[role], self.run.recipe
        outputs: dict[str, list[np.ndarray]] = {kind: [] for kind in self.heads}
        clips, n, done, task = [], len(split.usable[:limit]), 0, self.run.task
        scores = {kind: task.metric() for kind in self.heads}
        # The same accumulators where minival is all there is.
        apart = n > recipe.minival_clips
        minival = {kind: task.metric() for kind in self.heads} if apart else scores
        kept = n if task.predictions_kept is None else task.predictions_kept
        for batch in evaluation_batches(split, task.select, recipe.batch, self.device, limit):
            tokens, inputs = self.prepare(batch.tokens), task.inputs(batch.targets)
            in_minival = max(0, min(len(batch.clips), recipe.minival_clips - done))
            for kind, head in self.heads.items():
                found = head(tokens, **inputs).float()
                if done < kept:
                    # Copied: a slice would keep all of the batch, and weather's are 200 MB.
                    outputs[kind].append(found[: kept - done].cpu().numpy().copy())
                scores[kind].update(found, batch.targets)
                if apart and in_minival:
                    first = {name: values[:in_minival] for name, values in batch.targets.items()}
                    minival[kind].update(found[:in_minival], first)
            clips.append(batch.clips)
            done += len(batch.clips)
            progress(f"scoring {role}", done, n)
        return Scored(
            clips=np.concatenate(clips),
            outputs={kind: np.concatenate(parts) for kind, parts in outputs.items()},
            scores={kind: metric.compute() for kind, metric in scores.items()},
            minival_scores={kind: metric.compute() for kind, metric in minival.items()},
        )

    def _resume(self) -> tuple[int, float]:
        """Step and seconds of training that a checkpoint holds; 0 of both where there is none."""
        if not self.state_file.exists():
            return 0, 0.0
        state, about = load_state(self.state_file)
        restore_training(self.heads, self.optimizer, state, about["step"])
        return int(about["step"]), float(about.get("seconds", 0.0))


def schedule_of(recipe: Recipe) -> WarmupCosine:
    """The learning rate of each update."""
    return WarmupCosine(peak=recipe.lr, steps=recipe.steps, warmup=min(recipe.warmup, recipe.steps - 1))


def build_models(run: Run) -> tuple[TokenPreparation, nn.ModuleDict]:
    """The replay of the reference's up-sampling in time, and the heads with the seed's initial weights."""
    store = run.splits["train"].store
    grid = store.spec.grid
    steps = store.attrs["readout_steps"] or grid.steps
    prepare = TokenPreparation(steps_in=grid.steps, steps_out=steps, method=store.attrs["upsampling"])
    heads = nn.ModuleDict()
    for kind, settings in run.readouts.items():
        generator = torch.Generator().manual_seed(run.seed)
        heads[kind] = build_head(
            kind,
            channels=grid.channels,
            steps=steps,
            rows=grid.rows,
            columns=grid.columns,
            n_outputs=run.task.n_outputs,
            generator=generator,
            **settings,
        )
    return prepare, heads


def _row(run: Run, kind: str, trainer: Trainer, scores: Mapping[str, Any]) -> dict[str, Any]:
    score = run.task.score
    curve = [row for row in trainer.history.rows if row["readout"] == kind]
    best = (max if run.task.higher_is_better else min)(curve, key=lambda row: row[score])
    return {
        **splits_summary(run.splits),
        "run": run.id,
        "task": run.task.name,
        "task_spec": run.task.spec,
        "readout": kind,
        "metric": score,
        "higher_is_better": run.task.higher_is_better,
        "val": scores["val"][kind][score],
        "best_val": best[score],
        "best_step": best["step"],
        "test": scores["test"][kind][score] if "test" in scores else None,
        "scores": json.dumps({role: of[kind] for role, of in scores.items()}),
        "seed": run.seed,
        "steps": run.recipe.steps,
        "batch": run.recipe.batch,
        "parameters": sum(p.numel() for p in trainer.heads[kind].parameters()),
        "recipe": json.dumps(asdict(run.recipe)),
        "readout_config": json.dumps(dict(run.readouts[kind])),
        "device": device_name(trainer.device),
        "software": json.dumps(
            {name: version(name) for name in ("scivid", "torch", "numpy", "scikit-learn")}
        ),
    }
