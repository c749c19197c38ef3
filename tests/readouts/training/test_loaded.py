"""A run loaded from its folder: the outputs of its evaluation, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import readouts
from featcache.errors import CallError, StoreError
from readouts.results.per_clip import read_predictions
from readouts.results.run_folder import RunFolder
from readouts.training.run import run_id
from readouts.training.trainer import load_state, save_state
from readouts.tuning.loaded import load_run
from tests.readouts.conftest import Trained


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> RunFolder:
    """A copy of the run's folder without the rest of the results, the stores or the task."""
    of_run = trained.run.folder(trained.results)
    shutil.copytree(of_run.path, tmp_path / of_run.path.name)
    return RunFolder(tmp_path / of_run.path.name)


def test_it_gives_what_the_evaluation_gave(trained: Trained, folder: RunFolder) -> None:
    table, kept = read_predictions(folder, "val")
    run = readouts.load_run(folder.path)
    tokens = torch.from_numpy(trained.run.splits["val"].store.read(table["clip"].to_pylist()))
    found = run(tokens)
    assert found.keys() == kept.keys() == {"linear", "attention"}
    for kind, outputs in found.items():
        assert not outputs.requires_grad
        np.testing.assert_allclose(outputs.numpy(), kept[kind], rtol=1e-5, atol=1e-6)
    alone = run(tokens[3:5])["attention"]
    np.testing.assert_allclose(alone.numpy(), kept["attention"][3:5], rtol=1e-5, atol=1e-6)


def test_it_says_what_its_outputs_are(trained: Trained, folder: RunFolder) -> None:
    run = load_run(str(folder.state))
    assert run.output_names == trained.run.task.output_names
    vals = {row["readout"]: row["val"] for row in trained.rows}
    assert run.readouts == tuple(sorted(vals, key=lambda kind: -vals[kind]))
    torch.testing.assert_close(run.answers(torch.tensor([[0.0]])), torch.tensor([[0.5]]))
    assert run.reads.parts == trained.run.splits["train"].store.parts


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"step": 30}, StoreError, "at step 30 of 40"),
        ({"reads": None}, StoreError, "of an earlier version"),
        ({"decisions": None}, StoreError, "of which run"),
    ],
)
def test_what_cannot_predict_is_refused(
    folder: RunFolder, change: dict[str, object], kind: type[Exception], message: str
) -> None:
    tensors, about = load_state(folder.state)
    if "tuning" in change:
        about["decisions"] |= change
        folder = RunFolder(folder.path.rename(folder.path.with_name(f"toy-{run_id(about['decisions'])}")))
    else:
        about = {name: value for name, value in {**about, **change}.items() if value is not None}
    save_state(folder.state, tensors, **about)
    with pytest.raises(kind, match=message):
        load_run(folder.path)


def test_a_run_whose_weights_were_removed_is_told_from_a_probe(folder: RunFolder) -> None:
    folder.state.unlink()
    with pytest.raises(CallError, match=r"it has lost its weights .*, and is trained anew with --again"):
        load_run(folder.path)
    folder.curve.unlink()
    with pytest.raises(CallError, match="it is a probe's, which is fitted anew each time"):
        load_run(folder.path)


def test_a_checkpoint_of_another_run_is_refused(folder: RunFolder) -> None:
    other = folder.path.rename(folder.path.with_name("toy-0123456789ab"))
    with pytest.raises(StoreError, match="and its folder is that of 0123456789ab"):
        load_run(other)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    # As a folder of videos that has the name of its task, before anything was trained.
    with pytest.raises(CallError, match="holds no checkpoint: it is no run's"):
        load_run(tmp_path)
    (tmp_path / "predictions_val.parquet").touch()
    with pytest.raises(CallError, match="is a probe's"):
        load_run(tmp_path)
    with pytest.raises(CallError, match="is not there"):
        load_run(tmp_path / "none")


def test_other_weights_are_refused(folder: RunFolder) -> None:
    tensors, about = load_state(folder.state)
    tensors.pop("weight/linear.linear.bias", None) or tensors.popitem()
    save_state(folder.state, tensors, **about)
    with pytest.raises(StoreError, match="other weights"):
        load_run(folder.path)
