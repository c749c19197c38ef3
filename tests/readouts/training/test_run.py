"""What makes two runs the same."""

from dataclasses import fields, replace
from typing import Any

import pytest

from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from featcache.store.header import TargetsReference
from readouts.tasks.base import Recipe
from readouts.training.run import Run
from readouts.training.settings import configure

OTHER_RECIPE: dict[str, Any] = {
    "steps": 41,
    "batch": 17,
    "lr": 0.06,
    "warmup": 3,
    "weight_decay": 0.2,
    "clip_update": 0.5,
    "minival_every": 5,
    "minival_clips": 8,
    "val_every": 20_000,
    "order_seed": 1,
    "train_fraction": 0.5,
    "train_views": 1,
    "mix_shards": 2,
    "precision": "bfloat16",
}
"""Every setting of the recipe, another than the run's."""

OF_A_RUN_ALONE = {"lr", "warmup", "weight_decay", "clip_update"}
"""Those in which runs of one pass over the data may differ."""


def changed(run: Run, role: str, **changes: Any) -> Run:
    """The run with another header of the store of one split."""
    split = run.splits[role]
    store = FeatureStore(split.store.path, replace(split.store.header, **changes))
    return replace(run, splits={**run.splits, role: replace(split, store=store)})


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


def test_seed_and_settings_make_another_run(run: Run, settings: list[str]) -> None:
    def variant(**changes: object) -> str:
        chosen = {"settings": settings, "seed": 3, **changes}
        return configure(run.task, run.splits, **chosen).id

    ids = [
        variant(),
        variant(seed=4),
        variant(settings=[*settings, "lr=0.5"]),
        variant(readouts=["attention"]),
    ]
    assert len(set(ids)) == 4
    assert ids[0] == run.id


@pytest.mark.parametrize("name", OTHER_RECIPE)
def test_each_setting_of_the_recipe_makes_another_run(run: Run, name: str) -> None:
    assert OTHER_RECIPE.keys() == {field.name for field in fields(Recipe)}
    other = replace(run, recipe=replace(run.recipe, **{name: OTHER_RECIPE[name]}))
    assert other.id != run.id
    assert (other.pass_key == run.pass_key) == (name in OF_A_RUN_ALONE)


def test_heads_and_seeds_make_another_run_of_the_same_pass(run: Run) -> None:
    wider = {**run.readouts, "attention": {**run.readouts["attention"], "width": 32}}
    others = [
        replace(run, seed=4),
        replace(run, readouts=wider),
        replace(run, readouts={"linear": run.readouts["linear"]}),
    ]
    assert len({run.id, *(other.id for other in others)}) == 4
    assert {other.pass_key for other in others} == {run.pass_key}


@pytest.mark.parametrize("role", ["train", "val"])
def test_each_thing_of_a_split_makes_another_run_and_another_pass(run: Run, role: str) -> None:
    split = run.splits[role]
    attrs = split.store.header.attrs
    layer = replace(run, splits={**run.splits, role: replace(split, layers=(Layer(2),))})
    others = {
        "features": changed(run, role, fingerprint="f" * 64),
        "targets": changed(run, role, targets=TargetsReference(path="x", fingerprint="others")),
        "upsampling": changed(run, role, attrs={**attrs, "upsampling": "cubic"}),
        "readout_steps": changed(run, role, attrs={**attrs, "readout_steps": 16}),
    }
    assert len({run.id, layer.id, *(other.id for other in others.values())}) == 6
    assert len({run.pass_key, *(other.pass_key for other in others.values())}) == 5
    assert layer.pass_key == run.pass_key, "runs of several layers may take part in one pass"
    # What says nothing of the numbers.
    assert changed(run, role, attrs={**attrs, "licence": "another"}).id == run.id


def test_a_score_on_test_is_of_the_same_run_in_a_pass_of_its_own(run: Run) -> None:
    tested = replace(run, splits={**run.splits, "test": run.splits["val"]})
    assert tested.id == run.id
    assert tested.pass_key != run.pass_key


def test_what_a_run_trains_on_is_what_its_recipe_says(run: Run) -> None:
    recipe = replace(run.recipe, batch=5, order_seed=9, mix_shards=2, train_fraction=0.5, train_views=1)
    asked = replace(run, recipe=recipe)
    assert (asked.training.fraction, asked.training.first_views) == (0.5, 1)
    assert len(asked.training.usable) == 24
    draws = asked.draws
    assert (draws.n_clips, draws.n_views, draws.batch, draws.seed, draws.mix_shards) == (24, 1, 5, 9, 2)


def test_a_precision_that_is_not_the_benchmarks_is_part_of_what_a_run_is(run: Run) -> None:
    """And the benchmark's is not named: runs had their names before there was another one."""
    assert "precision" not in run.decisions["recipe"]
    rounded = replace(run, recipe=replace(run.recipe, precision="bfloat16"))
    assert rounded.decisions["recipe"] == {**run.decisions["recipe"], "precision": "bfloat16"}
    assert rounded.id != run.id
    assert rounded.pass_key != run.pass_key, "a product of all heads has one precision"
