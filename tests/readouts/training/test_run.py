"""What makes two runs the same."""

from dataclasses import replace

from featcache.store.feature_store import FeatureStore
from featcache.store.header import TargetsReference
from readouts.training.run import Run
from readouts.training.settings import configure


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
