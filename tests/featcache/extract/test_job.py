"""What follows from a job without reading anything."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from featcache.backbones import BACKBONES, load_backbone
from featcache.backbones.base import Backbone, BackboneInfo, Upsampling
from featcache.backbones.families.resize import ResizeTokens
from featcache.clips import Clip, ClipIndex
from featcache.errors import CallError
from featcache.extract.job import (
    Extraction,
    feature_spec,
    fingerprint_parts,
    plan_extraction,
    split_roles,
    store_attributes,
)
from featcache.fingerprint import FEATURE_VERSION, differences, fingerprint
from featcache.manifest import Augmentation, Pixels, load_manifest
from featcache.resampling import temporal_matrix
from featcache.spec import Corruption, Layer, Starts


def job(
    role: str = "train", n_views: int = 1, task: str = "calms21", backbone: Backbone | None = None
) -> Extraction:
    return plan_extraction(
        load_manifest(),
        task=task,
        role=role,
        backbone=backbone or load_backbone("videomae_random"),
        layers=(Layer(0),) if backbone else (Layer(1),),
        n_views=n_views,
        seed=0,
        dtype=torch.float32,
    )


def stretched(method: Upsampling | None) -> Backbone:
    """A backbone of 8 steps, stretched to 16 by `method`."""
    info = BACKBONES["resize"].info
    return ResizeTokens(info=replace(info, upsampling=method, grid=replace(info.grid, steps=8)))


CLIP = Clip(id="a", source="s", record=0, n_source=16, digest="0" * 16)


def parts(task: str, role: str = "train") -> dict[str, Any]:
    return fingerprint_parts(
        job(role, task=task, backbone=load_backbone("resize")), ClipIndex.from_clips([CLIP])
    )


INFO = replace(BACKBONES["resize"].info, name="stated")


@dataclass(frozen=True, kw_only=True)
class Stated:
    """A backbone that is what it says of itself, and runs nothing."""

    info: BackboneInfo = INFO
    weights: str = "ab" * 32
    built: str = "12 blocks"
    shown: str = "area"

    def weights_digest(self) -> str:
        return self.weights

    def architecture(self) -> dict[str, object]:
        return {"built": self.built}

    def preprocessing(self) -> dict[str, object]:
        return {"resize": self.shown}

    def load(self, *_: object) -> Any:
        raise AssertionError("nobody runs it")


STATED = Stated()
OTHER_MODEL: dict[str, Stated] = {
    "backbone.name": replace(STATED, info=replace(STATED.info, name="other")),
    "backbone.weights": replace(STATED, weights="cd" * 32),
    "backbone.architecture.built": replace(STATED, built="13 blocks"),
    "preprocessing.resize": replace(STATED, shown="bilinear"),
}
"""The one part that differs -> the backbone of which just that is another."""


def found_otherwise(asked: Extraction, changed: Extraction, clip: Clip = CLIP) -> list[str]:
    """The names of the parts in which a changed job is another one."""
    here = fingerprint_parts(asked, ClipIndex.from_clips([CLIP]))
    there = fingerprint_parts(changed, ClipIndex.from_clips([clip]))
    names = [line.partition(":")[0] for line in differences(here, there)]
    assert (fingerprint(here) == fingerprint(there)) == (not names)
    return names


def test_the_stores_shape_follows_from_the_backbones_grid() -> None:
    spec = feature_spec(job(n_views=3), n_clips=1000)
    # 8 steps x 7 x 7 tokens x 192 channels
    assert spec.arrays(spec.layers[0])[0].shape == (1000, 3, 8, 7, 7, 192)
    # 2^28 bytes / (3 views x 150,528 bytes) = 594.4, and 576 is the multiple of 32 below
    assert spec.clips_per_shard == 576


def test_what_a_store_says_of_itself() -> None:
    attributes = store_attributes(job(n_views=3))
    assert attributes["exactness"] == "3 frozen views"
    assert attributes["control"] == "random weights"
    assert (attributes["upsampling"], attributes["readout_steps"]) == ("linear", 16)
    assert store_attributes(job("test"))["exactness"] == "exact"


def test_corrupted_clips_are_stores_of_their_own_that_clean_readouts_are_scored_on() -> None:
    clean, blurred = job("val"), replace(job("val"), corruption=Corruption("blur", 2))
    assert blurred.name == f"{clean.name}_blur2"
    # Views may differ between what was learned from and what is scored.
    assert found_otherwise(clean, blurred) == ["views.corruption"]
    assert store_attributes(blurred)["corruption"] == {"kind": "blur", "severity": 2, "amount": 2.0}
    assert "corruption" not in store_attributes(clean)
    frames = replace(blurred, backbone=STATED, corruption=None)
    assert replace(frames, corruption=Corruption("noise", 1)).frame_steps is None
    for role, task, why in (("train", "calms21", "readouts learn from clips as filmed"),
                            ("val", "weatherbench2", "holds fields, not pictures")):  # fmt: skip
        with pytest.raises(CallError, match=why):
            plan_extraction(
                load_manifest(), task=task, role=role, backbone=STATED, layers=(Layer(1),), n_views=1, seed=0,
                dtype=torch.float32, corruption=Corruption("blur", 1),
            )  # fmt: skip


def test_splits_by_name() -> None:
    manifest = load_manifest()
    assert split_roles(manifest, "calms21", "all") == ["train", "val", "test"]
    assert split_roles(manifest, "calms21", "val, test") == ["val", "test"]
    with pytest.raises(CallError, match="no split of task calms21 is called 'dev'"):
        split_roles(manifest, "calms21", "train,dev")


def test_views_of_a_task_without_augmentation_are_refused(tmp_path: Path) -> None:
    overlay = tmp_path / "m.yaml"
    overlay.write_text("tasks: {calms21: {augmentation: {scale: [1.0, 1.0], blur: 0.0, flip: 0.0}}}")
    with pytest.raises(CallError, match="views are all alike"):
        plan_extraction(
            load_manifest(overlay),
            task="calms21",
            role="train",
            backbone=load_backbone("resize"),
            layers=(Layer(0),),
            n_views=4,
            seed=0,
            dtype=torch.float32,
        )


@pytest.mark.parametrize(
    ("method", "last"),
    [
        # Centre 7.25 of the last of 16 steps: what it would take of step 8 is missing, and 7 is left.
        ("linear", [0.0, 1.0]),
        # Keys' kernel at distances 1.25 and 0.25 is -0.0703125 and 0.8671875, divided by their sum 0.796875.
        ("cubic", [-0.0882353, 1.0882353]),
        (None, [0.0, 1.0]),
    ],
)
def test_only_the_last_step_is_stored_where_the_readout_reads_no_other(
    method: Upsampling | None, last: list[float]
) -> None:
    weather = job(task="weatherbench2", backbone=stretched(method))
    assert weather.step_weights is not None
    torch.testing.assert_close(weather.step_weights, torch.tensor([0.0] * 6 + last), rtol=0, atol=1e-6)
    assert feature_spec(weather, n_clips=5).all_arrays[0].shape == (5, 1, 1, 16, 16, 3)
    attributes = store_attributes(weather)
    assert (attributes["upsampling"], attributes["readout_steps"]) == (None, 1)
    if method is not None:
        every = temporal_matrix(8, 16, method)
        torch.testing.assert_close(weather.step_weights, every[-1], rtol=0, atol=0)


def test_all_steps_are_stored_otherwise() -> None:
    mouse = job(backbone=stretched("cubic"))
    assert mouse.step_weights is None
    assert mouse.grid.steps == 8
    assert (store_attributes(mouse)["upsampling"], store_attributes(mouse)["readout_steps"]) == (
        "cubic",
        16,
    )


@pytest.mark.parametrize(
    ("task", "role", "n_views", "said"),
    [
        ("flyvsfly", "train", 1, "1 frozen view"),
        ("flyvsfly", "train", 3, "3 frozen views"),
        ("flyvsfly", "val", 3, "exact"),
        ("stir", "train", 1, "exact, 9 views"),
        ("stir", "test", 1, "exact"),
        ("typhoon", "train", 8, "exact, 8 views"),
        ("typhoon", "val", 1, "exact"),
        ("weatherbench2", "train", 1, "exact"),
    ],
)
def test_how_exact_a_store_is(task: str, role: str, n_views: int, said: str) -> None:
    planned = job(role, n_views, task)
    assert planned.exactness == store_attributes(planned)["exactness"] == said
    rounded = replace(planned, store_dtype="int8")
    assert rounded.exactness == store_attributes(rounded)["exactness"] == f"{said}, rounded to int8"


def test_all_starts_of_a_training_clip_are_stored_and_no_other_number_of_views() -> None:
    for n_views in (1, 8):
        assert job("train", n_views, "typhoon").views.n_views == 8
    assert job("val", 1, "typhoon").views.starts is job("val", 4, "typhoon").views.starts is None
    assert job("val", 4, "typhoon").views.n_views == 1
    with pytest.raises(
        CallError,
        match=r"--views 4: the training clips of typhoon have 8 starts, a view each.*leave --views out",
    ):
        job("train", 4, "typhoon")


def test_the_parts_of_a_task_of_images_in_full() -> None:
    """Any key more or less would be another fingerprint: every store of these tasks extracted again."""
    found = parts("calms21")
    resize, index = load_backbone("resize"), ClipIndex.from_clips([CLIP])
    frame = {"n_frames": 16, "stride": 1, "sampling": "clip", "height": 224, "width": 224}
    assert found == {
        "feature_version": FEATURE_VERSION,
        "backbone": {
            "name": "resize",
            "architecture": resize.architecture(),
            "weights": resize.weights_digest(),
            "precision": "float32",
        },
        "preprocessing": resize.preprocessing(),
        "layers": ["0"],
        "tokens": {"dtype": "float16", "steps": "all"},
        "decoding": {"reader": "sequence_example", "channels": 1, "image": "image/encoded"},
        "frames": {**frame, "order": "as filmed"},
        "clips": {
            "dataset": "calms21",
            "split": "train",
            "data_version": "scivid-2025",
            "n_clips": 1,
            "index": index.frames_digest,
        },
        "views": {"n_views": 1, "seed": None, "augmentation": None},
    }
    for role in ("train", "val", "test"):
        fly = parts("flyvsfly", role)
        assert fly["decoding"] == {"reader": "sequence_example", "channels": 3, "image": "image/encoded"}
        assert fly["clips"].keys() == found["clips"].keys()


def test_clips_cut_in_another_way_than_those_of_training_say_so() -> None:
    train, val = parts("stir"), parts("stir", "val")
    assert "cut" not in train["clips"]
    assert val["clips"]["cut"] == {
        "n_frames": 16,
        "stride": 1,
        "sampling": "linspace_clip",
        "height": 224,
        "width": 224,
    }
    # A readout finds the stores of its other splits by what all of them share.
    assert train["frames"] == val["frames"]
    assert train["views"]["starts"] == {"rule": "window", "span": 16, "n_starts": 9}
    assert "starts" not in val["views"]


def test_values_variables_and_kept_steps_are_parts_where_they_are_not_the_usual() -> None:
    typhoon, weather = parts("typhoon"), parts("weatherbench2")
    assert typhoon["decoding"]["image"] == "image/infrared"
    assert typhoon["decoding"]["pixels"] == {"low": 170.0, "high": 300.0, "mean": [], "std": []}
    assert "variables" not in typhoon["decoding"]
    dataset = load_manifest().dataset("weatherbench2")
    assert weather["decoding"]["variables"] == list(dataset.variables)
    assert weather["decoding"]["pixels"]["std"] == list(dataset.pixels.std)
    assert weather["tokens"] == {"dtype": "float16", "steps": {"last": [0.0] * 15 + [1.0]}}
    assert len(fingerprint(weather)) == len(fingerprint(typhoon)) == 64


@pytest.mark.parametrize("part", OTHER_MODEL)
def test_each_thing_that_a_backbone_is_makes_another_store(part: str) -> None:
    """One at a time: new weights in the same folder are a new store although all else is as before."""
    asked = job(backbone=STATED)
    assert found_otherwise(asked, replace(asked, backbone=Stated())) == []
    assert found_otherwise(asked, replace(asked, backbone=OTHER_MODEL[part])) == [part]


def test_each_thing_that_is_asked_for_makes_another_store() -> None:
    asked = job(n_views=3, backbone=STATED)
    clip, views, data = asked.task.clip, asked.views, asked.dataset
    drawn = views.augmentation
    changes: dict[str, dict[str, Any]] = {
        "backbone.precision": {"dtype": torch.bfloat16},
        "layers.0": {"layers": (Layer(3),)},
        "tokens.dtype": {"store_dtype": "int8"},
        "tokens.steps": {"task": replace(asked.task, tokens="last")},
        "frames.order": {"shuffle_frames": True},
        "frames.n_frames": {"task": replace(asked.task, clip=replace(clip, n_frames=8))},
        "frames.stride": {"task": replace(asked.task, clip=replace(clip, stride=2))},
        "frames.sampling": {"task": replace(asked.task, clip=replace(clip, sampling="middle_clip"))},
        "frames.height": {"task": replace(asked.task, clip=replace(clip, height=225))},
        "frames.width": {"task": replace(asked.task, clip=replace(clip, width=225))},
        "clips.dataset": {"dataset": replace(data, name="rats")},
        "clips.split": {"split": "val"},
        "clips.data_version": {"dataset": replace(data, version="2026")},
        "decoding.reader": {"dataset": replace(data, reader="video_file")},
        "decoding.channels": {"dataset": replace(data, channels=3)},
        "decoding.image": {"dataset": replace(data, features={"image": "image/raw"})},
        "decoding.pixels": {"dataset": replace(data, pixels=Pixels(low=0.0, high=9.0))},
        "decoding.variables": {"dataset": replace(data, variables=("t",))},
        "views.n_views": {"views": replace(views, n_views=4)},
        "views.seed": {"views": replace(views, seed=1)},
        "views.augmentation.scale.1": {
            "views": replace(views, augmentation=replace(drawn, scale=(1.0, 1.5)))
        },
        "views.augmentation.blur": {"views": replace(views, augmentation=replace(drawn, blur=0.25))},
        "views.augmentation.flip": {"views": replace(views, augmentation=replace(drawn, flip=0.25))},
    }
    assert {part: found_otherwise(asked, replace(asked, **change)) for part, change in changes.items()} == {
        part: [part] for part in changes
    }


@pytest.mark.parametrize(
    "change", [{"id": "b"}, {"source": "t"}, {"record": 1}, {"n_source": 17}, {"digest": "1" * 16}]
)
def test_each_thing_that_a_clip_is_makes_another_store(change: dict[str, Any]) -> None:
    asked = job(backbone=STATED)
    assert found_otherwise(asked, asked, replace(CLIP, **change)) == ["clips.index"]


def test_values_of_pixels_starts_and_cuts_each_make_another_store() -> None:
    typhoon, weather, tissue = (job(task=task) for task in ("typhoon", "weatherbench2", "stir"))
    for part, change in (("low", {"low": 171.0}), ("high", {"high": 301.0})):
        pixels = replace(typhoon.dataset.pixels, **change)
        changed = replace(typhoon, dataset=replace(typhoon.dataset, pixels=pixels))
        assert found_otherwise(typhoon, changed) == [f"decoding.pixels.{part}"]
    for part in ("mean", "std"):
        pixels = replace(weather.dataset.pixels, **{part: (1.0, *getattr(weather.dataset.pixels, part)[1:])})
        changed = replace(weather, dataset=replace(weather.dataset, pixels=pixels))
        assert found_otherwise(weather, changed) == [f"decoding.pixels.{part}.0"]
    for part, starts in (("rule", Starts(rule="random_clip", span=16, n_starts=9)),
                         ("span", Starts(rule="window", span=17, n_starts=9))):  # fmt: skip
        changed = replace(tissue, views=replace(tissue.views, starts=starts))
        assert found_otherwise(tissue, changed) == [f"views.starts.{part}"]
    val = job("val", task="stir")
    other = replace(val, task=replace(val.task, evaluation_clip=replace(val.clip_spec, stride=2)))
    assert found_otherwise(val, other) == ["clips.cut.stride"]


def test_what_changes_no_token_makes_no_other_store() -> None:
    asked = job(n_views=3, backbone=STATED)
    renamed = replace(STATED, info=replace(STATED.info, title="Another title", licence="another"))
    data = replace(asked.dataset, title="Mice", licence="another", citation="me", classes=("a",))
    assert found_otherwise(asked, replace(asked, backbone=renamed, dataset=data)) == []
    assert found_otherwise(asked, asked, replace(CLIP, labels=(2,))) == []
    # With one view nothing is drawn.
    one = job(backbone=STATED)
    drawn = replace(one.views, seed=7, augmentation=Augmentation(flip=0.1))
    assert found_otherwise(one, replace(one, views=drawn)) == []


def test_what_else_a_store_says_of_itself() -> None:
    asked = job("val", backbone=STATED)
    assert store_attributes(asked) == {
        "task": "calms21",
        "role": "val",
        "backbone": "stated",
        "backbone_title": STATED.info.title,
        "control": STATED.info.control,
        "licence": STATED.info.licence,
        "exactness": "exact",
        "upsampling": STATED.info.upsampling,
        "readout_steps": STATED.info.readout_steps,
    }
    shuffled = store_attributes(replace(asked, shuffle_frames=True))
    assert (shuffled["backbone"], shuffled["backbone_title"]) == (
        "stated_shuffled",
        f"{STATED.info.title}, frames shuffled",
    )
