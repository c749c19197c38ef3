"""A run that tuned its backbone, from its folder: on tokens, pixels, stores and videos as it was scored."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import readouts
from cli import app
from featcache.backbones import load_backbone
from featcache.backbones.trainable import trainable
from featcache.errors import CallError, StoreError, WeightsError
from featcache.manifest import load_manifest
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore, find_stores
from featcache.system.console import silent
from readouts.certify.online import OnlinePixels, replanned
from readouts.predict.splits import predict_split
from readouts.results.decided import evaluated
from readouts.results.per_clip import read_predictions
from readouts.tuning.loaded import load_run
from readouts.tuning.wish import Wish
from tests.readouts.own_lab import CPU, Lab, make_stores
from tests.tunable import write_model

WISHES = {"partial": Wish(blocks=2, backbone_lr=0.5), "whole": Wish(blocks=None, backbone_lr=0.5)}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Lab]:
    """Recordings, and a run of the two upper blocks, and one of all."""
    root = tmp_path_factory.mktemp("tuned_lab")
    stores = make_stores(root, write_model(root), "1,3")
    return {what: stores.trained(wish, "3", steps=8) for what, wish in WISHES.items()}


def val_of(lab: Lab) -> FeatureStore:
    (store,) = find_stores(lab.cache, "mice", "val")
    return store


def given(lab: Lab, clips: list[int]) -> Tensor:
    """What the run takes of some clips of val."""
    store = val_of(lab)
    if not lab.load().takes_pixels:
        return torch.from_numpy(store.read(clips, layer=store.spec.layers[0]))
    manifest = load_manifest(lab.videos / "scivid.yaml")
    origin = replanned(store, load_backbone(lab.backbone), manifest, lab.videos, silent)
    return torch.stack([OnlinePixels(origin, CPU).of(clip, 0) for clip in clips])


@pytest.mark.parametrize("what", WISHES)
def test_the_module_gives_what_the_evaluation_gave(tuned: Mapping[str, Lab], what: str) -> None:
    lab = tuned[what]
    table, kept = read_predictions(lab.folder, "val")
    run = readouts.load_run(lab.folder.path, backbone=lab.backbone)
    assert run.takes_pixels == (what == "whole")
    found = run(given(lab, table["clip"].to_pylist()))
    assert found.keys() == kept.keys()
    for kind, outputs in found.items():
        assert not outputs.requires_grad
        np.testing.assert_allclose(outputs.numpy(), kept[kind], rtol=1e-4, atol=1e-5)
    # What was learned matters: the released blocks would not have given the same.
    assert run.tuned is not None
    begin = None if what == "whole" else 1
    released = trainable(load_backbone(lab.backbone), Layer(3), CPU, begin=begin)
    run.tuned.load_state_dict(released.state_dict())
    changed = run(given(lab, table["clip"].to_pylist()))
    assert not np.allclose(changed["attention"].numpy(), kept["attention"], rtol=1e-3)


@pytest.mark.parametrize("what", WISHES)
def test_windows_of_a_video_have_the_scores_of_the_evaluation(tuned: Mapping[str, Lab], what: str) -> None:
    lab = tuned[what]
    watcher = lab.watcher(every=16, batch=5)
    known = evaluated(lab.folder, "attention", "test")
    given_of = dict(zip(known.ids, known.scores, strict=True))
    found = {
        f"{video}/{window.first}": window.scores
        for video in sorted({clip.rpartition("/")[0] for clip in given_of})
        for window in lab.scores(watcher, lab.videos / video)
    }
    for clip, scores in given_of.items():
        np.testing.assert_allclose(found[clip], scores, rtol=1e-3, atol=1e-5)


def test_a_store_at_the_middle_depth_gives_the_same(tuned: Mapping[str, Lab], tmp_path: Path) -> None:
    lab, out = tuned["partial"], tmp_path / "val.parquet"
    predict_split(lab.load(), "attention", val_of(lab), out, device=CPU, progress=silent)
    known = evaluated(lab.folder, "attention", "val")
    table = pq.read_table(out)
    assert table["clip"].to_pylist() == known.ids
    np.testing.assert_allclose(np.stack([table["dig"], table["rest"]], 1), known.scores, rtol=1e-4)


def test_a_store_without_that_depth_is_named(tuned: Mapping[str, Lab], tmp_path: Path) -> None:
    partial, whole = tuned["partial"], tuned["whole"]
    store, out = val_of(partial), tmp_path / "val.csv"
    layers = store.spec.layers[1:]
    object.__setattr__(store.spec, "layers", layers)
    with pytest.raises(StoreError, match=r"holds layers 3, not 1: extract it with --layers 1"):
        predict_split(partial.load(), "attention", store, out, device=CPU, progress=silent)
    with pytest.raises(CallError, match="takes pixels, and a store has none: name the videos"):
        predict_split(whole.load(), "attention", val_of(whole), out, device=CPU, progress=silent)


def test_the_weights_are_the_runs_own(tuned: Mapping[str, Lab], tmp_path: Path) -> None:
    """Of a whole one no released file is asked for; another model is refused."""
    lab = tuned["whole"]
    shutil.copy(lab.backbone.partition(":")[0], tmp_path / "model.py")
    alone = f"{tmp_path / 'model.py'}:BACKBONE"
    run, copied = load_run(lab.folder.path, backbone=lab.backbone), load_run(lab.folder.path, backbone=alone)
    pixels = given(lab, [0, 1])
    torch.testing.assert_close(copied(pixels), run(pixels), rtol=0, atol=0)
    text = (tmp_path / "model.py").read_text()
    (tmp_path / "model.py").write_text(text.replace('gelu="tanh"', 'gelu="erf"'))
    with pytest.raises(WeightsError, match="did not tune this small"):
        load_run(lab.folder.path, backbone=alone)
    with pytest.raises(CallError, match=r"no backbone is called 'small'.*my_model.py:BACKBONE"):
        load_run(lab.folder.path)


@pytest.mark.parametrize("what", WISHES)
def test_the_command_predicts_videos(tuned: Mapping[str, Lab], what: str, tmp_path: Path) -> None:
    lab, out = tuned[what], tmp_path / "out.csv"
    words = [
        "predict", lab.videos / "mouse3_a.mp4", "--run", lab.folder.path, "--out", out,
        "--backbone", lab.backbone, "--device", "cpu",
    ]  # fmt: skip
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert len(out.read_text().splitlines()) == 161
