"""Stores of all five tasks are certified; wrong pixels, frames, views, settings and labels are caught."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache import synthetic
from featcache.backbones import backbone_info
from featcache.backbones.base import Backbone
from featcache.backbones.families.resize import ResizeTokens
from featcache.data.views import View, ViewPlan, draw_view
from featcache.errors import CallError, StoreError
from featcache.extract.job import plan_extraction
from featcache.extract.pixels import clip_views
from featcache.extract.run import Machine
from featcache.manifest import Augmentation, Manifest, load_manifest
from featcache.spec import TokenGrid
from featcache.store.feature_store import FeatureStore, open_features
from readouts.certify.certificate import LOSS_TOLERANCE, Certificate, read_certificate
from readouts.certify.compare import certify
from readouts.certify.online import replanned
from readouts.features.find import open_task_splits
from readouts.tasks import load_task
from readouts.training.loop import train
from readouts.training.run import Run
from readouts.training.settings import configure
from tests.featcache.one_split import extract

CPU = torch.device("cpu")
MANIFEST = load_manifest()
COARSE = ResizeTokens(
    info=replace(backbone_info("resize"), grid=TokenGrid(steps=4, rows=4, columns=4, channels=3)),
    patch=(4, 4, 4),
)
"""The benchmark's patch means, 64 tokens a clip: heads take no time."""

SETTINGS = {
    "flyvsfly": ["batch=4", "width=16", "heads=2", "lr=1e-3"],
    "calms21": ["batch=4", "width=16", "heads=2", "lr=1e-3"],
    "stir": ["batch=2", "width=16", "heads=2", "n_bases=2", "temporal_tiles=1"],
    "typhoon": ["batch=4", "width=16", "heads=2"],
    "weatherbench2": ["batch=2", "features=8", "head_channels=8"],
}


def silent(what: str, done: int, total: int) -> None:
    return None


