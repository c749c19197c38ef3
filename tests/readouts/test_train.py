"""Training from a store: it learns, it resumes to the same bits, it never trains the same run twice."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from featcache.durable import Lock
from featcache.errors import CallError, StoreError
from featcache.header import TargetsReference
from featcache.manifest import load_manifest
from featcache.store import FeatureStore
from readouts.checkpoint import load_state, read_history, save_state
from readouts.features import open_task_splits
from readouts.results import load_results
from readouts.tasks import load_task
from readouts.train import Run, Trainer, configure, train

CPU = torch.device("cpu")
SETTINGS = ["steps=40", "minival_every=10", "batch=16", "lr=0.05", "width=16", "heads=2", "dropout=0.1"]


@pytest.fixture
def run(make_split, tmp_path: Path) -> Run:
    """Tokens whose channel c says class c, and a little noise."""
    rng = np.random.default_rng(0)
    for role, n in (("train", 48), ("val", 24), ("test", 12)):
        labels = rng.integers(2, size=(n, 7))
        tokens = rng.normal(scale=0.1, size=(n, 1, 2, 2, 2, 8))
        tokens[..., :7] += labels[:, None, None, None, None]
        make_split(role, tokens, labels)
    task = load_task("flyvsfly", load_manifest())
    splits = open_task_splits(tmp_path / "features", "flyvsfly", "toy", roles=("train", "val"))
    return configure(task, splits, settings=SETTINGS, seed=3)


def weights(run: Run, results: Path) -> dict[str, torch.Tensor]:
    return load_state(run.folder(results) / "last.safetensors")[0]


def test_a_run_learns_and_is_recorded(run: Run, tmp_path: Path) -> None:
    rows = train(run, results_dir=tmp_path / "results", device=CPU, command="scivid train-readout ...")
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
    history = read_history(run.folder(tmp_path / "results") / "history.jsonl")
    assert [row["step"] for row in history if row["readout"] == "linear"] == [0, 10, 20, 30, 40]
    assert history[0]["train_loss"] is None
    best = load_state(run.folder(tmp_path / "results") / "best_linear.safetensors")[1]
    assert best["mean_AP"] == max(row["mean_AP"] for row in history if row["readout"] == "linear")


@pytest.fixture
def two_sets(run: Run) -> Run:
    """The curve over the first 8 of 24 clips, the whole of val at steps 0, 20 and 40."""
    return replace(run, recipe=replace(run.recipe, minival_clips=8, val_every=20))


def test_the_best_is_chosen_on_the_same_clips_at_every_step(two_sets: Run, tmp_path: Path) -> None:
    rows = train(two_sets, results_dir=tmp_path, device=CPU)
    folder = two_sets.folder(tmp_path)
    history = read_history(folder / "history.jsonl")
    predicted = pq.read_table(folder / "predictions_val.parquet")
    labels = two_sets.splits["val"].targets["labels"]
    for row in rows:
        curve = [point for point in history if point["readout"] == row["readout"]]
        assert [point["step"] for point in curve if "val/mean_AP" in point] == [0, 20, 40]
        assert curve[-1]["val/mean_AP"] == row["val"]
        metric = two_sets.task.metric()
        outputs = np.array(predicted.column(row["readout"]).to_pylist(), np.float32)
        metric.update(outputs[:8], {"labels": labels[:8]})
        assert curve[-1]["mean_AP"] == metric.compute()["mean_AP"]
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


def test_predictions_carry_clip_ids(run: Run, tmp_path: Path) -> None:
    train(run, results_dir=tmp_path / "results", device=CPU)
    table = pq.read_table(run.folder(tmp_path / "results") / "predictions_val.parquet")
    assert table.column("id").to_pylist() == [f"val-{i}" for i in range(24)]
    assert len(table.column("attention")[0].as_py()) == 7


@pytest.mark.parametrize("killed_at", [0, 10, 17, 39])
def test_a_killed_run_ends_with_the_same_bits(run: Run, tmp_path: Path, killed_at: int) -> None:
    whole = train(run, results_dir=tmp_path / "whole", device=CPU)

    def kill(what: str, done: int, total: int) -> None:
        if what == "training" and done > killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, results_dir=tmp_path / "killed", device=CPU, progress=kill)
    resumed = train(run, results_dir=tmp_path / "killed", device=CPU)
    first, second = weights(run, tmp_path / "whole"), weights(run, tmp_path / "killed")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [row["val"] for row in whole] == [row["val"] for row in resumed]
    files = [run.folder(tmp_path / name) / "history.jsonl" for name in ("whole", "killed")]
    assert files[0].read_text() == files[1].read_text()


def test_the_same_run_is_not_trained_twice(run: Run, tmp_path: Path) -> None:
    first = train(run, results_dir=tmp_path, device=CPU)

    def refuse(what: str, done: int, total: int) -> None:
        raise AssertionError("trained again")

    assert train(run, results_dir=tmp_path, device=CPU, progress=refuse) == first
    again = train(run, results_dir=tmp_path, device=CPU, again=True)
    assert [row["val"] for row in again] == [row["val"] for row in first]
    assert len(load_results(tmp_path)) == 2


def test_test_is_scored_when_asked_for_without_training_anew(run: Run, tmp_path: Path) -> None:
    scored_before = train(run, results_dir=tmp_path / "results", device=CPU)
    before = weights(run, tmp_path / "results")
    roles = ("train", "val", "test")
    splits = open_task_splits(tmp_path / "features", "flyvsfly", "toy", roles=roles)
    with_test = configure(run.task, splits, settings=SETTINGS, seed=3)
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


def test_a_run_that_is_being_trained_is_left_to_its_process(run: Run, tmp_path: Path) -> None:
    folder = run.folder(tmp_path)
    folder.mkdir(parents=True)
    lock = Lock(folder / ".lock", wait=False, busy="")
    with pytest.raises(StoreError, match="is being trained by another process"):
        train(run, results_dir=tmp_path, device=CPU)
    lock.release()
    train(run, results_dir=tmp_path, device=CPU)
    assert not list(folder.glob(".*"))


def test_again_leaves_nothing_of_the_run_before(run: Run, tmp_path: Path) -> None:
    train(run, results_dir=tmp_path, device=CPU)
    folder = run.folder(tmp_path)
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
    file = run.folder(tmp_path) / "last.safetensors"
    state, about = load_state(file)
    assert 0 < about["seconds"] < 600
    save_state(file, state, **{**about, "seconds": 5000.0})
    rows = train(run, results_dir=tmp_path, device=CPU)
    assert all(5000 < row["seconds"] < 5600 for row in rows)


def test_what_defines_the_score_makes_another_run(run: Run) -> None:
    def with_train(**changes: object) -> Run:
        split = run.splits["train"]
        store = FeatureStore(split.store.path, replace(split.store.header, **changes))
        return replace(run, splits={**run.splits, "train": replace(split, store=store)})

    attrs = run.splits["train"].store.header.attrs
    dataset = run.task.dataset
    fewer_rare = replace(run.task, dataset=replace(dataset, rare=dataset.rare[:1]))
    others = [
        replace(run, task=fewer_rare),
        replace(run, task=replace(run.task, dataset=replace(dataset, classes=dataset.classes[::-1]))),
        with_train(targets=TargetsReference(path="x", fingerprint="others")),
        with_train(targets=None),
        with_train(attrs={**attrs, "upsampling": "nearest"}),
        with_train(attrs={**attrs, "readout_steps": 16}),
    ]
    assert len({run.id, *(other.id for other in others)}) == 7


def test_labels_of_another_task_are_refused(run: Run) -> None:
    mouse = load_task("calms21", load_manifest())
    with pytest.raises(StoreError, match=r"have 7 columns, but task calms21 has 4 outputs"):
        configure(mouse, run.splits)


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_that_dropout_cannot_draw_from_is_refused(run: Run, seed: int) -> None:
    with pytest.raises(CallError, match=f"--seed {seed} must be from 0"):
        configure(run.task, run.splits, seed=seed)


def test_the_intervals_are_judged_together(run: Run) -> None:
    settings = ["steps=40", "val_every=15", "minival_every=5"]
    assert configure(run.task, run.splits, settings=settings).recipe.val_every == 15
    with pytest.raises(CallError, match="val_every=15 must be a multiple of minival_every=10"):
        configure(run.task, run.splits, settings=[*settings, "minival_every=10"])


def test_seed_and_settings_make_another_run(run: Run) -> None:
    def variant(**changes: object) -> str:
        chosen = {"settings": SETTINGS, "seed": 3, **changes}
        return configure(run.task, run.splits, **chosen).id

    ids = [
        variant(),
        variant(seed=4),
        variant(settings=[*SETTINGS, "lr=0.5"]),
        variant(readouts=["attention"]),
    ]
    assert len(set(ids)) == 4
    assert ids[0] == run.id


def test_dropout_is_drawn_anew_at_every_step(run: Run, tmp_path: Path) -> None:
    trainer = Trainer(run, tmp_path, CPU)
    head = trainer.heads["attention"].train()
    tokens = torch.randn(2, 4, 4, 8)
    torch.manual_seed(0)
    assert not torch.equal(head(tokens), head(tokens))
    assert torch.equal(head.eval()(tokens), head(tokens))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rate=1", "--set rate=1: write name=value with one of steps, batch, lr"),
        ("lr", "--set lr: write name=value"),
        ("steps=many", "'many' is not a whole number"),
        ("steps=0", "steps=0 must be at least 1"),
        ("dropout=2", "dropout is a probability"),
        ("dropout=nan", "dropout is a probability"),
    ],
)
def test_a_wrong_setting_is_named(run: Run, setting: str, message: str) -> None:
    with pytest.raises(CallError, match=message):
        configure(run.task, run.splits, settings=[setting])
