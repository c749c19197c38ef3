"""Weather: does a step wait for its data?

A DPT readout is trained on 13 MB of future fields a window (16 frames, 181 x 360, 3 variables), drawn from
targets that hold every time step once. The data of a step must take less than its computing. The head is a
sixteenth of the benchmark's width, so the real one has far more time to hide the reading behind.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import cli
from featcache import synthetic
from featcache.manifest import load_manifest
from readouts.features.batches import Batch, wanted_at
from readouts.features.find import open_task_splits
from readouts.features.splits import draws_of
from readouts.tasks import load_task
from readouts.training.settings import configure
from readouts.training.step import TrainState, build_preparation, take_step
from tests.benchmarks.side_by_side import Claim, claim, in_turn

TASK, BACKBONE = "weatherbench2", "resize"


def measure(small: bool) -> list[Claim]:
    """Seconds of data over seconds of computing, a step each."""
    batch, features = (2, 8) if small else (16, 64)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        synthetic.generate(TASK, folder / "data", profile="tiny" if small else "demo", seed=0)
        cli.extract(
            backbone=BACKBONE, task=TASK, split="train,val", data_dir=folder / "data",
            cache_dir=folder / "features",
        )  # fmt: skip
        splits = open_task_splits(folder / "features", TASK, BACKBONE, roles=("train", "val"))
        task = load_task(TASK, load_manifest())
        settings = [f"batch={batch}", f"features={features}", f"head_channels={features}", "steps=1000"]
        run = configure(task, splits, settings=settings)
        state, prepare = TrainState(run, torch.device("cpu")), build_preparation(run)
        draws, step = draws_of(run.training, batch=batch, seed=0), iter(range(1_000))
        held: list[Batch] = []

        def data() -> None:
            clips, views, rng = wanted_at(run.training, draws, next(step))
            tokens = run.training.store.read(clips, views=views)
            targets = run.training.targets
            assert targets is not None
            rows = {
                name: torch.from_numpy(values)
                for name, values in task.select(targets, clips, views, rng).items()
            }
            held[:] = [Batch(clips=clips, tokens=torch.from_numpy(tokens).flatten(2, 3), targets=rows)]

        def compute() -> None:
            (found,) = held
            take_step([state], prepare(found.tokens), found.targets)

        data()
        n_bytes = sum(np.prod(rows.shape) * rows.element_size() for rows in held[0].targets.values())
        times = in_turn({"data": data, "compute": compute}, rounds=1 if small else 5)
    return [
        claim(
            times,
            group="weather",
            what="data of a step over its computing",
            over="data",
            under="compute",
            target=1.0,
            at_least=False,
            detail=f"{n_bytes / 1e6:,.0f} MB of targets a step of {batch} windows, DPT of width {features}",
        )
    ]
