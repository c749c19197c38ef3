"""A run in training: what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.errors import TrainingError
from readouts.features.batches import Batch
from readouts.results.run_folder import RunFolder
from readouts.training.run import Run
from readouts.training.train_state import build_preparation, take_step
from readouts.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def batch() -> Batch:
    tokens = torch.randn(4, 2, 4, 8, generator=torch.Generator().manual_seed(0)).half()
    return Batch(clips=np.arange(4), tokens=tokens, targets={"labels": torch.ones(4, 7)})


def test_a_loss_that_is_no_number_is_refused(run: Run, batch: Batch, tmp_path: Path) -> None:
    trainer = Trainer(run, RunFolder(tmp_path), CPU)
    trainer.refuse_divergence()
    with torch.no_grad():
        trainer.state.heads["attention"].classifier.bias.fill_(torch.inf)
    (losses,) = take_step([trainer.state], build_preparation(run)(batch.tokens), batch.targets)
    trainer.remember(losses)
    with pytest.raises(TrainingError, match=r"loss of attention .* seed 3, is no number before step 1"):
        trainer.refuse_divergence()
