"""Training from a store: it learns, it resumes to the same bits, it never trains the same run twice."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from featcache.errors import CallError, StoreError, TrainingError
from featcache.manifest import load_manifest
from featcache.store.feature_store import FeatureStore
from featcache.store.targets import Targets
from featcache.system.console import silent
from readouts.features.find import open_task_splits
from readouts.results.per_clip import load_per_clip, read_predictions
from readouts.results.run_folder import read_curve
from readouts.results.table import add_run, load_results, run_rows, table_path
from readouts.tasks import load_task
from readouts.tasks.tracking import Tracking
from readouts.training.evaluate import score
from readouts.training.loop import train, train_together
from readouts.training.run import Run
from readouts.training.settings import configure
from readouts.training.step import TrainState, build_preparation
from readouts.training.trainer import load_state, save_state

CPU = torch.device("cpu")


def weights(run: Run, results: Path) -> dict[str, torch.Tensor]:
    return load_state(run.folder(results).state)[0]


def test_a_run_learns_and_is_recorded(trained: Any) -> None:
    run, rows, results = trained.run, trained.rows, trained.results
    assert [row["readout"] for row in rows] == ["attention", "linear"]
    for row in rows:
        assert row["val"] > {"linear": 0.85, "attention": 0.65}[row["readout"]]  # chance is about 0.5
        assert (row["steps"], row["seed"], row["n_train"], row["n_val"]) == (40, 3, 48, 24)
        assert row["train_fingerprint"] == run.splits["train"].store.fingerprint
        assert row["command"] == "scivid train-readout ..."
        assert row["test"] is None
    # width 16, 8 channels, 4 steps: LayerNorm 16, embedding 32, query 16, key and value 2 x (8 x 16 + 16),
    # projection 272, LayerNorm 32, MLP 16 x 64 + 64 + 64 x 16 + 16, classifier 16 x 7 + 7
    assert rows[0]["parameters"] == 16 + 32 + 16 + 288 + 272 + 32 + 2128 + 119
    history = read_curve(run.folder(results).curve)
    assert [row["step"] for row in history if row["readout"] == "linear"] == [0, 10, 20, 30, 40]
    assert history[0]["train_loss"] is None
    linear = next(row for row in rows if row["readout"] == "linear")
    points = {row["step"]: row["mean_AP"] for row in history if row["readout"] == "linear"}
    assert linear["best_val"] == points[linear["best_step"]] == max(points.values())


@pytest.fixture
def two_sets(run: Run) -> Run:
    """The curve over the first 8 of 24 clips, the whole of val at steps 0, 20 and 40."""
    return replace(run, recipe=replace(run.recipe, minival_clips=8, val_every=20))


def test_the_best_is_chosen_on_the_same_clips_at_every_step(two_sets: Run, tmp_path: Path) -> None:
    rows = train(two_sets, results_dir=tmp_path, device=CPU)
    folder = two_sets.folder(tmp_path)
    history = read_curve(folder.curve)
    predicted = pq.read_table(folder.predictions("val"))
    labels = torch.from_numpy(two_sets.splits["val"].targets.read("labels"))
    for row in rows:
        curve = [point for point in history if point["readout"] == row["readout"]]
        assert [point["step"] for point in curve if "val/mean_AP" in point] == [0, 20, 40]
        assert curve[-1]["val/mean_AP"] == row["val"]
        outputs = np.array(predicted.column(row["readout"]).to_pylist(), np.float32)
        batch = two_sets.task.per_clip(torch.from_numpy(outputs[:8]), {"labels": labels[:8]})
        assert curve[-1]["mean_AP"] == two_sets.task.scores(two_sets.task.join([batch]))["mean_AP"]
        assert curve[-1]["mean_AP"] != row["val"]
        assert row["best_val"] == max(point["mean_AP"] for point in curve)


def test_each_pass_over_val_is_made_once_and_says_how_far_it_is(two_sets: Run, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def listen(what: str, done: int, total: int) -> None:
        if what == "scoring val":
            told.append((done, total))

    train(two_sets, results_dir=tmp_path, device=CPU, progress=listen)
    whole, minival = [(16, 24), (24, 24)], [(8, 8)]
    assert told == whole + minival + whole + minival + whole


def test_predictions_carry_clip_ids(trained: Any) -> None:
    table = pq.read_table(trained.run.folder(trained.results).predictions("val"))
    assert table.column("id").to_pylist() == [f"val-{i}" for i in range(24)]
    assert len(table.column("attention")[0].as_py()) == 7


@pytest.mark.parametrize("killed_at", [0, 10, 17, 39])
def test_a_killed_run_ends_with_the_same_bits(trained: Any, tmp_path: Path, killed_at: int) -> None:
    run = trained.run

    def kill(what: str, done: int, total: int) -> None:
        if what == "training" and done > killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, results_dir=tmp_path / "killed", device=CPU, progress=kill)
    resumed = train(run, results_dir=tmp_path / "killed", device=CPU)
    first, second = weights(run, trained.results), weights(run, tmp_path / "killed")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [row["val"] for row in trained.rows] == [row["val"] for row in resumed]
    files = [run.folder(results).curve for results in (trained.results, tmp_path / "killed")]
    assert files[0].read_text() == files[1].read_text()


def test_the_same_run_is_not_trained_twice(trained: Any, tmp_path: Path) -> None:
    run, first = trained.run, trained.rows
    shutil.copytree(trained.results, tmp_path, dirs_exist_ok=True)

    def refuse(what: str, done: int, total: int) -> None:
        raise AssertionError("trained again")

    assert train(run, results_dir=tmp_path, device=CPU, progress=refuse) == first
    again = train(run, results_dir=tmp_path, device=CPU, again=True)
    assert [row["val"] for row in again] == [row["val"] for row in first]
    assert len(load_results(tmp_path)) == 2


def test_test_is_scored_when_asked_for_without_training_anew(
    trained: Any, settings: list[str], tmp_path: Path
) -> None:
    run, scored_before = trained.run, trained.rows
    shutil.copytree(trained.results, tmp_path / "results")
    before = weights(run, tmp_path / "results")
    roles = ("train", "val", "test")
    splits = open_task_splits(trained.features, "flyvsfly", "toy", roles=roles)
    with_test = configure(run.task, splits, settings=settings, seed=3)
    assert with_test.id == run.id
    rows = train(with_test, results_dir=tmp_path / "results", device=CPU)
    assert all(row["test"] > 0.6 for row in rows)
    after = weights(run, tmp_path / "results")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [row["seconds"] for row in rows] == [first["seconds"] for first in scored_before]
    test = splits["test"].store
    for row in rows:
        assert (row["test_store"], row["test_fingerprint"]) == (test.path.name, test.fingerprint)
        assert row["n_test"] == 12
        assert json.loads(row["targets"]).keys() == {"train", "val", "test"}
        assert (row["task_spec"], row["higher_is_better"]) == ("flyvsfly", True)


def test_what_is_known_of_a_training_stays_when_test_is_scored_later(
    run: Run, settings: list[str], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    other = replace(run, seed=4)
    commands = {run.id: "train"}
    together = {"results_dir": results, "device": CPU}
    train_together([run, other], sweep_name="mine", commands=commands, **together)
    marked = [{**row, "device": "a GPU", "software": "{}"} for row in run_rows(results, run.id)]
    add_run(results, run.id, marked)
    splits = open_task_splits(tmp_path / "features", "flyvsfly", "toy", roles=("train", "val", "test"))
    with_test = configure(run.task, splits, settings=settings, seed=3)
    for row, before in zip(train(with_test, **together), marked, strict=True):
        assert row["test"] is not None
        known = ("sweep", "together", "seconds", "device", "software", "command")
        assert {name: row[name] for name in known} == {name: before[name] for name in known}
        assert (row["sweep"], row["together"], row["command"]) == ("mine", 2, "train")
    later = train_together([with_test], again=True, commands={run.id: "anew"}, **together)
    for row in later:
        assert (row["sweep"], row["together"], row["command"]) == (None, 1, "anew")
        assert (row["device"], row["seconds"]) != ("a GPU", marked[0]["seconds"])


def test_a_run_that_is_being_trained_is_left_to_its_process(run: Run, tmp_path: Path) -> None:
    folder = run.folder(tmp_path)
    lock = folder.hold()
    assert folder.is_held()
    with pytest.raises(StoreError, match="is being trained by another process"):
        train(run, results_dir=tmp_path, device=CPU)
    lock.release()
    assert not folder.is_held()
    train(run, results_dir=tmp_path, device=CPU)
    assert not list(folder.path.glob(".*"))


def test_again_leaves_nothing_of_the_run_before(trained: Any, tmp_path: Path) -> None:
    run = trained.run
    shutil.copytree(trained.results, tmp_path, dirs_exist_ok=True)
    folder = run.folder(tmp_path).path
    stale = [folder / "best_other.safetensors", folder / "predictions_test.parquet"]
    for file in stale:
        file.write_bytes(b"of the run before")

    def kill(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, results_dir=tmp_path, device=CPU, again=True, progress=kill)
    assert [file.name for file in folder.iterdir() if file.stat().st_size] == []


def test_seconds_are_those_of_all_processes(run: Run, tmp_path: Path) -> None:
    def kill(what: str, done: int, total: int) -> None:
        if what == "training" and done > 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, results_dir=tmp_path, device=CPU, progress=kill)
    file = run.folder(tmp_path).state
    state, about = load_state(file)
    assert 0 < about["seconds"] < 600
    save_state(file, state, **{**about, "seconds": 5000.0})
    rows = train(run, results_dir=tmp_path, device=CPU)
    assert all(5000 < row["seconds"] < 5600 for row in rows)


def test_dropout_is_drawn_anew_at_every_step(run: Run, tmp_path: Path) -> None:
    head = TrainState(run, CPU).heads["attention"].train()
    tokens = torch.randn(2, 4, 4, 8)
    torch.manual_seed(0)
    assert not torch.equal(head(tokens), head(tokens))
    assert torch.equal(head.eval()(tokens), head(tokens))


@pytest.mark.parametrize("kept", [3, 16, 20, 99])
def test_as_many_predictions_are_kept_as_the_task_says(run: Run, tmp_path: Path, kept: int) -> None:
    run = replace(run, recipe=replace(run.recipe, steps=2))
    whole = train(run, results_dir=tmp_path / "whole", device=CPU)
    everything = read_predictions(run.folder(tmp_path / "whole"), "val")[1]
    few = replace(run, task=replace(run.task, predictions_kept=kept))
    rows = train(few, results_dir=tmp_path / "few", device=CPU)
    table, outputs = read_predictions(few.folder(tmp_path / "few"), "val")
    assert table.column("id").to_pylist() == [f"val-{i}" for i in range(min(kept, 24))]
    for kind, values in outputs.items():
        np.testing.assert_array_equal(values, everything[kind][:kept], strict=True)
    # All clips are scored, whatever is kept of them.
    assert [row["val"] for row in rows] == [row["val"] for row in whole]


FRAMES = 8
TRACKING = ["steps=60", "minival_every=30", "batch=8", "lr=0.01", "width=32", "heads=2"]


@pytest.fixture
def tracking(
    make_split: Callable[..., FeatureStore], make_targets: Callable[..., Targets], tmp_path: Path
) -> Run:
    """Rendered clips of two windows each and marked videos, all of which move as their tokens say."""
    rng = np.random.default_rng(0)
    task = replace(load_task("stir", load_manifest()), n_frames=FRAMES, n_tracks=6)
    assert isinstance(task, Tracking)
    for role, n, n_views in (("train", 24, 2), ("val", 10, 1)):
        velocity = rng.choice([-0.03, 0.03], size=(n, 1, 1, 2))
        start = rng.uniform(0.3, 0.7, size=(n, 1, 9, 2))
        tracks = (start + velocity * np.arange(FRAMES + 1)[:, None, None]).astype(np.float32)
        folder = f"features/stir/{role}"
        if role == "train":
            visibility = rng.random(tracks.shape[:-1]) < 0.9
            targets = make_targets(n, folder, tracks=tracks, visibility=visibility)
        else:
            mask = np.ones((n, 9), np.bool_)
            ends = tracks[:, FRAMES - 1].copy()
            targets = make_targets(
                n, folder, queries=tracks[:, 0].copy(), ends=ends, query_mask=mask, end_mask=mask
            )
        tokens = rng.normal(scale=0.05, size=(n, n_views, 2, 2, 2, 8))
        tokens[..., :2] += 30 * velocity[:, :, :, None, None]
        make_split(role, tokens, np.zeros((n, 7), int), task="stir", targets=targets.path.name)
    splits = open_task_splits(tmp_path / "features", "stir", "toy", roles=("train", "val"))
    return configure(task, splits, settings=TRACKING)


def test_a_queried_head_learns_where_points_go(tracking: Run, tmp_path: Path) -> None:
    (row,) = train(tracking, results_dir=tmp_path, device=CPU)
    folder = tracking.folder(tmp_path)
    history = read_curve(folder.curve)
    assert row["readout"] == "tracking"
    assert row["val"] > history[0]["average_over_thresholds"]
    assert history[-1]["train_loss"] < 0.8 * history[1]["train_loss"]
    table, outputs = read_predictions(folder, "val")
    assert len(table) == 10
    assert outputs["tracking"].shape == (10, FRAMES, 9, 4)
    # The score in the table is that of the kept predictions.
    targets = tracking.splits["val"].targets
    assert targets is not None
    task, first = tracking.task, np.arange(10)
    rows = task.select(targets, first, np.zeros_like(first), None)
    tensors = {name: torch.from_numpy(values) for name, values in rows.items()}
    per_clip = task.per_clip(torch.from_numpy(outputs["tracking"]), tensors)
    assert task.scores(per_clip)["average_over_thresholds"] == row["val"]


def test_drawn_tracks_are_drawn_again_when_a_run_is_resumed(tracking: Run, tmp_path: Path) -> None:
    run = replace(tracking, recipe=replace(tracking.recipe, steps=8, minival_every=3, val_every=9))
    train(run, results_dir=tmp_path / "whole", device=CPU)

    def kill(what: str, done: int, total: int) -> None:
        if what == "training" and done > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, results_dir=tmp_path / "killed", device=CPU, progress=kill)
    train(run, results_dir=tmp_path / "killed", device=CPU)
    first, second = weights(run, tmp_path / "whole"), weights(run, tmp_path / "killed")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_targets_of_another_kind_are_refused_before_anything_is_trained(tracking: Run) -> None:
    for name, message in (("flyvsfly", "have no columns"), ("typhoon", "does not hold series")):
        with pytest.raises(StoreError, match=message):
            configure(load_task(name, load_manifest()), tracking.splits)


def test_predictions_that_are_kept_keep_nothing_else_in_memory(run: Run, tmp_path: Path) -> None:
    """A slice of a batch would hold on to all of it."""
    few = replace(run, task=replace(run.task, predictions_kept=2))
    heads = dict(TrainState(few, CPU).heads.items())
    few = replace(few, recipe=replace(few.recipe, batch=8, minival_clips=8))
    found = score({"run": heads}, few, "val", build_preparation(few), CPU, progress=silent)
    outputs = found["run"].outputs
    for values in outputs.values():
        assert len(values) == 2
        assert values.base is None or values.base.nbytes == values.nbytes


@pytest.fixture(scope="module")
def three(trained: Any) -> list[Run]:
    """Other widths, dropouts, rates and seeds on the same batches."""
    run = trained.run
    chosen = [
        (["attention"], ["width=16", "heads=2", "dropout=0.3", "lr=0.05"], 3),
        (["attention"], ["width=32", "heads=4", "dropout=0.1", "lr=0.01"], 4),
        (["linear"], ["lr=0.1"], 4),
    ]
    common = ["steps=40", "minival_every=10", "batch=16"]
    return [
        configure(run.task, run.splits, readouts=kinds, settings=[*common, *settings], seed=seed)
        for kinds, settings, seed in chosen
    ]


@pytest.fixture(scope="module")
def together(three: list[Run], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    """What came of the three in one pass, and where it is."""
    results = tmp_path_factory.mktemp("together")
    return train_together(three, results_dir=results, device=CPU), results


def check_to_rounding(run: Run, results: Path, others: Path) -> None:
    """The same curve and weights in both, less what the optimiser makes of rounding alone."""
    for name in ("train_loss", "mean_AP"):
        curves = [[row[name] for row in read_curve(run.folder(at).curve)] for at in (results, others)]
        assert curves[0] == [None if value is None else pytest.approx(value, rel=1e-6) for value in curves[1]]
    first, second = weights(run, results), weights(run, others)
    for name, tensor in first.items():
        # Softmax ignores a key's bias: its gradient is rounding, of which Adam makes steps as large as any.
        if name.startswith("weight/") and not name.endswith("key.bias"):
            close = 1e-5 * tensor.abs().max().item()
            torch.testing.assert_close(tensor, second[name], rtol=0, atol=close, msg=name)


def test_other_runs_of_a_pass_change_no_more_than_rounding(
    three: list[Run], together: Any, tmp_path: Path
) -> None:
    rows, results = together
    measured = {"finished", "seconds", "together", "val", "best_val", "scores"}
    for run, row in zip(three, rows, strict=True):
        (alone,) = train(run, results_dir=tmp_path / "alone", device=CPU)
        assert {name: row[name] for name in row.keys() - measured} == {
            name: alone[name] for name in row.keys() - measured
        }
        assert row["val"] == pytest.approx(alone["val"], rel=1e-6)
        assert (row["together"], alone["together"]) == (3, 1)
        check_to_rounding(run, results, tmp_path / "alone")


def test_a_killed_pass_goes_on_bit_for_bit(three: list[Run], together: Any, tmp_path: Path) -> None:
    def kill(what: str, done: int, total: int) -> None:
        if what == "training" and done > 23:
            raise KeyboardInterrupt

    whole, undisturbed = together
    with pytest.raises(KeyboardInterrupt):
        train_together(three, results_dir=tmp_path, device=CPU, progress=kill)
    resumed = train_together(three, results_dir=tmp_path, device=CPU)
    assert [row["val"] for row in resumed] == [row["val"] for row in whole]
    for run in three:
        first, second = weights(run, undisturbed), weights(run, tmp_path)
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_outputs_that_are_no_numbers_take_no_other_run_with_them(run: Run, tmp_path: Path) -> None:
    """The first update with a rate comes right before a point of the curve: no loss has seen it yet."""
    recipe = replace(run.recipe, steps=4, minival_every=2, warmup=1)
    good = replace(run, readouts={"linear": {}}, recipe=recipe)
    bad = replace(good, recipe=replace(recipe, lr=1e38))
    with pytest.raises(TrainingError, match="linear on flyvsfly, seed 3, step 2: outputs are not finite"):
        train_together([bad, good], results_dir=tmp_path, device=CPU)
    (row,) = load_results(tmp_path)
    assert row["run"] == good.id
    (alone,) = train(good, results_dir=tmp_path / "alone", device=CPU)
    assert row["val"] == alone["val"]


def test_a_killed_pass_goes_on_though_its_runs_stand_at_different_steps(
    three: list[Run], together: Any, tmp_path: Path
) -> None:
    def kill(what: str, done: int, total: int) -> None:
        if what == "training" and done > 23:
            raise KeyboardInterrupt

    whole, undisturbed = together
    with pytest.raises(KeyboardInterrupt):
        train(three[1], results_dir=tmp_path / "killed", device=CPU, progress=kill)
    train(three[2], results_dir=tmp_path / "killed", device=CPU)
    resumed = train_together(three, results_dir=tmp_path / "killed", device=CPU)
    assert [row["val"] for row in resumed] == pytest.approx([row["val"] for row in whole], rel=1e-6)
    for run in three:
        check_to_rounding(run, undisturbed, tmp_path / "killed")


def test_a_run_that_diverges_is_named_and_the_others_end(three: list[Run], tmp_path: Path) -> None:
    wild = replace(three[1], recipe=replace(three[1].recipe, lr=1e30))
    with pytest.raises(TrainingError, match=r"attention \(.*seed 4, is no number before step 10: lr=1e\+30"):
        train_together([three[0], wild, three[2]], results_dir=tmp_path, device=CPU)
    assert {row["run"] for row in load_results(tmp_path)} == {three[0].id, three[2].id}


def test_runs_that_draw_other_batches_are_refused(three: list[Run], tmp_path: Path) -> None:
    other = replace(three[1], recipe=replace(three[1].recipe, order_seed=1))
    with pytest.raises(CallError, match="cannot share a pass"):
        train_together([three[0], other], results_dir=tmp_path, device=CPU)


def test_a_share_of_the_clips_is_all_that_is_trained_on(run: Run, tmp_path: Path) -> None:
    small, large = (
        configure(run.task, run.splits, settings=["steps=4", "width=16", f"train_fraction={share}"])
        for share in (0.25, 0.5)
    )
    assert set(small.training.usable) < set(large.training.usable)
    assert len(large.training.usable) == 24
    (row, _) = train(small, results_dir=tmp_path, device=CPU)
    assert (row["n_train"], row["n_val"]) == (12, 24)
    with pytest.raises(CallError, match=r"holds 1 views of a clip, not 2: extract it with --views 2"):
        configure(run.task, run.splits, settings=["train_views=2"])


def test_statistics_are_kept_of_every_clip(trained: Any) -> None:
    for row in trained.rows:
        clips, per_clip = load_per_clip(trained.results, row, "val")
        assert clips.tolist() == list(range(24))
        assert trained.run.task.scores(per_clip)["mean_AP"] == row["val"]


@pytest.mark.parametrize("role", ["train", "val"])
def test_a_damaged_list_of_clips_is_noticed_before_the_first_step(
    run: Run, tmp_path: Path, role: str
) -> None:
    (run.splits[role].store.path / "clips.parquet").write_bytes(b"PAR1 cut")
    steps: list[str] = []
    with pytest.raises(StoreError, match=r"clips\.parquet"):
        train(run, results_dir=tmp_path, device=CPU, progress=lambda what, done, total: steps.append(what))
    assert steps == []


def test_a_run_whose_rows_are_damaged_is_scored_anew_from_its_checkpoint(run: Run, tmp_path: Path) -> None:
    first = train(run, results_dir=tmp_path, device=CPU)
    file = table_path(tmp_path) / f"{run.id}.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StoreError, match="delete it and give the run's command again"):
        train(run, results_dir=tmp_path, device=CPU)
    file.unlink()
    steps: list[str] = []
    again = train(
        run, results_dir=tmp_path, device=CPU, progress=lambda what, done, total: steps.append(what)
    )
    assert "training" not in steps
    assert [row["val"] for row in again] == [row["val"] for row in first]


@pytest.mark.parametrize("name", ["last.safetensors", "history.jsonl"])
def test_a_run_that_cannot_go_on_is_trained_anew_by_the_way_out_that_is_named(
    run: Run, tmp_path: Path, name: str
) -> None:
    def kill(what: str, done: int, total: int) -> None:
        if what == "training" and done > 17:
            raise KeyboardInterrupt

    whole = train(run, results_dir=tmp_path / "whole", device=CPU)
    with pytest.raises(KeyboardInterrupt):
        train(run, results_dir=tmp_path, device=CPU, progress=kill)
    folder = run.folder(tmp_path).path
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(StoreError, match=f"{name} cannot be read"):
        train(run, results_dir=tmp_path, device=CPU)
    for file in ("last.safetensors", "history.jsonl") if name == "history.jsonl" else [name]:
        (folder / file).unlink()
    rows = train(run, results_dir=tmp_path, device=CPU)
    assert [(row["val"], row["best_val"]) for row in rows] == [(w["val"], w["best_val"]) for w in whole]
