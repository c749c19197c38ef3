"""Every view of every task's clips as the reference shows it to the model, from records to pixels."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image

from featcache.backbones import load_backbone
from featcache.clips import Clip
from featcache.data.readers import open_reader
from featcache.data.readers.base import Scan
from featcache.extract.job import Extraction, plan_extraction
from featcache.extract.pixels.clip_views import ClipViews, shuffled_order
from featcache.manifest import load_manifest
from featcache.resampling import resize_area

Case = Mapping[str, np.ndarray]
TOLERANCES = {"typhoon": 1e-4, "weatherbench2": 3e-4}
"""What the golden files ask for; all else 1e-5."""


def job(task: str, role: str, backbone: str = "videomae_random", **options: object) -> Extraction:
    model = load_backbone(backbone, None)
    return plan_extraction(
        load_manifest(), task=task, role=role, backbone=model, layers=model.info.default_layers,
        **{"n_views": 1, "seed": 0, "dtype": torch.float32, **options},
    )  # fmt: skip


def golden_clips(shared: Path, task: str, role: str, stage: str) -> Iterator[tuple[ClipViews, Clip, Case]]:
    planned = job(task, role)
    for file in sorted(shared.glob(f"golden/records*/expected/{stage}.npz")):
        reader = open_reader(planned.dataset, planned.split, file.parents[1])
        index = reader.scan().index
        with np.load(file, allow_pickle=False) as arrays:
            flat = dict(arrays)
        for number in range(len({key.partition("/")[0] for key in flat})):
            case = {k.partition("/")[2]: v for k, v in flat.items() if k.startswith(f"{number}/")}
            record = int(case.get("chosen/record", number))
            yield ClipViews(planned, reader), index.clip(record), case


def assert_shown(pixels: torch.Tensor, case: Case, key: str, atol: float) -> None:
    found = rearrange(resize_area(pixels, 224, 224), "f c y x -> f y x c").double().numpy()
    assert list(found.shape) == case[f"{key}.shape"].tolist()
    np.testing.assert_allclose(found[:, 1::7, 1::7], case[f"{key}.sub"], rtol=0, atol=atol)
    np.testing.assert_allclose(found[0, ::32], case[f"{key}.frame0_rows"], rtol=0, atol=atol)
    np.testing.assert_allclose(found.mean((1, 2)), case[f"{key}.mean"], rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("task", "role", "stage", "key"),
    [
        ("flyvsfly", "val", "flyvsfly_eval", "video"),
        ("calms21", "test", "calms21_eval", "video"),
        ("stir", "val", "stir_eval", "video"),
        ("stir", "test", "stir_eval", "video"),
        ("typhoon", "test", "typhoon_eval", "model_input"),
        ("weatherbench2", "val", "weatherbench_eval", "model_input"),
    ],
)
def test_an_evaluated_clip_is_what_the_reference_shows(
    shared: Path, task: str, role: str, stage: str, key: str
) -> None:
    for views, clip, case in golden_clips(shared, task, role, stage):
        (pixels,) = views.pixels(clip, views.read(clip, 1), 1)
        assert_shown(pixels, case, key, TOLERANCES.get(task, 1e-5))


def test_a_view_of_a_training_scene_is_the_references_window(shared: Path) -> None:
    """The reference drew the starts; view v is the window that starts at frame v."""
    for views, clip, case in golden_clips(shared, "stir", "train", "movi_train_samples"):
        shown = list(views.pixels(clip, views.read(clip, 9), 9))
        assert len(shown) == 9
        assert_shown(shown[int(case["chosen/start"])], case, "video", 1e-5)


@pytest.mark.parametrize(
    ("task", "role", "stage"),
    [
        ("flyvsfly", "val", "flyvsfly_eval"),
        ("calms21", "test", "calms21_eval"),
        ("stir", "train", "movi_train_samples"),
        ("typhoon", "test", "typhoon_eval"),
        ("weatherbench2", "val", "weatherbench_eval"),
    ],
)
def test_tiny_frames_are_the_shown_ones_resized(shared: Path, task: str, role: str, stage: str) -> None:
    """One product an axis instead of two resizes: as far apart as rounding in float32 is."""
    small = job(task, role, "resize", n_views=9 if role == "train" else 1)
    assert small.resized_to == (16, 16)
    for views, clip, _ in golden_clips(shared, task, role, stage):
        tiny_views, n_views = ClipViews(small, views.reader), small.views.n_views
        frames = views.read(clip, n_views)
        tiny = list(tiny_views.pixels(clip, frames, n_views))
        assert len(tiny) == n_views
        for found, shown in zip(tiny, views.pixels(clip, frames, n_views), strict=True):
            torch.testing.assert_close(found, resize_area(shown, 16, 16), atol=3e-6, rtol=1e-5)


def test_a_strip_of_tiny_frames_shows_what_they_are_made_of(shared: Path) -> None:
    for views, clip, _ in golden_clips(shared, "flyvsfly", "val", "flyvsfly_eval"):
        tiny_views = ClipViews(job("flyvsfly", "val", "resize"), views.reader)
        found, full = (np.asarray(Image.open(BytesIO(each.strip(clip))), int) for each in (tiny_views, views))
        assert found.shape == full.shape == (112, 896, 3)
        # Rounded once instead of twice, then compressed.
        assert np.abs(found - full).mean() < 1


class NumberedFrames:
    """A reader whose frames hold their numbers, and which remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def scan(self, **_: object) -> Scan:
        raise NotImplementedError

    def read(self, clip: Clip, frames: list[int]) -> np.ndarray:
        self.asked.append(frames)
        return np.stack([np.full((4, 4, 1), frame, np.float32) for frame in frames])

    def frame_keys(self, clip: Clip, frames: Any) -> list[bytes]:
        raise AssertionError("nobody asks which frames are the same")

    def targets(self, clip: Clip) -> dict[str, np.ndarray]:
        return {}


