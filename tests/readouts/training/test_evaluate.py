"""One pass over a split scores every head of every run, each as if it were alone."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.system.console import silent
from readouts.training.evaluate import Scored, score
from readouts.training.run import Run
from readouts.training.step import TrainState, build_preparation

CPU = torch.device("cpu")


def scored(run: Run, runs: Mapping[str, Mapping[str, torch.nn.Module]], minival: int) -> dict[str, Scored]:
    like = replace(run, recipe=replace(run.recipe, batch=7, minival_clips=minival))
    return score(runs, like, "val", build_preparation(run), CPU, progress=silent)


@pytest.mark.parametrize("minival", [5, 7, 24, 100])
def test_minival_is_the_score_of_the_first_clips(run: Run, tmp_path: Path, minival: int) -> None:
    heads = dict(TrainState(run, CPU).heads.items())
    found = scored(run, {"a": heads}, minival)["a"]
    labels = torch.from_numpy(run.splits["val"].targets.read("labels"))
    for kind, outputs in found.outputs.items():
        for clips, scores in ((24, found.scores), (min(minival, 24), found.minival_scores)):
            batch = run.task.per_clip(torch.from_numpy(outputs[:clips]), {"labels": labels[:clips]})
            assert run.task.scores(run.task.join([batch])) == scores[kind]


def test_runs_side_by_side_score_as_alone(run: Run, tmp_path: Path) -> None:
    of = {str(seed): dict(TrainState(replace(run, seed=seed), CPU).heads.items()) for seed in (1, 2)}
    for folder in ("1", "2"):
        (tmp_path / folder).mkdir(exist_ok=True)
    together = scored(run, of, 24)
    for name, heads in of.items():
        alone = scored(run, {"x": heads}, 24)["x"]
        assert alone.scores == together[name].scores
        for kind, values in alone.outputs.items():
            np.testing.assert_array_equal(values, together[name].outputs[kind])
    assert together["1"].scores != together["2"].scores


def test_scores_of_a_device_are_those_of_a_cpu(run: Run, device: torch.device) -> None:
    found = []
    for where in (CPU, device):
        prepare, heads = build_preparation(run), TrainState(run, where).readouts
        (of_run,) = score({"a": heads}, run, "val", prepare.to(where), where, progress=silent).values()
        found.append(of_run)
    here, there = found
    for kind, outputs in here.outputs.items():
        np.testing.assert_allclose(there.outputs[kind], outputs, rtol=1e-4, atol=1e-5)
