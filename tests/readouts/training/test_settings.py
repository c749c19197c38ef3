"""Which settings are refused, and which readouts and settings there are for a task."""

from dataclasses import replace

import pytest

from featcache.errors import CallError, StoreError
from featcache.manifest import load_manifest
from featcache.store.feature_store import FeatureStore
from readouts.tasks import load_task
from readouts.tasks.base import Recipe
from readouts.training.probes import PROBES
from readouts.training.run import Run
from readouts.training.settings import (
    configure,
    long_training,
    readout_rows,
    readouts_of,
    refuse_probes,
    roles_of,
    setting_rows,
)


def test_labels_of_another_task_are_refused(run: Run) -> None:
    mouse = load_task("calms21", load_manifest())
    with pytest.raises(StoreError, match=r"have 7 columns, but task calms21 has 4 outputs"):
        configure(mouse, run.splits)


def test_a_split_without_targets_beside_one_with_them_is_refused(run: Run) -> None:
    bare = run.splits["val"].store
    header = replace(bare.header, targets=None)
    split = replace(run.splits["val"], store=FeatureStore(bare.path, header))
    with pytest.raises(StoreError, match=f"{bare.path} has no targets, another split has: run the same"):
        configure(run.task, {**run.splits, "val": split})


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_that_dropout_cannot_draw_from_is_refused(run: Run, seed: int) -> None:
    with pytest.raises(CallError, match=f"--seed {seed} must be from 0"):
        configure(run.task, run.splits, seed=seed)


def test_the_curve_of_a_short_run_has_ten_points_unless_it_is_said_otherwise(run: Run) -> None:
    def points(*settings: str) -> tuple[int, int]:
        recipe = configure(run.task, run.splits, settings=settings).recipe
        return recipe.minival_every, recipe.val_every

    assert points() == points("lr=1e-3") == (1_000, 10_000)
    assert points("steps=2000") == (200, 2_000)
    assert points("steps=4") == (1, 10)
    assert points("steps=20000") == (1_000, 10_000)
    assert points("steps=40", "minival_every=20") == (20, 10_000)


def test_the_intervals_are_judged_together(run: Run) -> None:
    settings = ["steps=40", "val_every=15", "minival_every=5"]
    assert configure(run.task, run.splits, settings=settings).recipe.val_every == 15
    with pytest.raises(CallError, match="val_every=15 must be a multiple of minival_every=10"):
        configure(run.task, run.splits, settings=[*settings, "minival_every=10"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rate=1", "--set rate=1: write name=value with one of steps, batch, lr"),
        ("lr", "--set lr: write name=value"),
        ("backbone_lr=0.1", "--set backbone_lr=0.1: that is an option of its own, --backbone-lr 0.1."),
        ("seed", "--set seed: that is an option of its own, --seed."),
        ("steps=many", "'many' is not a whole number"),
        ("precision=float16", "precision=float16 must be one of float32, tf32, bfloat16"),
        ("steps=0", "steps=0 must be at least 1"),
        ("warmup=-1", "warmup=-1 must be at least 0"),
        ("weight_decay=-1", "weight_decay=-1.0 must be at least 0"),
        ("weight_decay=nan", "weight_decay=nan must be at least 0"),
        ("clip_update=-1", "clip_update=-1.0 must be above 0"),
        ("clip_update=0", "clip_update=0.0 must be above 0"),
        ("dropout=2", "dropout is a probability"),
        ("dropout=nan", "dropout is a probability"),
    ],
)
def test_a_wrong_setting_is_named(run: Run, setting: str, message: str) -> None:
    with pytest.raises(CallError, match=message):
        configure(run.task, run.splits, settings=[setting])


def test_a_readout_of_another_kind_of_task_is_refused(run: Run) -> None:
    with pytest.raises(
        CallError, match=r"--readout tracking: not one that answers task flyvsfly; .* linear, attention"
    ):
        configure(run.task, run.splits, readouts=["tracking"])


def test_what_follows_from_the_data_is_no_setting(run: Run) -> None:
    task = replace(run.task, readouts=("dpt",), attention={})

    class Maps:
        """A task whose only head has a shape and a width."""

        def __getattr__(self, name: str) -> object:
            return getattr(task, name)

        def head_config(self, readout: str) -> dict[str, int]:
            return {"n_frames": 16, "out_rows": 181, "features": 1024}

    assert configure(Maps(), run.splits, settings=["features=8"]).readouts["dpt"]["features"] == 8
    for setting in ("n_frames=8", "out_rows=90"):
        with pytest.raises(CallError, match=rf"{setting}: write name=value .*, features, head_channels\."):
            configure(Maps(), run.splits, settings=[setting])
    with pytest.raises(CallError, match="features=0: must be at least 1"):
        configure(Maps(), run.splits, settings=["features=0"])


