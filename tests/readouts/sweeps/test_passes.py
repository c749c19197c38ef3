from collections.abc import Sequence
from typing import Any
from weakref import ref as weakref

import pytest
import torch

from readouts.features.preloading import Preloads
from readouts.sweeps import passes
from readouts.sweeps.grid import parse_grid
from readouts.sweeps.passes import Failure, Passed, SweepSteps
from readouts.sweeps.plan import Folders, plan_sweep
from readouts.sweeps.run import Outcome, run_sweep
from readouts.training.run import Run

pytestmark = pytest.mark.usefixtures("stores")
TINY = "task=flyvsfly backbone=toy steps=6 minival_every=3 batch=8 width=8 heads=2 "


def swept(folders: Folders, grid: str) -> Outcome:
    return run_sweep(
        plan_sweep([parse_grid(grid)], folders), folders, name="mine", device=torch.device("cpu")
    )


def test_a_pass_that_failed_is_out_of_memory_before_its_runs_are_tried_alone(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass of many runs may have failed for want of memory, which its traceback would go on holding."""
    train_together, held = passes.train_together, list["weakref[torch.Tensor]"]()

    def short_of_memory(runs: Sequence[Run], **options: Any) -> list[dict[str, Any]]:
        assert not any(tensor() is not None for tensor in held)
        if len(runs) > 1:
            heads = torch.zeros(10)
            held.append(weakref(heads))
            raise MemoryError
        return train_together(runs, **options)

    monkeypatch.setattr(passes, "train_together", short_of_memory)
    found = swept(folders, TINY + "readout=linear seed=0,1")
    assert (len(held), len(found.rows), found.failures) == (1, 2, [])


def test_what_is_preloaded_is_kept_for_all_passes_and_given_up_for_want_of_memory(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a device that preloads unasked, a GPU; here a CPU that was told to."""
    monkeypatch.setattr(passes, "Preloads", lambda device: Preloads(device, "yes"))
    train_together, before = passes.train_together, list[int]()

    def counted(runs: Sequence[Run], *, preloads: Preloads, **options: Any) -> list[dict[str, Any]]:
        before.append(len(preloads._held))
        if len(before) == 2:
            raise torch.OutOfMemoryError
        return train_together(runs, preloads=preloads, **options)

    monkeypatch.setattr(passes, "train_together", counted)
    found = swept(folders, TINY.replace("batch=8", "batch=4,6,8") + "readout=linear seed=0,1")
    assert (len(found.rows), found.failures) == (6, [])
    # Training and val of the first pass; the second fails and is tried again run by run.
    assert before == [0, 2, 0, 2, 2]


def test_what_became_of_passes_is_added_up() -> None:
    one, other = (Failure(label=name, error="x", run=name) for name in "ab")
    both = Passed(failures=(one,), held=("c",)) + Passed(failures=(other,), held=("d",))
    assert both == Passed(failures=(one, other), held=("c", "d"))


def test_steps_of_passes_side_by_side_are_added_up(folders: Folders) -> None:
    plan = plan_sweep([parse_grid(TINY.replace("batch=8", "batch=4,8") + "readout=linear,knn")], folders)
    told: list[tuple[str, int, int]] = []
    steps = SweepSteps(plan.passes, lambda *said: told.append(said))
    one, other, _ = sorted(plan.passes, key=lambda trials: -trials[0].run.n_steps)
    steps.take(one, "training", 2)
    steps.take(other, "training", 3)
    steps.take(other, "scoring val", 7)
    steps.end(one)
    steps.of(other)("training", 4, 6)
    assert told == [
        ("steps of the sweep", 2, 12),
        ("steps of the sweep", 5, 12),
        ("training", 4, 6),
        ("steps of the sweep", 10, 12),
    ]