def test_frames_that_several_views_show_are_read_once() -> None:
    reader = NumberedFrames()
    views = ClipViews(job("typhoon", "train"), reader)
    clip = Clip(id="a", source="s", record=0, n_source=32, digest="0" * 16)
    shown = list(views.pixels(clip, views.read(clip, 8), 8))
    assert reader.asked == [list(range(19))]
    assert [views.frames(clip, 8)[view].tolist() for view in (0, 7)] == [list(range(12)), list(range(7, 19))]
    assert shown[7].shape == (16, 3, 256, 256)
    assert views.job.exactness == "exact, 8 views"


def test_shuffled_frames_are_the_same_frames_in_one_order() -> None:
    clip = Clip(id="a", source="s", record=0, n_source=32, digest="0" * 16)
    views = ClipViews(job("typhoon", "train", shuffle_frames=True), NumberedFrames())
    frames = views.frames(clip, 8)
    # Written out: stores of other machines and versions have this one.
    order = [6, 4, 9, 7, 5, 8, 3, 0, 11, 1, 10, 2]
    assert shuffled_order(clip, 12) == order
    assert sorted(order) == list(range(12))
    assert (frames == np.arange(8)[:, None] + np.array(order)).all()


def test_every_clip_is_shuffled_in_its_own_order() -> None:
    """One order for all could be learned."""
    clips = [Clip(id="a", source="s", record=i, n_source=32, digest=f"{i // 2:016x}") for i in range(20)]
    orders = {tuple(shuffled_order(clip, 16)) for clip in clips}
    assert len(orders) == 20
    # Neither name nor split changes the order.
    assert shuffled_order(replace(clips[3], id="b", source="t"), 16) == shuffled_order(clips[3], 16)
    firsts = [order[0] for order in orders]
    assert len(set(firsts)) > 8
