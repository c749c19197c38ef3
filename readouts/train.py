"""Train readouts from the cache: one pass over the data, the asked-for heads side by side.

The loop is the reference's: evaluate at step 0, every 1,000 steps and at the end, each time before that
step's update; the losses of all heads are summed; the update, not the gradient, is clipped. Draws,
dropout and initial weights are pure functions of the seed and the step, so a killed run that is resumed
ends with the same bits as one that was not.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor, nn

from featcache.device import device_name
from featcache.errors import CallError
from featcache.progress import Progress
from readouts.checkpoint import History, load_state, save_state
from readouts.features import Batch, Draws, FeatureSplit, evaluation_batches, store_summary, training_batches
from readouts.heads import build_head
from readouts.optim import ReferenceAdamW, WarmupCosine
from readouts.results import add_run, load_results
from readouts.tasks.base import Recipe, Task
from readouts.tokens import TokenPreparation


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that decides a run's numbers, but for the hardware's rounding."""

    task: Task
    splits: Mapping[str, FeatureSplit]
    """Role (train, val, perhaps test) -> features."""
    readouts: Mapping[str, Mapping[str, Any]]
    """Kind of head -> its settings. All are trained side by side on the same batches."""
    recipe: Recipe
    seed: int

    @property
    def decisions(self) -> dict[str, Any]:
        """What identifies the run: the same decisions are the same run, which is never trained twice."""
        return {
            "task": self.task.name,
            "stores": {
                role: [s.store.fingerprint, s.layer.name] for role, s in self.splits.items() if role != "test"
            },
            "readouts": {kind: dict(settings) for kind, settings in self.readouts.items()},
            "recipe": asdict(self.recipe),
            "seed": self.seed,
        }

    @property
    def id(self) -> str:
        """Twelve digits of the digest of `decisions`."""
        return blake2b(json.dumps(self.decisions, sort_keys=True).encode(), digest_size=6).hexdigest()

    def folder(self, results_dir: Path) -> Path:
        """Where the run keeps checkpoints, curve and predictions."""
        return results_dir / self.task.name / f"{self.splits['train'].store.attrs['backbone']}-{self.id}"


def configure(
    task: Task,
    splits: Mapping[str, FeatureSplit],
    *,
    readouts: Sequence[str] | None = None,
    settings: Sequence[str] = (),
    seed: int = 0,
) -> Run:
    """The benchmark's run for a task, changed by `settings` such as `lr=1e-4` or `width=256`.

    Raises:
        CallError: a setting that nothing reads, or a value of the wrong kind.
    """
    configs = {kind: task.head_config(kind) for kind in readouts or task.readouts}
    recipe = task.recipe
    for setting in settings:
        name, given, text = setting.partition("=")
        owners = [config for config in configs.values() if name in config]
        if given and name in (field.name for field in fields(Recipe)):
            recipe = replace(recipe, **{name: _parse(setting, text, getattr(recipe, name))})
        elif given and owners:
            for config in owners:
                config[name] = _parse(setting, text, config[name])
        else:
            known = [f.name for f in fields(Recipe)] + sorted(
                {key for config in configs.values() for key in config}
            )
            raise CallError(f"--set {setting}: write name=value with one of {', '.join(known)}.")
    return Run(task=task, splits=splits, readouts=configs, recipe=recipe, seed=seed)