SIZES = {
    "flyvsfly": {"train": 8, "val": 6},
    "calms21": {"train": 8, "val": 6},
    "movi": {"train": 2},
    "stir": {"full_val": 1},
    "digital_typhoon": {"train": 2, "val": 1},
    "weatherbench2": {"train": 2, "offline_dev": 1},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, sizes in SIZES.items():
        synthetic.generate(name, folder, profile=sizes, seed=0)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of stores that are what they say: made by the first test that wants one, found by the others."""
    return tmp_path_factory.mktemp("features")


@dataclass(frozen=True)
class Tampered:
    """A backbone that says it is COARSE and shows the model other pixels, or gives other tokens."""

    tamper: Callable[[Tensor], Tensor]
    after: Callable[[Tensor], Tensor] = lambda tokens: tokens
    info = COARSE.info

    def weights_digest(self) -> str:
        return COARSE.weights_digest()

    def architecture(self) -> dict[str, object]:
        return COARSE.architecture()

    def preprocessing(self) -> dict[str, object]:
        return COARSE.preprocessing()

    def load(self, *args: Any) -> Any:
        encoder = COARSE.load(*args)
        return lambda pixels: {
            layer: self.after(tokens) for layer, tokens in encoder(self.tamper(pixels)).items()
        }


def faint(tokens: Tensor) -> Tensor:
    """Nearly alike over their channels: float16, exact to 2.4e-4 here, keeps little of what they say."""
    return 0.75 + 2e-3 * tokens * torch.tensor([1.0, -1.0, 0.5])


FAINT = Tampered(lambda pixels: pixels, faint)
AS_FILMED = replace(
    MANIFEST,
    tasks={**MANIFEST.tasks, "calms21": replace(MANIFEST.task("calms21"), augmentation=Augmentation())},
)
"""Mice without views: an exact classification."""


def extracted(
    data: Path,
    cache: Path,
    task: str,
    *,
    backbone: Backbone = COARSE,
    n_views: int = 1,
    manifest: Manifest = MANIFEST,
    **options: Any,
) -> Path:
    for role in ("train", "val"):
        job = plan_extraction(
            manifest, task=task, role=role, backbone=backbone, layers=backbone.info.default_layers,
            n_views=n_views if role == "train" else 1, seed=5, dtype=torch.float32, **options,
        )  # fmt: skip
        extract(job, Machine(device=CPU, batch=3), data_dir=data, cache_dir=cache)
    return cache


def run_of(cache: Path, task: str, *settings: str, backbone: str = "resize") -> Run:
    splits = open_task_splits(cache, task, backbone, roles=("train", "val"))
    return configure(load_task(task, MANIFEST), splits, settings=["steps=3", *SETTINGS[task], *settings])


def certified(
    data: Path, run: Run, backbone: Backbone = COARSE, manifest: Manifest = MANIFEST, **options: Any
) -> Certificate:
    options = {"val_clips": 6, **options}
    return certify(run, backbone, manifest, data_dir=data, device=CPU, **options)


@pytest.mark.parametrize(("task", "n_views"), [("typhoon", 8), ("stir", 9), ("weatherbench2", 1)])
def test_exact_tasks_are_exact(data: Path, cache: Path, task: str, n_views: int) -> None:
    run = run_of(extracted(data, cache, task), task)
    found = certified(data, run, command="scivid certify ...")
    assert (found.verdict, found.findings.seeds, found.findings.steps) == ("exact", 1, 3)
    assert found.findings.exactness == ("exact" if n_views == 1 else f"exact, {n_views} views")
    assert found.findings.train_tokens.n_clip_views == 3 * run.recipe.batch
    assert found.findings.train_tokens.beyond_rounding < 1e-6
    assert found.findings.val_tokens.beyond_rounding < 1e-6
    assert max(head.worst_loss_difference for head in found.findings.readouts) < 1e-4
    assert read_certificate(run.splits["train"].store.path) == found
    assert found.command == "scivid certify ..."
    for head in found.findings.readouts:
        assert head.loss_difference_rounded == pytest.approx(head.worst_loss_difference, abs=1e-5)
        assert head.metric_rounded == pytest.approx(head.metric_cached, rel=1e-3)


def test_rounding_that_a_readout_blows_up_is_told_from_a_wrong_cache(data: Path, tmp_path: Path) -> None:
    options = {"manifest": AS_FILMED}
    run = run_of(extracted(data, tmp_path, "calms21", backbone=FAINT, **options), "calms21", "lr=1e-2")
    found = certified(data, run, FAINT, **options)
    (attention,) = (head for head in found.findings.readouts if head.readout == "attention")
    assert found.verdict == "within rounding"
    assert found.findings.faithful
    assert found.findings.train_tokens.beyond_rounding == found.findings.val_tokens.beyond_rounding == 0.0
    # More than the fixed tolerance, and to the bit what rounding the backbone's own tokens does.
    assert attention.worst_loss_difference > 2 * LOSS_TOLERANCE["float32"]
    assert attention.worst_loss_difference == attention.loss_difference_rounded
    assert attention.metric_cached == attention.metric_rounded


@pytest.mark.parametrize("tamper", [lambda pixels: pixels.flip(1), lambda pixels: pixels.roll(1, dims=-1)])
def test_a_wrong_cache_of_faint_tokens_is_caught(
    data: Path, tmp_path: Path, tamper: Callable[[Tensor], Tensor]
) -> None:
    options = {"manifest": AS_FILMED}
    extracted(data, tmp_path, "calms21", backbone=Tampered(tamper, faint), **options)
    found = certified(data, run_of(tmp_path, "calms21", "steps=2"), FAINT, **options)
    assert found.text.startswith("differs: training tokens are")
    assert not found.findings.faithful


@pytest.mark.parametrize("task", ["flyvsfly", "calms21"])
def test_frozen_views_are_held_against_fresh_ones(data: Path, cache: Path, task: str) -> None:
    run = run_of(extracted(data, cache, task, n_views=2), task, "steps=2")
    found = certified(data, run)
    assert (found.findings.seeds, found.findings.exactness) == (3, "2 frozen views")
    assert found.findings.headline.gap_low is not None
    assert found.findings.headline.gap_high is not None
    assert found.findings.headline.gap_low <= found.findings.headline.gap <= found.findings.headline.gap_high
    assert found.findings.margin == 0.05
    # Of two steps and a few clips nothing can be known within a twentieth of the score.
    misses = [head for head in found.findings.readouts if not head.gap_low <= 0 <= head.gap_high]
    assert found.verdict == ("differs" if misses else "undecided")
    assert "tokens are" not in found.text
    # The frozen views are those of the plan, and the online run saw others.
    assert found.findings.train_tokens.beyond_rounding < 1e-6
    assert found.findings.train_tokens.n_clip_views == run.recipe.batch
    assert max(head.worst_loss_difference for head in found.findings.readouts) > 1e-4


@pytest.mark.parametrize(
    ("task", "tamper"),
    [
        ("typhoon", lambda pixels: 255 * pixels),
        ("typhoon", lambda pixels: pixels.flip(1)),
        ("typhoon", lambda pixels: pixels.roll(1, dims=-1)),
        ("calms21", lambda pixels: pixels.flip(1)),
    ],
    ids=["pixel range", "frames reversed", "one pixel to the right", "frames of samples reversed"],
)
def test_wrong_preprocessing_is_caught(
    data: Path, tmp_path: Path, task: str, tamper: Callable[[Tensor], Tensor]
) -> None:
    run = run_of(extracted(data, tmp_path, task, backbone=Tampered(tamper)), task, "steps=2")
    found = certified(data, run)
    assert found.verdict == "differs"
    assert found.text.startswith("differs: training tokens are")
    assert "validation tokens are" in found.text


def later_start(plan: ViewPlan, clip_id: str, view: int, height: int, width: int) -> View:
    return View(start=view + 1)


def other_seed(plan: ViewPlan, clip_id: str, view: int, height: int, width: int) -> View:
    return draw_view(replace(plan, seed=6), clip_id, view, height, width)


@pytest.mark.parametrize(("task", "wrong"), [("typhoon", later_start), ("calms21", other_seed)])
def test_wrong_views_are_caught(
    data: Path, tmp_path: Path, task: str, wrong: Callable[..., View], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(clip_views, "draw_view", wrong)
        extracted(data, tmp_path, task, n_views=2 if task == "calms21" else 1)
    found = certified(data, run_of(tmp_path, task, "steps=2"))
    assert found.verdict == "differs"
    assert "training tokens are" in found.text


def test_shuffled_frames_and_int8_are_certified_as_such(data: Path, tmp_path: Path) -> None:
    extracted(data, tmp_path, "typhoon", shuffle_frames=True, store_dtype="int8")
    found = certified(data, run_of(tmp_path, "typhoon", backbone="resize_shuffled"))
    assert (found.verdict, found.findings.dtype) == ("exact", "int8")
    for head in found.findings.readouts:
        assert 0 < head.worst_loss_difference == head.loss_difference_rounded
    assert found.backbone == "resize_shuffled"


def test_the_cached_side_is_training_itself(data: Path, cache: Path, tmp_path: Path) -> None:
    run = run_of(extracted(data, cache, "typhoon"), "typhoon", "minival_every=1", "val_every=1")
    found = certified(data, run)
    train(run, results_dir=tmp_path / "results", device=CPU)
    history = run.folder(tmp_path / "results").curve.read_text().splitlines()
    for head in found.findings.readouts:
        curve = [row for row in map(json.loads, history) if row["readout"] == head.readout]
        assert [row["train_loss"] for row in curve[1:]] == list(head.losses_cached)


def test_another_backbone_or_data_are_refused(data: Path, tmp_path: Path) -> None:
    run = run_of(extracted(data, tmp_path, "typhoon"), "typhoon")
    other = replace(COARSE, info=replace(COARSE.info, mean=(0.5,) * 3, std=(0.5,) * 3))
    with pytest.raises(StoreError, match=r"preprocessing\.mean: null here, \[0\.5, 0\.5, 0\.5\] asked for"):
        certified(data, run, other)
    synthetic.generate("digital_typhoon", tmp_path / "data", profile=SIZES["digital_typhoon"], seed=1)
    with pytest.raises(StoreError, match=r"clips\.index"):
        certified(tmp_path / "data", run)
    assert read_certificate(run.splits["train"].store.path) is None


def test_other_labels_are_refused(data: Path, tmp_path: Path) -> None:
    extracted(data, tmp_path, "calms21")
    store = open_task_splits(tmp_path, "calms21", "resize", roles=["val"])["val"].store
    relabelled = FeatureStore(store.path, replace(store.header, clips_digest="0" * 64))
    with pytest.raises(StoreError, match="other labels than the data"):
        replanned(relabelled, COARSE, MANIFEST, data, silent)
    assert replanned(open_features(store.path), COARSE, MANIFEST, data, silent).job.role == "val"


def test_one_seed_tells_nothing_of_samples(data: Path, cache: Path) -> None:
    run = run_of(extracted(data, cache, "calms21", n_views=2), "calms21")
    with pytest.raises(CallError, match="--seeds 2 or more"):
        certified(data, run, seeds=1)
    with pytest.raises(CallError, match="val_clips=0"):
        certified(data, run, val_clips=0)
