import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from featcache.manifest import load_manifest
from featcache.store.feature_store import FeatureStore
from featcache.system.console import silent
from featcache.system.files import Lock
from readouts.features.find import open_task_splits
from readouts.features.splits import FeatureSplit
from readouts.probes import runs as probe_runs
from readouts.probes.fits import fit_probe
from readouts.probes.runs import ProbeRun, configure_probe, fit_and_record, probes_of, refuse_probes
from readouts.results.per_clip import load_per_clip
from readouts.results.predictions import read_predictions
from readouts.results.run_folder import RunFolder
from readouts.results.table import load_results
from readouts.tasks import load_task

CPU = torch.device("cpu")


@pytest.fixture
def splits(make_split: Callable[..., FeatureStore], tmp_path: Path) -> dict[str, FeatureSplit]:
    rng = np.random.default_rng(0)
    for role, n in (("train", 40), ("val", 20)):
        labels = rng.integers(2, size=(n, 7))
        tokens = rng.normal(scale=0.1, size=(n, 1, 2, 2, 2, 8))
        tokens[..., :7] += labels[:, None, None, None, None]
        make_split(role, tokens, labels)
    return open_task_splits(tmp_path / "features", "flyvsfly", "toy", roles=("train", "val"))


def probe(splits: dict[str, FeatureSplit], *settings: str, kind: str = "knn", seed: int = 0) -> ProbeRun:
    task = load_task("flyvsfly", load_manifest())
    return configure_probe(task, splits, kind, settings=settings, seed=seed)


def record(run: ProbeRun, results: Path) -> dict[str, object]:
    (row,) = fit_and_record(run, results_dir=results, device=CPU, sweep_name="mine", progress=silent)
    return row


def test_its_row_is_what_fit_probe_and_the_tasks_metric_say(
    splits: dict[str, FeatureSplit], tmp_path: Path
) -> None:
    run = probe(splits, "k=3")
    row = record(run, tmp_path)
    outputs = fit_probe("knn", splits["train"], splits["val"], run.task, settings={"k": 3}, device=CPU)
    targets = splits["val"].targets
    assert targets is not None
    labels = torch.from_numpy(targets.read("labels"))
    batch = run.task.per_clip(torch.from_numpy(outputs), {"labels": labels})
    assert row["val"] == run.task.scores(run.task.join([batch]))["mean_AP"]
    assert (row["steps"], row["readout"], row["n_train"], row["sweep"]) == (0, "knn", 40, "mine")
    assert json.loads(str(row["readout_config"])) == {"k": 3, "temperature": 0.07}
    _, kept = read_predictions(run.folder(tmp_path).predictions("val"))
    np.testing.assert_array_equal(kept["knn"], outputs)


def test_its_statistics_give_its_score(splits: dict[str, FeatureSplit], tmp_path: Path) -> None:
    run = probe(splits)
    row = record(run, tmp_path)
    clips, per_clip = load_per_clip(tmp_path, row, "val")
    assert clips.tolist() == splits["val"].usable.tolist()
    assert run.task.scores(per_clip)["mean_AP"] == row["val"]


def test_it_is_fitted_once(splits: dict[str, FeatureSplit], tmp_path: Path) -> None:
    assert record(probe(splits), tmp_path) == record(probe(splits, "k=20"), tmp_path)
    assert len(load_results(tmp_path)) == 1


def test_its_costs_stay_those_of_the_first_fit_when_test_is_scored_later(
    splits: dict[str, FeatureSplit], tmp_path: Path
) -> None:
    first = record(probe(splits), tmp_path)
    run = probe({**splits, "test": splits["val"]})
    (row,) = fit_and_record(
        run, results_dir=tmp_path, device=CPU, sweep_name="other", command="again", progress=silent
    )
    assert (row["run"], row["test"]) == (first["run"], first["val"])
    assert (row["sweep"], row["seconds"], row["command"]) == ("mine", first["seconds"], "again")


def test_a_probe_that_another_process_just_fitted_is_not_fitted_again(
    splits: dict[str, FeatureSplit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, hold = probe(splits), RunFolder.hold

    def hold_after_another(folder: RunFolder) -> Lock:
        monkeypatch.setattr(RunFolder, "hold", hold)
        record(run, tmp_path)
        monkeypatch.delattr(probe_runs, "pool_split")
        return hold(folder)

    monkeypatch.setattr(RunFolder, "hold", hold_after_another)
    assert record(run, tmp_path)["run"] == run.id


def test_whatever_changes_its_numbers_changes_its_name(splits: dict[str, FeatureSplit]) -> None:
    runs = [
        probe(splits),
        probe(splits, "k=3"),
        probe(splits, "train_fraction=0.5"),
        probe(splits, seed=1),
        probe(splits, kind="logistic"),
    ]
    assert len({run.id for run in runs}) == 5


def test_a_share_of_the_training_clips_is_fitted(splits: dict[str, FeatureSplit], tmp_path: Path) -> None:
    assert record(probe(splits, "train_fraction=0.5"), tmp_path)["n_train"] == 20


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("k=many", "not a whole number"),
        ("k=0", "must be above 0"),
        ("width=3", "no setting width"),
        ("train_fraction=0", "above 0 and at most 1"),
        ("train_views=9", "holds 1 views"),
    ],
)
def test_values_that_cannot_be_are_refused(splits: dict[str, FeatureSplit], setting: str, said: str) -> None:
    with pytest.raises(CallError, match=said):
        probe(splits, setting)


@pytest.mark.parametrize(
    ("task", "kinds"),
    [
        ("flyvsfly", {"knn", "logistic"}),
        ("typhoon", {"knn", "ridge"}),
        ("stir", set()),
        ("weatherbench2", set()),
    ],
)
def test_probes_are_those_that_can_answer_the_task(task: str, kinds: set[str]) -> None:
    assert set(probes_of(load_task(task, load_manifest()))) == kinds


def test_what_is_fitted_is_not_trained_and_the_call_that_fits_it_is_said() -> None:
    refuse_probes(["linear", "attention"], task="flyvsfly", backbone="toy")
    call = "scivid sweep --grid 'task=flyvsfly backbone=toy readout=knn' --test --cache-dir here"
    with pytest.raises(CallError, match=f"--readout knn needs no training, and a sweep fits it: {call}"):
        refuse_probes(["linear", "knn"], task="flyvsfly", backbone="toy", test=True, cache_dir="here")
