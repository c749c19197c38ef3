"""Train readouts from the cache: one pass over the data, any number of runs side by side.

The loop is the reference's: evaluate at step 0, every 1,000 steps and at the end, each time before that
step's update; the losses of a run's heads are summed; the update, not the gradient, is clipped. Runs that
draw the same batches share their reading, their casts and their statistics, and nothing else.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from featcache.errors import CallError, TrainingError
from featcache.system.console import Progress, silent
from featcache.system.files import sweep
from readouts.features.batches import Batch, training_batches
from readouts.features.preloaded import PreloadChoice, preload, preloaded_batches
from readouts.results.rows import make_row, scored_later
from readouts.results.table import add_run, load_run, recorded
from readouts.training.evaluate import Scored, score
from readouts.training.run import Run
from readouts.training.trainer import Trainee, build_preparation, take_step, training_arithmetic


def train(
    run: Run,
    *,
    results_dir: Path | str,
    device: torch.device | str,
    again: bool = False,
    command: str = "",
    resident: PreloadChoice = "auto",
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Train, evaluate and record one run; returns its rows of the results table, one a head.

    A run that is in the table already is not trained again (unless `again`), one that was killed goes on
    from its last checkpoint.

    Raises:
        StoreError: another process is training this run, or a checkpoint or results file is damaged.
        TrainingError: the loss is no longer a number.
    """
    return train_together(
        [run],
        results_dir=results_dir,
        device=device,
        again=again,
        commands={run.id: command},
        resident=resident,
        progress=progress,
    )