def _parse(setting: str, text: str, default: Any) -> Any:
    kind = float if default is None else type(default)
    try:
        return kind(text)
    except ValueError:
        raise CallError(
            f"--set {setting}: {text!r} is not {'a whole' if kind is int else 'a'} number."
        ) from None


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
    """
    rows = _recorded(results_dir, run)
    if rows and not again and ("test" not in run.splits or all(row["test"] is not None for row in rows)):
        return rows
    folder = run.folder(results_dir)
    if again:
        (folder / "last.safetensors").unlink(missing_ok=True)
    started = time.monotonic()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trainer = Trainer(run, folder, device)
        trainer.fit(progress)
        scores = trainer.final_scores(progress)
    ended = {"finished": datetime.now(UTC), "seconds": time.monotonic() - started, "command": command}
    rows = [{**_row(run, kind, trainer, scores), **ended} for kind in run.readouts]
    add_run(results_dir, run.id, rows)
    return _recorded(results_dir, run)


def _recorded(results_dir: Path, run: Run) -> list[dict[str, Any]]:
    return [row for row in load_results(results_dir) if row["run"] == run.id]


class Trainer:
    """Heads, optimiser and curve of one run, at one step."""

    def __init__(self, run: Run, folder: Path, device: torch.device) -> None:
        self.run, self.folder, self.device = run, folder, device
        self.prepare, self.heads = build_models(run)
        self.prepare.to(device)
        self.heads.to(device)
        self.optimizer = ReferenceAdamW(
            self.heads.parameters(),
            schedule=WarmupCosine(peak=run.recipe.lr, steps=run.recipe.steps),
            weight_decay=run.recipe.weight_decay,
            clip_update=run.recipe.clip_update,
        )
        self.step = self._resume()
        self.history = History(folder / "history.jsonl", self.step)

    @property
    def state_file(self) -> Path:
        """The checkpoint a killed run goes on from."""
        return self.folder / "last.safetensors"

    def fit(self, progress: Progress) -> None:
        """From the current step to the recipe's last."""
        recipe, train = self.run.recipe, self.run.splits["train"]
        draws = Draws(
            n_clips=len(train.usable), n_views=train.n_views, batch=recipe.batch, seed=self.run.seed
        )
        batches = training_batches(train, draws, range(self.step, recipe.steps), self.device)
        losses: dict[str, list[Tensor]] = {kind: [] for kind in self.heads}
        for batch in batches:
            if self.step % recipe.minival_every == 0 and not self._is_evaluated():
                self._evaluate(losses)
            for kind, loss in self._update(batch).items():
                losses[kind].append(loss)
            self.step += 1
            progress("training", self.step, recipe.steps)
        if not self._is_evaluated():
            self._evaluate(losses)

    def final_scores(self, progress: Progress) -> dict[str, dict[str, dict[str, float]]]:
        """Role -> head -> scores of the last step over the whole split; predictions go to Parquet."""
        scores = {}
        for role in (role for role in ("val", "test") if role in self.run.splits):
            progress(f"scoring {role}", 0, 1)
            outputs, clips, scores[role] = self._score(role, limit=None)
            write_predictions(
                self.folder / f"predictions_{role}.parquet", self.run.splits[role], clips, outputs
            )
            progress(f"scoring {role}", 1, 1)
        return scores

    def _update(self, batch: Batch) -> dict[str, Tensor]:
        # Dropout is a function of (seed, step), which is what makes a resumed run exact.
        torch.manual_seed((self.run.seed << 32) + self.step)
        self.heads.train()
        tokens = self.prepare(batch.tokens)
        losses = {kind: self.run.task.loss(head(tokens), batch.targets) for kind, head in self.heads.items()}
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {kind: loss.detach() for kind, loss in losses.items()}

    def _evaluate(self, losses: dict[str, list[Tensor]]) -> None:
        """One point of the curve (mean training loss since the last, scores on val), then a checkpoint."""
        recipe = self.run.recipe
        whole = self.step % recipe.val_every == 0 or self.step == recipe.steps
        _, _, scores = self._score("val", limit=None if whole else recipe.minival_clips)
        rows: list[dict[str, Any]] = []
        for kind in self.heads:
            loss = float(torch.stack(losses[kind]).mean()) if losses[kind] else None
            rows.append(
                {"step": self.step, "readout": kind, "train_loss": loss, "whole": whole, **scores[kind]}
            )
            losses[kind].clear()
        for row in rows:
            if self._is_best(row):
                head = self.heads[row["readout"]].state_dict()
                save_state(self.folder / f"best_{row['readout']}.safetensors", head, **row)
        self.history.add(rows)
        save_state(self.state_file, self._state(), step=self.step, decisions=self.run.decisions)

    def _is_evaluated(self) -> bool:
        """Whether the curve has this step: a resumed run starts at one that was evaluated before."""
        return any(row["step"] == self.step for row in self.history.rows)

    def _is_best(self, row: Mapping[str, Any]) -> bool:
        before = [old[self.run.task.score] for old in self.history.rows if old["readout"] == row["readout"]]
        sign = 1 if self.run.task.higher_is_better else -1
        return all(sign * row[self.run.task.score] > sign * value for value in before)

    @torch.inference_mode()
    def _score(
        self, role: str, limit: int | None
    ) -> tuple[dict[str, Float[np.ndarray, "n O"]], np.ndarray, dict[str, dict[str, float]]]:
        self.heads.eval()
        metrics = {kind: self.run.task.metric() for kind in self.heads}
        outputs: dict[str, list[np.ndarray]] = {kind: [] for kind in self.heads}
        clips = []
        for batch in evaluation_batches(self.run.splits[role], self.run.recipe.batch, self.device, limit):
            tokens = self.prepare(batch.tokens)
            targets = {name: values.cpu().numpy() for name, values in batch.targets.items()}
            clips.append(batch.clips)
            for kind, head in self.heads.items():
                outputs[kind].append(head(tokens).float().cpu().numpy())
                metrics[kind].update(outputs[kind][-1], targets)
        merged = {kind: np.concatenate(parts) for kind, parts in outputs.items()}
        return merged, np.concatenate(clips), {kind: metric.compute() for kind, metric in metrics.items()}

    def _state(self) -> dict[str, Tensor]:
        """Weights, and both moments of the optimiser, by the weight's name."""
        weights = dict(self.heads.named_parameters())
        moments = {
            f"{moment}/{name}": value
            for name, weight in weights.items()
            for moment, value in self.optimizer.state[weight].items()
        }
        return {f"weight/{name}": weight.detach() for name, weight in weights.items()} | moments

    def _resume(self) -> int:
        if not self.state_file.exists():
            return 0
        tensors, about = load_state(self.state_file)
        weights = dict(self.heads.named_parameters())
        with torch.no_grad():
            for place, tensor in tensors.items():
                kind, _, name = place.partition("/")
                if kind == "weight":
                    weights[name].copy_(tensor)
                else:
                    self.optimizer.state[weights[name]][kind] = tensor.to(self.device)
        for group in self.optimizer.param_groups:
            group["n_updates"] = about["step"]
        return int(about["step"])


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
            n_outputs=run.task.n_outputs,
            generator=generator,
            **settings,
        )
    return prepare, heads


