"""What makes two runs the same, and which settings are refused."""

from dataclasses import replace

import pytest

from featcache.errors import CallError, StoreError
from featcache.manifest import load_manifest
from featcache.store.feature_store import FeatureStore
from featcache.store.header import TargetsReference
from readouts.tasks import load_task
from readouts.training.run import Run, configure, roles_of


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


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rate=1", "--set rate=1: write name=value with one of steps, batch, lr"),
        ("lr", "--set lr: write name=value"),
        ("steps=many", "'many' is not a whole number"),
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
