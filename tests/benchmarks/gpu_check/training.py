"""Whole runs as the product trains them: from the store and preloaded, killed and resumed, and certified.

The tokens are an L's, of one attention head of the benchmark's; those that are certified are of a small model
and of generated clips.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from torch import Tensor

from featcache import synthetic
from featcache.manifest import load_manifest
from featcache.spec import TokenGrid
from featcache.system.console import Progress
from readouts.certify.compare import certify
from readouts.features.find import open_task_splits
from readouts.features.preloading import PreloadChoice
from readouts.features.splits import FeatureSplit, split_of
from readouts.tasks import load_task
from readouts.training.loop import train
from readouts.training.run import Run
from readouts.training.settings import configure
from readouts.training.trainer import load_state
from tests.benchmarks.gpu_check.check import Check
from tests.benchmarks.gpu_check.extracting import TASK, job_of, machine_of
from tests.benchmarks.gpu_check.features import write_features
from tests.featcache.one_split import extract

NARROW = ("width=32", "heads=2")
CERTIFIED = "videomae_random"


def measure(check: Check) -> None:
    """Speed from both places, the same bits from both and after a stop, then a certificate."""
    with TemporaryDirectory() as folder:
        with check.guarded("feeding"):
            _fed(check, Path(folder))
        with check.guarded("certificate"):
            _certified(check, Path(folder))


def _fed(check: Check, folder: Path) -> None:
    steps, batch, n_clips = (6, 2, 8) if check.small else (160, 32, 512)
    grid = TokenGrid(steps=8, rows=14, columns=14, channels=1024)
    if check.small:
        grid = TokenGrid(steps=4, rows=2, columns=2, channels=32)
    splits = {
        role: split_of(write_features(folder, grid, n_clips=n, clips_per_shard=batch, role=role))
        for role, n in (("train", n_clips), ("val", batch))
    }
    run = _run(check, splits, steps=steps, batch=batch)
    ms, weights = {}, {}
    for name, resident in _places():
        timer = _Timer(check, steps)
        weights[name] = _trained(check, run, folder / name, resident, timer)
        ms[name] = timer.ms_a_step
    check.note("ms a step, MB a batch", {**ms, "MB": round(batch * grid.nbytes / 1e6, 1)})
    check.compare("training from the store over from memory", ms["preloaded"] / ms["store"], target=0.9)
    check.compare("the same bits from the store as preloaded", _equal(*weights.values()), target=1.0)

    def stop(what: str, done: int, total: int) -> None:
        if what == "training" and 2 * done > total:
            raise KeyboardInterrupt

    try:
        _trained(check, run, folder / "stopped", "no", stop)
    except KeyboardInterrupt:
        resumed = _trained(check, run, folder / "stopped", "no", lambda *_: None)
        check.compare("the same bits when resumed", _equal(weights["store"], resumed), target=1.0)


def _places() -> tuple[tuple[str, PreloadChoice], ...]:
    return ("store", "no"), ("preloaded", "yes")


def _run(check: Check, splits: dict[str, FeatureSplit], *, steps: int, batch: int) -> Run:
    settings = [f"steps={steps}", f"batch={batch}", "warmup=1", f"minival_every={steps // 2}"]
    settings += NARROW if check.small else ()
    task = load_task(TASK, load_manifest())
    return configure(task, splits, readouts=["attention"], settings=settings)


class _Timer:
    """Told of every step; takes the time of those after the first few, evaluation left out."""

    def __init__(self, check: Check, steps: int) -> None:
        # From the evaluation in the middle to the end nothing but steps is done.
        self.check, self.steps, self.first = check, steps, steps // 2 + max(1, steps // 16)
        self.started = self.ended = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != "training" or done not in (self.first, self.steps):
            return
        self.check.wait()
        if done == self.first:
            self.started = perf_counter()
        else:
            self.ended = perf_counter()

    @property
    def ms_a_step(self) -> float:
        """Of the timed ones."""
        return round(1e3 * (self.ended - self.started) / (self.steps - self.first), 3)


def _trained(
    check: Check, run: Run, results: Path, resident: PreloadChoice, progress: Progress
) -> dict[str, Tensor]:
    """The weights, and the optimiser's state, that the run ends with."""
    train(run, results_dir=results, device=check.device, resident=resident, progress=progress)
    return load_state(run.folder(results).state)[0]


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Share of the tensors that are the same, bit for bit."""
    return sum(torch.equal(tensor, other[name]) for name, tensor in one.items()) / len(one)


def _certified(check: Check, folder: Path) -> None:
    """A store of generated clips against its backbone on this device."""
    data, cache = folder / "data", folder / "features"
    synthetic.generate(TASK, data, profile={"train": 8, "val": 8} if check.small else "tiny", seed=0)
    for role in ("train", "val"):
        job = job_of(check, CERTIFIED, role)
        extract(job, machine_of(check), data_dir=data, cache_dir=cache)
    splits = open_task_splits(cache, TASK, CERTIFIED, roles=("train", "val"))
    run = _run(check, splits, steps=2 if check.small else 10, batch=2 if check.small else 16)
    found = certify(
        run, job.backbone, load_manifest(), data_dir=data, device=check.device, seeds=2, val_clips=8, batch=8
    )
    check.note("certificate", found.text)
    check.compare("the store stands for its backbone", float(found.findings.faithful), target=1.0)
