"""A lab's recordings, and a readout that was trained on them: made once, by the ways a user has."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64

from featcache.backbones import load_backbone
from featcache.backbones.base import resolve_layers
from featcache.data.labels.base import Choices
from featcache.data.own_videos import Wishes, set_up
from featcache.data.own_videos.clips import ListedClip
from featcache.data.own_videos.writing import LISTS, publish_list
from featcache.extract.job import plan_extraction
from featcache.extract.run import Machine, extract_all
from featcache.manifest import load_manifest
from featcache.system.console import silent
from readouts.predict.frames import WindowScores
from readouts.predict.kinds.labels import Labels
from readouts.predict.videos import Watcher, measured
from readouts.results.run_folder import RunFolder
from readouts.tasks import load_task
from readouts.training.loaded import TrainedRun
from readouts.training.loop import train
from readouts.training.settings import configure
from readouts.tuning.loaded import load_run
from readouts.tuning.opening import Asked, open_run_splits
from readouts.tuning.wish import Wish
from tests.own_recordings import write_lab

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Where things lie; for reading only."""

    videos: Path
    cache: Path
    results: Path
    folder: RunFolder
    backbone: str

    def load(self) -> TrainedRun:
        return load_run(self.folder.path, backbone=self.backbone)

    def watcher(self, every: int | None = None, readout: str = "attention", batch: int = 8) -> Watcher:
        return Watcher(
            self.load(),
            readout,
            backbone=self.backbone,
            weights_dir=None,
            every=every,
            device=CPU,
            batch=batch,
        )

    def labels(self, thresholds: Float64[np.ndarray, " O"]) -> Labels:
        return Labels(names=self.load().output_names, background=None, thresholds=thresholds)

    def scores(self, watcher: Watcher, video: Path) -> Iterator[WindowScores]:
        """Of a video's windows."""
        labels = self.labels(np.full(2, 0.5))
        (asked,) = labels.asked(video, measured(video))
        return labels.windows(watcher, asked)

    def trained(self, wish: Wish | None, layer: str | None, steps: int) -> "Lab":
        """The same with a run of its own."""
        manifest = load_manifest(self.videos / "scivid.yaml")
        task = load_task("mice", manifest)
        asked = Asked(
            backbone=self.backbone, layer=layer, fingerprint=None, roles=("train", "val", "test"),
            cache_dir=self.cache, weights_dir=None, data_dir=self.videos, extract="scivid extract ...",
        )  # fmt: skip
        splits, tuning = open_run_splits(asked, task, manifest, wish, silent)
        settings = [
            f"steps={steps}", f"minival_every={steps // 2}", "batch=8", "width=16", "heads=2", "lr=0.003",
            "warmup=5",
        ]  # fmt: skip
        run = configure(task, splits, settings=settings, tuning=tuning)
        train(run, results_dir=self.results, device=CPU)
        return replace(self, folder=run.folder(self.results))


def make_lab(root: Path) -> Lab:
    """In a folder of its own, with a run on a frozen backbone."""
    return make_stores(root, "resize", "default").trained(None, None, steps=80)


def make_stores(root: Path, backbone: str, layers: str) -> Lab:
    """The same without a run: stores of some layers."""
    videos, cache, results = write_lab(root / "mice", n_frames=160), root / "features", root / "results"
    # A mouse a split, in this order: the readout is wrong at times.
    for split, mouse in (("train", 1), ("val", 2), ("test", 3)):
        listed = (ListedClip(source=f"mouse{mouse}_{n}.mp4", first_frame=0, labels=()) for n in "ab")
        publish_list(videos / LISTS / f"{split}.csv", listed)
    manifest = load_manifest(set_up(videos, [], Choices(), Wishes()).manifest)
    model = load_backbone(backbone)
    jobs = [
        plan_extraction(
            manifest, task="mice", role=role, backbone=model, layers=resolve_layers(layers, model.info),
            n_views=1, seed=0, dtype=torch.float32,
        )
        for role in ("train", "val", "test")
    ]  # fmt: skip
    list(extract_all(jobs, Machine(device=CPU), data_dir=videos, cache_dir=cache))
    return Lab(videos=videos, cache=cache, results=results, folder=RunFolder(results), backbone=backbone)
