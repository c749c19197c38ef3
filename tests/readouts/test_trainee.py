"""A run at one step: what its seed decides, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.errors import TrainingError
from readouts.features import Batch
from readouts.run import Run
from readouts.trainee import Trainee, build_heads, build_preparation, outputs_of, schedule_of

CPU = torch.device("cpu")


@pytest.fixture
def batch() -> Batch:
    tokens = torch.randn(4, 2, 4, 8, generator=torch.Generator().manual_seed(0)).half()
    return Batch(clips=np.arange(4), tokens=tokens, targets={"labels": torch.ones(4, 7)})


def test_initial_weights_follow_from_the_seed_and_not_from_company(run: Run) -> None:
    alone = replace(run, readouts={"attention": run.readouts["attention"]})
    ours, theirs = build_heads(run)["attention"].state_dict(), build_heads(alone)["attention"].state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    other = build_heads(replace(run, seed=4))["attention"].state_dict()
    assert not torch.equal(ours["query"], other["query"])


def test_dropout_is_that_of_seed_and_step(run: Run, batch: Batch, tmp_path: Path) -> None:
    tokens = build_preparation(run)(batch.tokens)
    trainee = Trainee(run, tmp_path, CPU)
    first, again = (outputs_of([trainee], tokens, batch.targets)[0] for _ in range(2))
    assert torch.equal(first["attention"], again["attention"])
    trainee.step += 1
    assert not torch.equal(outputs_of([trainee], tokens, batch.targets)[0]["attention"], first["attention"])


def test_a_loss_that_is_no_number_is_refused(run: Run, batch: Batch, tmp_path: Path) -> None:
    trainee = Trainee(run, tmp_path, CPU)
    trainee.refuse_divergence()
    outputs = outputs_of([trainee], build_preparation(run)(batch.tokens), batch.targets)[0]
    trainee.loss({kind: found * torch.inf for kind, found in outputs.items()}, batch.targets)
    with pytest.raises(TrainingError, match="seed 3, is no number before step 0"):
        trainee.refuse_divergence()


def test_a_short_run_has_a_short_warm_up(run: Run) -> None:
    assert schedule_of(replace(run.recipe, steps=10)).n_warmup == 9
