"""Runs that train upper blocks from stored tokens: what they learn, are called, keep and say."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from featcache.errors import CallError
from featcache.system.console import silent
from readouts.certify.certificate import read_certificate
from readouts.features.batches import training_batches
from readouts.results.comparability import settings_of
from readouts.results.table import load_results, run_rows
from readouts.training.evaluate import score
from readouts.training.loop import train, train_together
from readouts.training.run import Run
from readouts.training.step import TrainState, build_preparation, take_step, take_tuned_step
from readouts.training.trainer import load_state
from readouts.training.tuning import given_to
from readouts.tuning.wish import Wish
from tests.readouts.tuning.conftest import SETTINGS

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]
TWO = Wish(blocks=2, backbone_lr=0.5)


def weights(run: Run, results: Path) -> dict[str, Tensor]:
    return load_state(run.folder(results).state)[0]


@pytest.fixture(scope="session")
def trained(place: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path, list[dict[str, Any]]]:
    """One run of the two upper blocks."""
    run, results = place.run(TWO), tmp_path_factory.mktemp("tuned") / "results"
    return run, results, train(run, results_dir=results, device=CPU)


def test_a_row_says_what_was_trained(trained: Any, place: Any, tmp_path: Path) -> None:
    run, _, rows = trained
    frozen = train(place.run(None), results_dir=tmp_path, device=CPU)
    for row, other in zip(rows, frozen, strict=True):
        assert (row["tuned"], row["tuned_blocks"], row["backbone_lr"]) == ("partial", 2, 0.5)
        assert (other["tuned"], other["tuned_blocks"], other["backbone_lr"]) == ("frozen", None, None)
        assert row["layer"] == other["layer"] == "3"
        assert row["exactness"] == other["exactness"] == "2 frozen views"
        # Two blocks of 12 channels: four maps of attention, two of 20, two norms.
        block = 4 * (12 * 12 + 12) + (12 * 20 + 20) + (20 * 12 + 12) + 2 * 2 * 12
        assert row["parameters"] == other["parameters"] + 2 * block
        assert settings_of(row) == {**settings_of(other), "tune": 2, "backbone_lr": 0.5}
    # Before the first step upper blocks are the frozen ones, on tokens that were rounded two blocks earlier.
    curves = [
        json.loads(one.folder(results).curve.read_text().splitlines()[0])
        for one, results in ((run, trained[1]), (place.run(None), tmp_path))
    ]
    assert curves[0]["mean_AP"] == pytest.approx(curves[1]["mean_AP"], abs=0.02)


def test_blocks_learn_and_are_what_is_scored(trained: Any) -> None:
    run, results, rows = trained
    final, begun, state = weights(run, results), TrainState(run, CPU), TrainState(run, CPU)
    first, loaded = (dict(one.learned.named_parameters()) for one in (begun, state))
    assert {name.removeprefix("weight/") for name in final} == set(first)
    below = {name for name in first if name.startswith("backbone.")}
    assert {name.split(".")[3] for name in below} == {"1", "2"}
    assert all(not torch.equal(final[f"weight/{name}"], first[name]) for name in below)
    with torch.no_grad():
        for name, parameter in loaded.items():
            parameter.copy_(final[f"weight/{name}"])
    assert begun.backbone is not None and state.backbone is not None
    found = {
        which: score(
            {"it": state.readouts}, run, "val", build_preparation(run), CPU,
            progress=silent, backbones={"it": backbone},
        )["it"]
        for which, backbone in (("tuned", state.backbone), ("before", begun.backbone))
    }  # fmt: skip
    for row in rows:
        outputs = {which: scored.outputs[row["readout"]] for which, scored in found.items()}
        assert found["tuned"].scores[row["readout"]]["mean_AP"] == row["val"]
        assert not np.allclose(outputs["tuned"], outputs["before"], atol=1e-3)


KILLED = """
import os, signal, sys
from cli import app
from readouts.training.trainer import Trainer

remember = Trainer.remember

def killed(self, losses):
    remember(self, losses)
    if self.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)

