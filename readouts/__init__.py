"""Stage two: train small readouts on cached tokens.

    import featcache, readouts

    task = readouts.load_task("calms21", featcache.load_manifest())
    splits = readouts.open_task_splits("features", "calms21", "videomae_b", roles=("train", "val"))
    run = readouts.configure(task, splits, readouts=["attention"], settings=["lr=1e-4"], seed=0)
    rows = readouts.train(run, results_dir="results", device="cpu")
    trained = readouts.load_run(f"results/calms21/videomae_b-{run.id}")  # a torch module that takes tokens

What stands here is imported when it is asked for: `import readouts` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from readouts.features.find import open_task_splits
    from readouts.results.table import load_results
    from readouts.tasks import load_task
    from readouts.training.loop import train, train_together
    from readouts.training.settings import configure
    from readouts.tuning.loaded import load_run

__all__ = [
    "configure",
    "load_results",
    "load_run",
    "load_task",
    "open_task_splits",
    "train",
    "train_together",
]

_HOMES = {
    "configure": "training.settings",
    "load_results": "results.table",
    "load_run": "tuning.loaded",
    "load_task": "tasks",
    "open_task_splits": "features.find",
    "train": "training.loop",
    "train_together": "training.loop",
}


def __getattr__(name: str) -> Any:
    """One of `__all__`, from the module that has it."""
    if name not in __all__:
        raise AttributeError(f"readouts has no {name}: it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(f"readouts.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """What completion offers."""
    return list(__all__)
