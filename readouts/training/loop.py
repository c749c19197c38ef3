"""Train readouts from the cache: one pass over the data, any number of runs side by side.

The loop is the reference's: evaluate at step 0, every 1,000 steps and at the end, each time before that
step's update; the losses of a run's heads are summed; the update, not the gradient, is clipped. Runs that
draw the same batches share their reading, their casts and their statistics, and nothing else. A run of a
probe has no loop: it is fitted, scored and recorded.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from featcache.errors import CallError, TrainingError
from featcache.system.console import Progress, silent
from featcache.system.files import remove_leftovers
from readouts.features.batches import Batch, training_batches
from readouts.features.preloaded import PreloadedTokens
from readouts.features.preloading import PreloadChoice, Preloads
from readouts.results.table import recorded, run_rows
from readouts.tokens.prepared import prepare_batch
from readouts.training.arithmetic import training_arithmetic
from readouts.training.evaluate import Scored, score
from readouts.training.fitting import fit_run
from readouts.training.record import Cost, Learned, record
from readouts.training.run import Run, spanning
from readouts.training.step import build_preparation, take_step, take_tuned_step
from readouts.training.trainer import Trainer
from readouts.training.tuning import given_to

_LOG = logging.getLogger(__name__)
"""Says at INFO what each point of a single run's curve is."""


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
    """Train (or fit), evaluate and record one run; returns its rows of the results table, one a readout.

    A run that is in the table already is not trained again (unless `again`), one that was killed goes on
    from its last checkpoint.

    Raises:
        StoreError: another process is training this run, or a checkpoint, a results file or a store's list of
            clips is damaged.
        TrainingError: the loss is no longer a number.
    """
    return train_together(
        [run],
        results_dir=results_dir,
        device=device,
        again=again,
        commands={run.id: command},
        preloads=Preloads(torch.device(device), resident),
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
    preloads: Preloads | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """`train` for runs with the same `pass_key`, in one pass over the data; returns the rows of all.

    A run's numbers are those that it has alone, up to rounding. A run that diverges is given up and the
    others go on.
    `commands` say by the run's id what repeats it, `sweep_name` what its rows belong to. `preloads` keep
    splits in the device's memory, also for passes after this one.

    Raises:
        CallError: the runs do not share one pass, or a probe is not for such a task.
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
            _read_clip_lists(run)
            remove_leftovers(run.folder(results_dir).path)
            if again:
                run.folder(results_dir).forget()
        if left and left[0].is_trained:
            with training_arithmetic(left[0].recipe.precision):
                one_pass = _Pass(left, results_dir, device, progress)
                one_pass.train(preloads or Preloads(device))
                one_pass.finish(results_dir, commands or {}, sweep_name)
        elif left:
            (run,) = left  # a probe's pass is its own
            started = monotonic()
            found = fit_run(run, device, progress)
            record(
                run,
                results_dir,
                found,
                learned={
                    kind: Learned(best_step=0, best_val=scores[run.task.score], parameters=0)
                    for kind, scores in found["val"].scores.items()
                },
                cost=Cost(device=device, seconds=monotonic() - started, together=1),
                command=(commands or {}).get(run.id, ""),
                sweep=sweep_name,
                # What the table has was fitted the same way: now it is scored on test as well.
                trained_before=not again,
            )
    return [row for run in runs for row in run_rows(results_dir, run.id)]


def _read_clip_lists(run: Run) -> None:
    """Read every split's list of clips, whose ids are needed when the run ends: a damaged one ends it now.

    Raises:
        StoreError: a list cannot be read.
    """
    for split in run.splits.values():
        split.store.clip_table.check_end()


def _recorded(results_dir: Path, run: Run) -> list[dict[str, Any]]:
    return recorded(results_dir, run.id, tested_on=run.tested_on)


class _Pass:
    """Runs that meet the same batches at the same steps."""

    def __init__(
        self, runs: Sequence[Run], results_dir: Path, device: torch.device, progress: Progress
    ) -> None:
        self.one, self.device, self.progress = spanning(runs), device, progress
        """What all share is read from the first, and the layers of all."""
        self.prepare = build_preparation(self.one).to(device)
        self.trainers = [Trainer(run, run.folder(results_dir), device) for run in runs]
        self.diverged: list[TrainingError] = []
        self.preloaded: Mapping[str, PreloadedTokens] = {}
        """By role; the others are read from disk."""

    def train(self, preloads: Preloads) -> None:
        """Train from the earliest checkpoint to the last step; a run that is ahead joins at its own."""
        recipe, training, draws = self.one.recipe, self.one.training, self.one.draws
        steps = range(min(trainer.step for trainer in self.trainers), recipe.steps)
        select = self.one.task.select
        if steps and self.one.feed("train") is None:
            self.preloaded = preloads.for_pass(
                training, self.one.splits["val"], minival_clips=recipe.minival_clips, progress=self.progress
            )
        preloaded, feed = self.preloaded.get("train"), self.one.feed("train")
        batches = training_batches(training, select, draws, steps, self.device, preloaded, feed)
        for step, batch in zip(steps, batches, strict=True):
            # Before the update, as the reference does: the point at step 0 is of the initial weights.
            if step % recipe.minival_every == 0:
                self._evaluate(step)
            self._update(step, batch)
            self.progress("training", step + 1, recipe.steps)
            if not self.trainers:
                break
        self._evaluate(recipe.steps)

    def finish(self, results_dir: Path, commands: Mapping[str, str], sweep_name: str | None) -> None:
        """Score what is to be scored, and record every run that ended well.

        Raises:
            TrainingError: for the first of those that did not.
        """
        found = {role: self._final(role) for role in ("val", "test") if role in self.one.splits}
        for trainer in self.trainers:
            run = trainer.run
            record(
                run,
                results_dir,
                {role: of[run.id] for role, of in found.items()},
                learned=trainer.learned(),
                cost=Cost(device=self.device, seconds=trainer.seconds, together=len(self.trainers)),
                command=commands.get(run.id, ""),
                sweep=sweep_name,
                trained_before=trainer.was_trained,
            )
        if self.diverged:
            raise self.diverged[0]

    def _update(self, step: int, batch: Batch) -> None:
        training = [trainer for trainer in self.trainers if trainer.step == step]
        if not training:
            return
        if frozen := [trainer for trainer in training if trainer.state.backbone is None]:
            states = [trainer.state for trainer in frozen]
            losses = take_step(states, prepare_batch(self.prepare, batch.tokens), batch.targets)
            for trainer, of_heads in zip(frozen, losses, strict=True):
                trainer.remember(of_heads)
        if tuned := [trainer for trainer in training if trainer.state.backbone is not None]:
            given = given_to(batch)
            for trainer in tuned:
                trainer.remember(take_tuned_step(trainer.state, given, self.prepare, batch.targets))

    def _evaluate(self, step: int) -> None:
        """Add a point to the curve of every run that is at this step and has none there yet."""
        recipe = self.one.recipe
        here = [trainer for trainer in self.trainers if trainer.step == step and not trainer.is_evaluated]
        for trainer in here:
            try:
                trainer.refuse_divergence()
            except TrainingError as problem:
                self._give_up(trainer, problem)
        here = [trainer for trainer in here if trainer in self.trainers]
        whole = step % recipe.val_every == 0 or step == recipe.steps
        found = self._on_val(here, limit=None if whole else recipe.minival_clips)
        for trainer in here:
            if trainer in self.trainers:
                trainer.add_point(found[trainer.run.id], whole=whole)
                if len(self.trainers) == 1:
                    _LOG.info(trainer.last_point())

    def _on_val(self, trainers: Sequence[Trainer], limit: int | None) -> dict[str, Scored]:
        """Run -> its scores; one whose outputs are no numbers is given up, and the others are scored."""
        if not trainers:
            return {}
        try:
            return self._score("val", trainers, limit)
        except TrainingError as problem:
            if len(trainers) > 1:
                return {run: of for one in trainers for run, of in self._on_val([one], limit).items()}
            (one,) = trainers
            what = (
                f"{', '.join(one.run.readouts)} on {one.run.task.name}, seed {one.run.seed}, step {one.step}"
            )
            self._give_up(one, TrainingError(f"{what}: {problem}"))
            return {}

    def _give_up(self, trainer: Trainer, problem: TrainingError) -> None:
        self.trainers.remove(trainer)
        self.diverged.append(problem)

    def _final(self, role: str) -> dict[str, Scored]:
        """Run -> the scores of the last step over the whole of a split."""
        found = {}
        if role == "val":
            found = {
                trainer.run.id: trainer.last_scored[1]
                for trainer in self.trainers
                if trainer.last_scored is not None and trainer.last_scored[0] == trainer.step
            }
        missing = [trainer for trainer in self.trainers if trainer.run.id not in found]
        return found | (self._score(role, missing) if missing else {})

    def _score(self, role: str, trainers: Sequence[Trainer], limit: int | None = None) -> dict[str, Scored]:
        runs = {one.run.id: one.state.readouts for one in trainers}
        tuned = {one.run.id: one.state.backbone for one in trainers if one.state.backbone is not None}
        return score(
            runs, self.one, role, self.prepare, self.device, limit=limit, progress=self.progress,
            preloaded=self.preloaded.get(role), backbones=tuned,
        )  # fmt: skip
