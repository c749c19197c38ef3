"""Stores, tables and checkpoints of an earlier version (`tests/earlier`) are read, found and gone on from."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import featcache
import readouts
from cli import app
from featcache import synthetic
from featcache.clips import CLIP_SCHEMA, ClipIndex
from featcache.store.writer import create_or_resume
from readouts.results.run_folder import read_curve

EARLIER = Path(__file__).with_name("earlier")
STORES = sorted(EARLIER.glob("features/typhoon/*/small_*.zarr"))
MODEL = {"small_clips": "CLIPS", "small_frames": "FRAMES"}
RECIPE = ("steps=60", "warmup=10", "minival_every=20", "val_every=20", "batch=4", "width=8", "heads=2")
SCORES = {"linear": 16.84097311634475, "attention": 17.27019722490105, "ridge": 19.968421344238983}
"""On val, as the earlier version ended; its killed run too, when nobody killed it."""


def scivid(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("runs.jsonl", "certificate.json")
    }


@pytest.fixture(scope="module")
def typhoons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("typhoons")
    synthetic.generate("digital_typhoon", folder, profile="tiny", seed=0)
    return folder


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for part in ("features", "results"):
        shutil.copytree(EARLIER / part, tmp_path / part)
    return tmp_path


def extract(path: Path, data: Path, cache: Path) -> str:
    backbone, dtype = path.name.partition("-")[0], featcache.open_features(path).spec.dtype
    return scivid(
        "extract", "--backbone", f"{EARLIER / 'small_model.py'}:{MODEL[backbone]}", "--task", "typhoon",
        "--split", path.parent.name, "--store-dtype", dtype, "--data-dir", data, "--cache-dir", cache,
        "--device", "cpu",
    )  # fmt: skip


def train(copy: Path, backbone: str) -> None:
    settings = [word for setting in RECIPE for word in ("--set", setting)]
    scivid(
        "train-readout", "--backbone", backbone, "--task", "typhoon", "--readout", "linear,attention",
        *settings, "--cache-dir", copy / "features", "--results-dir", copy / "results", "--device", "cpu",
    )  # fmt: skip


def test_there_is_one_of_each_kind() -> None:
    specs = [featcache.open_features(path).spec for path in STORES]
    assert {(spec.dtype, spec.n_frames is None) for spec in specs} == {
        ("float16", True),
        ("int8", True),
        ("float16", False),
    }


@pytest.mark.parametrize("path", STORES, ids=lambda path: path.stem)
def test_a_store_is_whole_and_the_one_that_is_written_today(
    path: Path, typhoons: Path, tmp_path: Path
) -> None:
    assert "is of version 1" in scivid("validate", path)
    extract(path, typhoons, tmp_path)
    # The same model: but today the file that it is written in is part of what it is.
    (made,) = tmp_path.rglob(path.name.partition("-")[0] + "-*.zarr")
    before, now = featcache.open_features(path), featcache.open_features(made)
    clips = range(before.spec.n_clips)
    assert before.read(clips).tobytes() == now.read(clips).tobytes()
    assert before.clips.equals(now.clips)
    assert before.previews() == now.previews()
    for name in before.targets.metadata:
        assert before.targets.read(name).tobytes() == now.targets.read(name).tobytes()
    # Digests, and where a chunk begins: all else that a header says is as it was.
    unlike = {"store_version", "seal", "shard_digests", "spec", "targets", "provenance"}
    own, others = (
        json.loads((store.path / "zarr.json").read_bytes())["attributes"]["scivid"] for store in (before, now)
    )
    for one in (own, others):
        one["parts"]["backbone"].pop("architecture")
        one.pop("fingerprint")
    assert {name for name in own.keys() | others.keys() if own.get(name) != others.get(name)} <= unlike
    assert others["spec"].pop("alignment") == 4096
    assert own["spec"] == others["spec"]
    assert own["targets"].items() <= others["targets"].items()


@pytest.mark.parametrize("path", STORES, ids=lambda path: path.stem)
def test_a_finished_store_is_left_as_it_is(path: Path, typhoons: Path, copy: Path) -> None:
    """The file of an own model is part of what it is today: that store is made beside the one of before."""
    shutil.rmtree(copy / "results")
    before = contents(copy / "features")
    extract(path, typhoons, copy / "features")
    after = contents(copy / "features")
    assert before == {name: after[name] for name in before}


def all_tokens(store: featcache.FeatureStore) -> np.ndarray:
    clips = range(store.spec.n_clips)
    return np.stack([store.read(clips, views=view) for view in range(store.spec.n_views)], axis=1)


@pytest.mark.parametrize("path", STORES, ids=lambda path: path.stem)
def test_a_store_is_gone_on_with_in_the_form_that_it_was_begun_in(path: Path, copy: Path) -> None:
    here = copy / path.relative_to(EARLIER)
    store = featcache.open_features(here)
    header, tokens, before = store.header, all_tokens(store), contents(here)
    asked = {
        "spec": replace(store.spec, alignment=4096),
        "parts": header.parts,
        "clips": ClipIndex(store.clips.select(CLIP_SCHEMA.names).cast(CLIP_SCHEMA)),
        "provenance": header.provenance,
        "attrs": {**header.attrs, "targets": Path(header.targets.path).name},
        "frames": store.rows.table,
    }
    with create_or_resume(here, **asked) as writer:
        assert writer.todo() == []
        writer.finish()
    assert contents(here) == before
    if store.spec.dtype != "float16" or store.spec.n_frames is not None:
        return  # what was stored is not what was given, or lies by frames
    shard = store.shard_path(store.spec.layers[0], 0)
    shard.unlink()
    with create_or_resume(here, **asked) as writer:
        assert writer.todo() == [0]
        rows = store.spec.rows_of_shard(0)
        writer.write_shard(0, {store.spec.layers[0]: tokens[rows.start : rows.stop]})
        writer.finish()
    assert contents(here) == before


def test_a_recorded_run_is_not_trained_again(copy: Path) -> None:
    before = contents(copy / "results")
    train(copy, "small_frames")
    assert contents(copy / "results") == before
    scivid(
        "sweep", "--grid", "task=typhoon backbone=small_frames readout=ridge",
        "--cache-dir", copy / "features", "--results-dir", copy / "results",
    )  # fmt: skip
    # A sweep's own note holds the command as it was last given.
    assert contents(copy / "results" / "results.parquet") == contents(EARLIER / "results" / "results.parquet")
    assert contents(copy / "results" / "typhoon") == contents(EARLIER / "results" / "typhoon")
    rows = readouts.load_results(copy / "results")
    assert {row["readout"]: row["val"] for row in rows} == SCORES


def test_a_killed_run_goes_on_from_its_checkpoint(copy: Path) -> None:
    (folder,) = (copy / "results" / "typhoon").glob("small_clips-*")
    curve = read_curve(folder / "history.jsonl")
    train(copy, "small_clips")
    assert read_curve(folder / "history.jsonl")[: len(curve)] == curve
    rows = [row for row in readouts.load_results(copy / "results") if row["backbone"] == "small_clips"]
    assert {row["readout"] for row in rows} == {"linear", "attention"}
    for row in rows:
        assert row["val"] == pytest.approx(SCORES[row["readout"]], rel=1e-6)


def test_a_report_shows_them_with_their_certificate(copy: Path) -> None:
    page = copy / "report.html"
    scivid("report", "--cache-dir", copy / "features", "--results-dir", copy / "results", "--out", page)
    text = page.read_text()
    assert "small_frames" in text
    assert "17.3" in text
    assert "exact" in text
