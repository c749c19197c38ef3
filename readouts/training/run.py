"""What decides a run: the task, the features, the readouts and their settings, the recipe, the seed."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from featcache.errors import CallError
from featcache.spec import Layer
from readouts.features.batches import Feed
from readouts.features.draws import Draws
from readouts.features.splits import (
    FeatureSplit,
    TokensRead,
    draws_of,
    split_decisions,
    targets_fingerprint,
    tokens_read,
)
from readouts.results.configurations import grouped
from readouts.results.run_folder import RunFolder
from readouts.tasks.base import Recipe, Task
from readouts.training.probes import PROBES
from readouts.training.tuning import FRESH_VIEWS, Tuning

Item = TypeVar("Item")

OF_THE_PASS = (
    "steps", "batch", "order_seed", "train_fraction", "train_views", "mix_shards",
    "minival_every", "minival_clips", "val_every", "precision",
)  # fmt: skip
"""Settings of the recipe in which runs that share one pass over the data are alike."""

OF_A_PROBE = ("train_fraction", "train_views")
"""Settings of the recipe that hold for a probe as well."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that decides a run's numbers, but for the hardware's rounding."""

    task: Task
    splits: Mapping[str, FeatureSplit]
    """Role (train, val, perhaps test) -> features."""
    readouts: Mapping[str, Mapping[str, Any]]
    """Readout -> its settings. Heads are trained side by side on the same batches, a probe is by itself."""
    recipe: Recipe
    seed: int
    tuning: Tuning | None = None
    """What is trained of the backbone; None: it is frozen."""

    @property
    def is_trained(self) -> bool:
        """Whether its readouts are heads, trained step by step, and not a probe, fitted at once."""
        return not self.readouts.keys() & PROBES.keys()

    @property
    def recipe_settings(self) -> dict[str, Any]:
        """The settings of the recipe that decide its numbers."""
        settings = asdict(self.recipe)
        if settings["precision"] == Recipe().precision:
            del settings["precision"]  # which runs had no name for when they got theirs
        return settings if self.is_trained else {name: settings[name] for name in OF_A_PROBE}

    @property
    def n_steps(self) -> int:
        """Updates of the training; 0 of a probe."""
        return self.recipe.steps if self.is_trained else 0

    @property
    def decisions(self) -> dict[str, Any]:
        """What identifies the run: the same decisions are the same run, which is never trained twice."""
        readouts = {kind: dict(settings) for kind, settings in self.readouts.items()}
        # Two spellings, which the names of all runs so far follow from.
        how = {"readouts": readouts, "recipe": self.recipe_settings}
        return {
            "task": {"name": self.task.name, **self.task.identity()},
            "splits": {role: split_decisions(s) for role, s in self.splits.items() if role != "test"},
            **(how if self.is_trained else {"probe": readouts, **self.recipe_settings}),
            "seed": self.seed,
            **({"orders": "by seed and epoch"} if self.is_trained and self.recipe.order_seed else {}),
            # Runs of frozen backbones had no name for it when they got theirs.
            **({} if self.tuning is None else {"tuning": self.tuning.decisions}),
        }

    @property
    def tested_on(self) -> dict[str, Any] | None:
        """The test split as the results table names it; None where the run is not to be scored on one."""
        test = self.splits.get("test")
        if test is None:
            return None
        return {
            "test_fingerprint": test.store.fingerprint,
            "n_test": test.n_usable,
            "targets": targets_fingerprint(test),
        }

    @property
    def id(self) -> str:
        """Twelve digits of the digest of `decisions`."""
        return run_id(self.decisions)

    @property
    def reads(self) -> TokensRead:
        """The tokens that its heads are built for."""
        return tokens_read(self.splits["train"])

    @property
    def gives(self) -> dict[str, Any]:
        """What its outputs are, for whoever has its weights and not its task: JSON values."""
        task, targets = self.task, self.splits["train"].targets
        labels = (
            targets is not None
            and "labels" in targets
            and targets.shape("labels")[1:] == (len(task.output_names),)
        )
        return {
            "takes": task.takes,
            "names": list(task.output_names),
            "n_outputs": task.n_outputs,
            "are_labels": labels,
            "background": task.identity().get("background"),
            "offset": getattr(task, "offset", 0.0),
            "scale": getattr(task, "scale", 1.0),
            "of_frames": getattr(task, "of_frames", False),
            "units": list(getattr(task, "units", ())),
            "score": task.score,
            "higher_is_better": task.higher_is_better,
            # Of the videos it learned from, in frames a second, where all have one.
            "rate": getattr(getattr(task, "dataset", None), "rate", None),
        }

    @property
    def pass_key(self) -> str:
        """Runs with the same one draw the same batches and are scored at the same steps on the same clips.

        They may read other layers of the stores (`in_passes`). A whole backbone is trained by itself: several
        would hold their activations and moments side by side.
        """
        if not self.is_trained or (self.tuning is not None and self.tuning.blocks is None):
            return self.id
        splits = {role: split_decisions(split) for role, split in self.splits.items()}
        return run_id(
            {
                "task": self.decisions["task"],
                "splits": {role: {**of, "layer": None} for role, of in splits.items()},
                "recipe": {
                    name: self.recipe_settings[name] for name in OF_THE_PASS if name in self.recipe_settings
                },
            }
        )

    @cached_property
    def training(self) -> FeatureSplit:
        """The share of the training split, and of its views, that the recipe asks for.

        Raises:
            CallError: the store holds fewer views.
        """
        return replace(
            self.splits["train"], fraction=self.recipe.train_fraction, first_views=self.recipe.train_views
        )

    @property
    def draws(self) -> Draws:
        """Which clips and views each step takes; runs of one pass have the same."""
        recipe = self.recipe
        draws = draws_of(
            self.training, batch=recipe.batch, seed=recipe.order_seed, mix_shards=recipe.mix_shards
        )
        fresh = self.tuning is not None and self.tuning.fresh_views
        return replace(draws, n_views=FRESH_VIEWS) if fresh else draws

    def feed(self, role: str) -> Feed | None:
        """Where batches of pixels come from; None where the run reads tokens from its stores."""
        feeds = None if self.tuning is None else self.tuning.feeds
        return None if feeds is None else feeds[role]

    def folder(self, results_dir: Path) -> RunFolder:
        """Where the run keeps its files."""
        backbone = self.splits["train"].store.attrs["backbone"]
        return RunFolder.of(results_dir, {"task": self.task.name, "backbone": backbone, "run": self.id})