Trainer.remember = killed
app(sys.argv[1:])
"""
"""A command that is killed three steps after a checkpoint, one before the next."""


def test_a_killed_run_ends_with_the_same_bits(trained: Any, place: Any, tmp_path: Path) -> None:
    run, results, rows = trained
    settings = [word for one in SETTINGS for word in ("--set", one)]
    words = [
        "train-readout", "--backbone", place.backbone, "--task", "flyvsfly", "--layer", "3", "--tune", "2",
        "--backbone-lr", "0.5", *settings, "--cache-dir", place.cache, "--results-dir", tmp_path,
        "--device", "cpu",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert load_state(run.folder(tmp_path).state)[1]["step"] == 4
    code, said = place.scivid(*words)
    assert code == 0, said
    first, second = weights(run, results), weights(run, tmp_path)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [row["val"] for row in rows] == [row["val"] for row in run_rows(tmp_path, run.id)]


def test_its_name_is_its_own_and_a_frozen_runs_stays(trained: Any, place: Any) -> None:
    run = trained[0]
    frozen = place.run(None)
    assert "tuning" not in frozen.decisions
    # What was decided of a frozen run before there were others.
    assert frozen.decisions.keys() == {"task", "splits", "readouts", "recipe", "seed"}
    others = [place.run(replace(TWO, backbone_lr=0.1)), place.run(replace(TWO, blocks=1)), frozen]
    assert len({one.id for one in (run, *others)}) == 4
    assert place.run(replace(TWO, micro_batch=1, checkpointing=True)).id == run.id


def test_runs_share_reads_and_each_has_blocks_of_its_own(trained: Any, place: Any, tmp_path: Path) -> None:
    run, results, _ = trained
    other = place.run(replace(TWO, backbone_lr=0.1), seed=3)
    # Beside one with a frozen backbone, whose readouts see the lower block's tokens.
    frozen = place.run(None, layer="1")
    assert run.pass_key == other.pass_key == frozen.pass_key
    train_together([run, other, frozen], results_dir=tmp_path, device=CPU)
    alone, together = weights(run, results), weights(run, tmp_path)
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-5)
    mine = weights(other, tmp_path)
    assert not any(torch.equal(mine[n], together[n]) for n in alone if "norm1.weight" in n)
    assert {row["tuned"] for row in load_results(tmp_path)} == {"partial", "frozen"}


def test_some_clips_at_a_time_give_the_same_numbers(place: Any) -> None:
    found = []
    for wish in (TWO, replace(TWO, micro_batch=3), replace(TWO, checkpointing=True)):
        run = place.run(wish, settings=("dropout=0.5", "clip_update=0.05"))
        state, prepare = TrainState(run, CPU), build_preparation(run)
        losses = [
            take_tuned_step(state, given_to(batch), prepare, batch.targets)
            for batch in training_batches(run.training, run.task.select, run.draws, range(5), CPU)
        ]
        found.append((losses, [p.detach() for p in state.learned.parameters()]))
    (whole, after), *others = found
    for losses, parameters in others:
        for step, expected in zip(losses, whole, strict=True):
            torch.testing.assert_close(step, expected, rtol=1e-5, atol=1e-6)
        for p, expected in zip(parameters, after, strict=True):
            torch.testing.assert_close(p, expected, rtol=1e-3, atol=2e-4)


def test_a_tuned_step_with_rate_zero_below_is_the_frozen_step(place: Any) -> None:
    run = place.run(replace(TWO, backbone_lr=1e-30))
    tuned, heads = TrainState(run, CPU), TrainState(replace(run, tuning=None), CPU)
    prepare = build_preparation(run)
    for batch in training_batches(run.training, run.task.select, run.draws, range(4), CPU):
        assert tuned.backbone is not None
        tokens = tuned.backbone.tokens(given_to(batch))
        losses = take_tuned_step(tuned, given_to(batch), prepare, batch.targets)
        (expected,) = take_step([heads], prepare(tokens), batch.targets)
        for kind, loss in losses.items():
            assert float(loss) == pytest.approx(float(expected[kind]), rel=1e-5)


def test_a_store_is_certified_for_the_blocks_that_learn_from_it(place: Any, tmp_path: Path) -> None:
    shutil.copytree(place.cache, tmp_path / "features")
    settings = [word for one in SETTINGS[1:] for word in ("--set", one)]
    words = [
        "certify", "--backbone", place.backbone, "--task", "flyvsfly", "--layer", "3", "--steps", "2",
        "--seeds", "2", "--val-clips", "4", *settings, "--data-dir", place.data,
        "--cache-dir", tmp_path / "features",
    ]  # fmt: skip
    code, said = place.scivid(*words, "--tune", "2", "--backbone-lr", "0.5")
    assert code == 0 and "layer 1, --tune 2 of layer 3: " in said, said
    run = place.run(TWO, cache_dir=tmp_path / "features", settings=("steps=2", "minival_every=1"))
    path = run.training.store.path
    found = read_certificate(path, "1, --tune 2 of layer 3")
    assert found is not None and found.findings.seeds == 2 and read_certificate(path, "1") is None
    assert "--tune 2 --backbone-lr 0.5" in found.command
    train(run, results_dir=tmp_path, device=CPU)
    history = run.folder(tmp_path).curve.read_text().splitlines()
    for head in found.findings.readouts:
        curve = [row for row in map(json.loads, history) if row["readout"] == head.readout]
        assert [row["train_loss"] for row in curve[1:]] == list(head.losses_cached)
        assert list(head.losses_online) != list(head.losses_cached)
    code, said = place.scivid(*words, "--tune", "all")
    assert code == 2 and "no store stands for them" in said


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_is_above_zero(place: Any, rate: float) -> None:
    with pytest.raises(CallError, match=r"--backbone-lr .* must be above 0"):
        place.run(replace(TWO, backbone_lr=rate))


def test_the_command_line_trains_and_repeats_itself(place: Any, tmp_path: Path) -> None:
    words = [
        "train-readout", "--backbone", place.backbone, "--task", "flyvsfly", "--readout", "linear",
        "--tune", "1", "--backbone-lr", "0.3", "--set", "steps=2", "--set", "batch=4",
        "--cache-dir", place.cache, "--results-dir", tmp_path,
    ]  # fmt: skip
    code, said = place.scivid(*words)
    assert code == 0, said
    (row,) = load_results(tmp_path)
    assert (row["tuned"], row["tuned_blocks"], row["backbone_lr"], row["layer"]) == ("partial", 1, 0.3, "3")
    code, said = place.scivid(*row["command"].split()[1:])
    assert code == 0 and "nothing computed" in said


def test_a_grid_tunes_several_depths_and_rates(place: Any, tmp_path: Path) -> None:
    grid = f"task=flyvsfly backbone={place.backbone} layer=3 readout=linear steps=2 batch=4"
    words = ["sweep", "--grid", f"{grid} tune=frozen,1,2 backbone_lr=0.1,0.5", "--name", "depths"]
    where = ["--cache-dir", place.cache, "--results-dir", tmp_path]
    code, said = place.scivid(*words, "--dry-run", *where)
    assert code == 0 and "5 runs: 0 in the table, 5 to run in 3 passes" in said, said
    code, said = place.scivid(*words, *where)
    assert code == 0, said
    rows = load_results(tmp_path)
    found = {(row["tuned_blocks"], row["backbone_lr"], row["together"]) for row in rows}
    assert found == {(None, None, 1), (1, 0.1, 2), (1, 0.5, 2), (2, 0.1, 2), (2, 0.5, 2)}
    assert "backbone_lr=0.1" in said and "tune=2" in said
    # Never one ranking: the frozen run is not among those that the best was chosen from.
    assert "best on val of 4 runs" in said and "note: Some rows are of frozen backbones" in said
    frozen, tuned = (next(row["run"] for row in rows if row["tuned_blocks"] == n) for n in (None, 2))
    code, compared = place.scivid("compare", frozen, tuned, *where)
    assert code == 0 and "linear, 2 upper blocks tuned, seed 0" in compared, compared
    for row in rows:
        code, said = place.scivid(*row["command"].split()[1:])
        assert code == 0 and "nothing computed" in said


def test_a_grid_tells_what_is_missing_for_each_depth(place: Any, tmp_path: Path) -> None:
    grid = f"task=flyvsfly backbone={place.backbone} layer=3 readout=linear,knn tune=2,3 steps=2"
    where = ["--cache-dir", place.cache, "--results-dir", tmp_path]
    code, said = place.scivid("sweep", "--grid", grid, "--dry-run", *where)
    assert code == 1
    assert "knn is fitted to a frozen backbone alone" in said
    assert "2 runs: 0 in the table, 1 without a store, 1 to run" in said, said
    assert "--layers 0`" in said


@pytest.mark.parametrize(
    ("grid", "why"),
    [
        ("backbone_lr=0.1", "goes with tune"),
        ("tune=0", "--tune 0: write how many"),
        ("tune=2 layer=all", "name the layers"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(place: Any, tmp_path: Path, grid: str, why: str) -> None:
    whole = f"task=flyvsfly backbone={place.backbone} readout=linear steps=2 {grid}"
    where = ["--cache-dir", place.cache, "--results-dir", tmp_path]
    code, said = place.scivid("sweep", "--grid", whole, *where)
    assert code == 2 and why in " ".join(said.split()), said