def write_predictions(
    path: Path, split: FeatureSplit, clips: np.ndarray, outputs: Mapping[str, Float[np.ndarray, "n O"]]
) -> None:
    """Clip ids with every head's outputs, for pictures and for statistics that need single clips."""
    ids = split.store.clips.column("id").take(pa.array(clips))
    columns = {kind: pa.array(list(values.astype(np.float32))) for kind, values in outputs.items()}
    temporary = path.with_name(f".{path.name}.partial")
    pq.write_table(pa.table({"clip": pa.array(clips), "id": ids, **columns}), temporary)
    temporary.replace(path)


def _row(run: Run, kind: str, trainer: Trainer, scores: Mapping[str, Any]) -> dict[str, Any]:
    train, val, score = run.splits["train"], run.splits["val"], run.task.score
    curve = [row for row in trainer.history.rows if row["readout"] == kind]
    best = (max if run.task.higher_is_better else min)(curve, key=lambda row: row[score])
    about = {key: value for key, value in store_summary(train).items() if key not in ("store", "fingerprint")}
    return {
        **about,
        "run": run.id,
        "task": run.task.name,
        "readout": kind,
        "metric": score,
        "val": scores["val"][kind][score],
        "best_val": best[score],
        "best_step": best["step"],
        "test": scores["test"][kind][score] if "test" in scores else None,
        "scores": json.dumps({role: of[kind] for role, of in scores.items()}),
        "seed": run.seed,
        "steps": run.recipe.steps,
        "batch": run.recipe.batch,
        "n_train": len(train.usable),
        "n_val": len(val.usable),
        "parameters": sum(p.numel() for p in trainer.heads[kind].parameters()),
        "recipe": json.dumps(asdict(run.recipe)),
        "readout_config": json.dumps(dict(run.readouts[kind])),
        "train_store": train.store.path.name,
        "val_store": val.store.path.name,
        "train_fingerprint": train.store.fingerprint,
        "val_fingerprint": val.store.fingerprint,
        "device": device_name(trainer.device),
        "software": json.dumps(
            {name: version(name) for name in ("scivid", "torch", "numpy", "scikit-learn")}
        ),
    }