def spanning(runs: Sequence[Run]) -> Run:
    """The first of the runs of a pass, on splits of every layer that any of them reads.

    Raises:
        CallError: a run tunes a backbone, and others read other layers.
    """
    layers = tuple(sorted({layer for run in runs for layer in run.training.layers}))
    if layers == runs[0].training.layers:
        return runs[0]
    if any(run.tuning is not None for run in runs):
        raise CallError("a run that tunes a backbone shares no pass with runs of other layers.")
    splits = {role: replace(split, layers=layers) for role, split in runs[0].splits.items()}
    return replace(runs[0], splits=splits)


def in_passes(items: Iterable[Item], run_of: Callable[[Item], Run]) -> list[list[Item]]:
    """What is to be trained by pass: runs of several layers beside those of each of these layers.

    So every layer is read once for all of them. Runs of other layers share no reading, and no pass.
    """
    found: list[list[Item]] = []
    for group in grouped(items, lambda item: run_of(item).pass_key).values():
        several = [layers for item in group if len(layers := run_of(item).splits["train"].layers) > 1]
        key = partial(_pass_of, run_of, {layer for layers in several for layer in layers})
        found += grouped(group, key).values()
    return found


def _pass_of(run_of: Callable[[Item], Run], shared: Set[Layer], item: Item) -> tuple[Layer, ...] | None:
    """None of a run that takes part in the pass of several layers, else what it reads.

    A run that tunes a backbone does not: it begins at tokens of one layer, and gives those of another.
    """
    run, layers = run_of(item), run_of(item).splits["train"].layers
    return None if shared >= set(layers) and run.tuning is None else layers


def run_id(decisions: Mapping[str, Any]) -> str:
    """The name of a run that was decided so."""
    return blake2b(json.dumps(decisions, sort_keys=True).encode(), digest_size=6).hexdigest()