def train_together(
    runs: Sequence[Run],
    *,
    results_dir: Path | str,
    device: torch.device | str,
    again: bool = False,
    commands: Mapping[str, str] | None = None,
    sweep_name: str | None = None,
    resident: PreloadChoice = "auto",
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """`train` for runs with the same `pass_key`, in one pass over the data; returns the rows of all.

    A run's numbers are those that it has alone. A run that diverges is given up and the others go on.
    `commands` say by the run's id what repeats it, `sweep_name` what its rows belong to, `resident` whether
    the training split is kept in the device's memory.

    Raises:
        CallError: the runs do not share one pass.
        StoreError, TrainingError: as `train`; the rows of the runs that ended well are in the table.
    """
    results_dir, device = Path(results_dir), torch.device(device)
    if len({run.pass_key for run in runs}) != 1:
        raise CallError(f"{len(runs)} runs cannot share a pass: their stores, batches or steps differ.")
    left = [run for run in runs if again or not _recorded(results_dir, run)]
    with ExitStack() as locks:
        for run in left:
            locks.callback(run.folder(results_dir).hold().release)
        # Asked again under the lock: its last holder may have just finished this very run.
        left = [run for run in left if again or not _recorded(results_dir, run)]
        for run in left:
            sweep(run.folder(results_dir).path)
            if again:
                run.folder(results_dir).forget()
        if left:
            with training_arithmetic():
                one_pass = _Pass(left, results_dir, device, progress)
                one_pass.fit(resident)
                one_pass.finish(results_dir, commands or {}, sweep_name)
    return [row for run in runs for row in load_run(results_dir, run.id)]


def _recorded(results_dir: Path, run: Run) -> list[dict[str, Any]]:
    return recorded(results_dir, run.id, tested="test" in run.splits)


class _Pass:
    """Runs that meet the same batches at the same steps."""

    def __init__(
        self, runs: Sequence[Run], results_dir: Path, device: torch.device, progress: Progress
    ) -> None:
        self.one, self.device, self.progress = runs[0], device, progress
        """What all share is read from the first."""
        self.prepare = build_preparation(self.one).to(device)
        self.trainees = [Trainee(run, run.folder(results_dir), device) for run in runs]
        self.diverged: list[TrainingError] = []

    def fit(self, resident: PreloadChoice) -> None:
        """From the earliest checkpoint to the last step; a run that is ahead joins at its own."""
        recipe, training, draws = self.one.recipe, self.one.training, self.one.draws
        steps = range(min(trainee.step for trainee in self.trainees), recipe.steps)
        select = self.one.task.select
        held = preload(training, self.device, resident, self.progress) if steps else None
        if held is None:
            batches = training_batches(training, select, draws, steps, self.device)
        else:
            batches = preloaded_batches(held, training, select, draws, steps)
        for step, batch in zip(steps, batches, strict=True):
            if step % recipe.minival_every == 0:
                self._evaluate(step)
            self._update(step, batch)
            self.progress("training", step + 1, recipe.steps)
            if not self.trainees:
                break
        self._evaluate(recipe.steps)

    def finish(self, results_dir: Path, commands: Mapping[str, str], sweep_name: str | None) -> None:
        """Score what is to be scored, and record every run that ended well.

        Raises:
            TrainingError: for the first of those that did not.
        """
        found = {role: self._final(role) for role in ("val", "test") if role in self.one.splits}
        for trainee in self.trainees:
            run = trainee.run
            for role, of in found.items():
                trainee.keep(role, of[run.id])
            rows = [
                make_row(
                    run,
                    kind,
                    splits={**run.splits, "train": run.training},
                    scores={role: of[run.id].scores[kind] for role, of in found.items()},
                    best_val=best[run.task.score],
                    best_step=best["step"],
                    steps=run.recipe.steps,
                    batch=run.recipe.batch,
                    parameters=sum(weight.numel() for weight in trainee.heads[kind].parameters()),
                    recipe=asdict(run.recipe),
                    config=run.readouts[kind],
                    device=self.device,
                    seconds=trainee.seconds,
                    together=len(self.trainees),
                    sweep=sweep_name,
                    command=commands.get(run.id, ""),
                )
                for kind in run.readouts
                for best in [trainee.best(kind)]
            ]
            if trainee.was_trained:
                rows = scored_later(rows, load_run(results_dir, run.id))
            add_run(results_dir, run.id, rows)
        if self.diverged:
            raise self.diverged[0]

    def _update(self, step: int, batch: Batch) -> None:
        learning = [trainee for trainee in self.trainees if trainee.step == step]
        if not learning:
            return
        losses = take_step(learning, self.prepare(batch.tokens), batch.targets)
        for trainee, of_heads in zip(learning, losses, strict=True):
            trainee.remember(of_heads)

    def _evaluate(self, step: int) -> None:
        """One point of the curve of every run that is here and has none yet."""
        recipe = self.one.recipe
        here = [t for t in self.trainees if t.step == step and not t.is_evaluated]
        for trainee in here:
            try:
                trainee.refuse_divergence()
            except TrainingError as problem:
                self._give_up(trainee, problem)
        here = [trainee for trainee in here if trainee in self.trainees]
        whole = step % recipe.val_every == 0 or step == recipe.steps
        found = self._on_val(here, limit=None if whole else recipe.minival_clips)
        for trainee in here:
            if trainee in self.trainees:
                trainee.record(found[trainee.run.id], whole=whole)

    def _on_val(self, trainees: Sequence[Trainee], limit: int | None) -> dict[str, Scored]:
        """Run -> its scores; one whose outputs are no numbers is given up, and the others are scored."""
        if not trainees:
            return {}
        try:
            return self._score("val", trainees, limit)
        except TrainingError as problem:
            if len(trainees) > 1:
                return {run: of for one in trainees for run, of in self._on_val([one], limit).items()}
            (one,) = trainees
            what = f"{', '.join(one.heads)} on {one.run.task.name}, seed {one.run.seed}, step {one.step}"
            self._give_up(one, TrainingError(f"{what}: {problem}"))
            return {}

    def _give_up(self, trainee: Trainee, problem: TrainingError) -> None:
        self.trainees.remove(trainee)
        self.diverged.append(problem)

    def _final(self, role: str) -> dict[str, Scored]:
        """Run -> the scores of the last step over the whole of a split."""
        found = {}
        if role == "val":
            found = {
                t.run.id: t.last_scored[1]
                for t in self.trainees
                if t.last_scored is not None and t.last_scored[0] == t.step
            }
        missing = [trainee for trainee in self.trainees if trainee.run.id not in found]
        return found | (self._score(role, missing) if missing else {})

    def _score(self, role: str, trainees: Sequence[Trainee], limit: int | None = None) -> dict[str, Scored]:
        return score(
            {trainee.run.id: trainee.readouts for trainee in trainees},
            self.one.task,
            self.one.splits[role],
            self.prepare,
            self.device,
            batch=self.one.recipe.batch,
            minival_clips=self.one.recipe.minival_clips,
            limit=limit,
            progress=self.progress,
            what=f"scoring {role}",
        )
