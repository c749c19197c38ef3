import numpy as np
import pytest
import torch

from featcache.errors import CallError, TrainingError
from readouts.metrics.values import per_clip, scores

TRUE = torch.tensor([[1.0, 2.0], [3.0, 99.0]])
KNOWN = torch.tensor([[1.0, 1.0], [1.0, 0.0]])


def test_errors_by_hand_over_the_known_values() -> None:
    found = scores(per_clip(TRUE + torch.tensor([[1.0, -2.0], [2.0, 50.0]]), TRUE, known=KNOWN, centre=5.0),
                   quantity="p")  # fmt: skip
    # Errors 1, -2, 2 of the values 1, 2, 3, whose variance is 2/3.
    assert found == pytest.approx({"p/rmse": 3**0.5, "p/mae": 5 / 3, "p/r2": 1 - 3 / (2 / 3)})


def test_weights_count_clips() -> None:
    statistics = per_clip(TRUE + 1, TRUE, known=KNOWN, centre=0.0)
    assert scores(statistics, np.array([1.0, 1.0]), quantity="p") == scores(statistics, quantity="p")
    alone = scores(statistics, np.array([0.0, 3.0]), quantity="p")
    assert (alone["p/rmse"], alone["p/r2"]) == (1.0, 0.0)  # one value has no variance
    with pytest.raises(CallError, match="no error of no value"):
        scores(statistics, np.zeros(2), quantity="p")


def test_divergence_is_refused() -> None:
    with pytest.raises(TrainingError, match="predicted values are not finite"):
        per_clip(TRUE * torch.nan, TRUE, known=KNOWN, centre=0.0)
