"""A lab's recordings, and a readout that was trained on them: made once, by the ways a user has."""

from dataclasses import dataclass
from pathlib import Path

import torch

from featcache.backbones import load_backbone
from featcache.backbones.base import resolve_layers
from featcache.data.labels.base import Choices
from featcache.data.own_videos import Wishes, set_up
from featcache.extract.job import plan_extraction
from featcache.extract.run import Machine, extract_all
from featcache.manifest import load_manifest
from readouts.features.find import open_task_splits
from readouts.predict.videos import Watcher
from readouts.results.run_folder import RunFolder
from readouts.tasks import load_task
from readouts.training.loaded import TrainedRun, load_run
from readouts.training.loop import train
from readouts.training.settings import configure
from tests.own_recordings import write_lab

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Where things lie; for reading only."""

    videos: Path
    cache: Path
    results: Path
    folder: RunFolder

    def load(self) -> TrainedRun:
        return load_run(self.folder.path)

    def watcher(self, every: int | None = None, readout: str = "attention", batch: int = 8) -> Watcher:
        return Watcher(
            self.load(), readout, backbone=None, weights_dir=None, every=every, device=CPU, batch=batch
        )


def make_lab(root: Path) -> Lab:
    """In a folder of its own."""
    videos, cache, results = write_lab(root / "mice", n_frames=160), root / "features", root / "results"
    manifest = load_manifest(set_up(videos, [], Choices(), Wishes()).manifest)
    model = load_backbone("resize")
    jobs = [
        plan_extraction(
            manifest, task="mice", role=role, backbone=model, layers=resolve_layers("default", model.info),
            n_views=1, seed=0, dtype=torch.float32,
        )
        for role in ("train", "val", "test")
    ]  # fmt: skip
    list(extract_all(jobs, Machine(device=CPU), data_dir=videos, cache_dir=cache))
    task = load_task("mice", manifest)
    splits = open_task_splits(cache, "mice", "resize", roles=("train", "val", "test"))
    settings = ["steps=80", "batch=8", "width=16", "heads=2", "minival_every=40", "lr=0.003", "warmup=5"]
    run = configure(task, splits, settings=settings)
    train(run, results_dir=results, device=CPU)
    return Lab(videos=videos, cache=cache, results=results, folder=run.folder(results))