def test_test_is_refused_where_a_task_has_none() -> None:
    manifest = load_manifest()
    entry = manifest.tasks["flyvsfly"]
    without = {role: source for role, source in entry.splits.items() if role != "test"}
    own = replace(manifest, tasks={"flyvsfly": replace(entry, splits=without)})
    task = load_task("flyvsfly", manifest)
    assert roles_of(task, manifest, test=True) == ("train", "val", "test")
    assert roles_of(task, own, test=False) == ("train", "val")
    with pytest.raises(CallError, match="--test: task flyvsfly has no test split, only train, val"):
        roles_of(task, own, test=True)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("k=many", "'many' is not a whole number"),
        ("k=2.5", "'2.5' is not a whole number"),
        ("k=0", "must be at least 1"),
        ("temperature=0", "must be above 0"),
        ("temperature=nan", "must be above 0"),
        ("temperature=hot", "'hot' is not a number"),
        ("width=3", "write name=value with one of train_fraction, train_views, k, temperature"),
        ("steps=3", "write name=value with one of train_fraction"),
        ("train_fraction=0", "train_fraction=0.0 must be above 0 and at most 1"),
        ("train_views=9", "holds 1 views"),
    ],
)
def test_settings_of_a_probe_are_its_own(run: Run, setting: str, said: str) -> None:
    assert configure(run.task, run.splits, readouts=["knn"], settings=["k=5"]).readouts["knn"]["k"] == 5
    with pytest.raises(CallError, match=said):
        configure(run.task, run.splits, readouts=["knn"], settings=[setting])


def test_a_probe_is_a_run_of_its_own(run: Run) -> None:
    with pytest.raises(CallError, match="knn is fitted by itself"):
        configure(run.task, run.splits, readouts=["linear", "knn"])


def test_an_unknown_readout_is_named(run: Run) -> None:
    with pytest.raises(CallError, match=r"no readout is called 'mean': known are linear, .*, knn, logistic"):
        configure(run.task, run.splits, readouts=["mean"])


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
    assert set(readouts_of(load_task(task, load_manifest()))) & PROBES.keys() == kinds


def test_what_is_fitted_is_not_trained_and_the_call_that_fits_it_is_said() -> None:
    refuse_probes(["linear", "attention"], task="flyvsfly", backbone="toy")
    call = "scivid sweep --grid 'task=flyvsfly backbone=toy readout=knn' --test --cache-dir here"
    with pytest.raises(CallError, match=f"--readout knn needs no training, and a sweep fits it: {call}"):
        refuse_probes(["linear", "knn"], task="flyvsfly", backbone="toy", test=True, cache_dir="here")


def test_every_readout_is_listed_with_what_makes_it() -> None:
    tasks = {name: load_task(name, load_manifest()) for name in ("flyvsfly", "typhoon")}
    rows = {row["readout"]: row for row in readout_rows(tasks)}
    assert rows["linear"]["tasks"] == "flyvsfly typhoon"
    assert (rows["knn"]["made by"], rows["knn"]["tasks"]) == ("no training, scivid sweep", "flyvsfly typhoon")
    assert (rows["ridge"]["tasks"], rows["dpt"]["tasks"]) == ("typhoon", "")


def test_settings_are_listed_with_the_tasks_own_defaults() -> None:
    task = load_task("flyvsfly", load_manifest())
    rows = {(row["of"], row["setting"]): row["default"] for row in setting_rows(task)}
    assert (rows["recipe", "steps"], rows["recipe", "weight_decay"]) == (40_000, 0.0)
    assert rows["attention", "heads"] == task.head_config("attention")["heads"]
    assert ("knn", "k") in rows
    # What is listed is what can be set.
    assert ("attention", "n_queries") not in rows


def test_a_recipe_that_goes_over_few_clips_too_often_is_said() -> None:
    (said,) = long_training(Recipe(), 94)
    assert said.startswith("40,000 steps of 32 clips are 13,617 passes over the 94 clips of train")
    # Typhoon's eight views, and what the sentence advises.
    assert not long_training(Recipe(), 696 * 8)
    assert not long_training(Recipe(steps=2000, warmup=100), 94)
