"""The stores of a run by what a call asks for: a frozen backbone's, or those that a tuned one begins at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.manifest import Manifest
from featcache.spec import SHUFFLED, Layer
from featcache.system.console import Progress
from readouts.features.batches import Feed
from readouts.features.find import open_task_splits
from readouts.features.splits import FeatureSplit
from readouts.tasks.base import Task
from readouts.training.tuning import Tuning
from readouts.tuning import backbone as backbones
from readouts.tuning.wish import Wish


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Which stores a call names, and where all things lie."""

    backbone: str
    """As `--backbone` was given it."""
    layer: str | None
    fingerprint: str | None
    roles: Sequence[str]
    cache_dir: Path
    weights_dir: Path | None
    data_dir: Path
    extract: str
    """The command that makes the stores."""

    @property
    def store_name(self) -> str:
        """The backbone's name in stores."""
        plain = self.backbone.removesuffix(SHUFFLED)
        return backbones.name_in_stores(plain) + SHUFFLED * (plain != self.backbone)

    def options_with(self, wish: Wish | None) -> dict[str, object]:
        """The options by which a command repeats a run: one that tunes a backbone loads it."""
        if wish is None:
            return {"backbone": self.store_name}
        data_dir = self.data_dir if wish.blocks is None else None
        where = {"weights_dir": self.weights_dir, "data_dir": data_dir}
        return {"backbone": self.backbone, **wish.options, **where}


def open_run_splits(
    asked: Asked, task: Task, manifest: Manifest, wish: Wish | None, progress: Progress
) -> tuple[dict[str, FeatureSplit], Tuning | None]:
    """Role -> the store that a run reads, and what it trains of the backbone; None where that is frozen.

    Raises:
        CallError: the backbone cannot be tuned so.
        StoreError, WeightsError, DataError: what is needed is missing, or is not what it should be.
    """
    if wish is None:
        splits = open_task_splits(
            asked.cache_dir, task.name, asked.store_name, layer=asked.layer, fingerprint=asked.fingerprint,
            roles=asked.roles, extract=asked.extract,
        )  # fmt: skip
        return splits, None
    splits = open_tuned_splits(asked, task, wish)
    return splits, tuning_on(splits, asked, manifest, wish, progress)


def open_tuned_splits(asked: Asked, task: Task, wish: Wish) -> dict[str, FeatureSplit]:
    """Role -> the store that a run which tunes a backbone reads.

    Raises:
        CallError, StoreError, WeightsError: as `open_run_splits`.
    """
    model, layer = _model(asked)
    place = backbones.Place(
        cache_dir=asked.cache_dir, task=task.name, store_name=asked.store_name,
        fingerprint=asked.fingerprint, extract=asked.extract,
    )  # fmt: skip
    return backbones.open_tuned_splits(model, wish, layer, place, asked.roles)


def tuning_on(
    splits: Mapping[str, FeatureSplit], asked: Asked, manifest: Manifest, wish: Wish, progress: Progress
) -> Tuning:
    """What a run on these splits trains of the backbone.

    Raises:
        CallError, StoreError, DataError: as `open_run_splits`.
    """
    model, layer = _model(asked)
    feeds: Mapping[str, Feed] | None = None
    if wish.blocks is None:
        feeds = backbones.pixel_feeds(model, splits, manifest, asked.data_dir, progress)
    return backbones.tuning(model, wish, layer, splits, feeds)


def _model(asked: Asked) -> tuple[Any, Layer]:
    model = backbones.load(asked.backbone.removesuffix(SHUFFLED), asked.weights_dir)
    return model, backbones.layer_seen(model, asked.layer)
