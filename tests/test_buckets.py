"""Stores in a bucket: every command as on a disk, the same bytes, and no half of anything."""

import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli import app
from featcache.buckets.path import place
from featcache.store.feature_store import find_stores, open_features
from tests.conftest import MakeSplit
from tests.loopback import KEYS, Network, ObjectStore

ROOT = Path(__file__).parents[1]
SECRETS = [value for name, value in KEYS.items() if name != "AWS_REGION"]


def scivid(*words: object, code: int = 0) -> str:
    """What a command says, once it ended as it should."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    assert not any(secret in result.output for secret in SECRETS)
    return result.output


def files_below(folder: Path) -> dict[str, Path]:
    """Name of each file -> its path; logs differ by the time of the day, indexes by where the data are."""
    return {
        str(path.relative_to(folder)): path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("runs.jsonl", ".lock") and path.parent.name != "index"
    }


@pytest.mark.slow
def test_a_cache_in_a_bucket_is_the_cache_on_a_disk(bucket: Path, tiny_data: Path, tmp_path: Path) -> None:
    there, here = f"s3://{bucket.name}/features", tmp_path / "features"
    resize = ("--backbone", "resize", "--task", "flyvsfly")
    extract = ("extract", *resize, "--split", "train,val", "--cache-dir")
    shutil.copytree(tiny_data, bucket / "data")
    data = ("--data-dir", f"s3://{bucket.name}/data")
    assert f"{there}/flyvsfly/val/resize-" in scivid(*extract, there, *data)
    assert "complete" in scivid("data", "status", *data)
    scivid(*extract, here, "--data-dir", tiny_data)
    ours, theirs = files_below(bucket / "features"), files_below(here)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not filecmp.cmp(ours[name], theirs[name], shallow=False)] == []
    assert "val was there: no feature was computed" in scivid(*extract, there, *data)
    assert there in scivid("list", "stores", "--cache-dir", there)
    assert scivid("validate", there).count("complete, checksums right, all finite") == 4
    scores = []
    for cache in (there, here):
        where = ("--cache-dir", cache, "--results-dir", tmp_path / f"results{len(scores)}")
        train = ("train-readout", *resize, "--readout", "linear", "--set", "steps=3", *where)
        scores.append(scivid(*train).splitlines()[-2])
    assert scores[0] == scores[1]
    where = ("--cache-dir", there, "--results-dir", tmp_path / "results0")
    scivid("report", *where, "--out", tmp_path / "report.html")
    assert "resize" in (tmp_path / "report.html").read_text()
    written = [path for path in tmp_path.rglob("*") if path.is_file()] + list(files_below(bucket).values())
    assert not [path for path in written if any(secret.encode() in path.read_bytes() for secret in SECRETS)]


def test_other_zarr_clients_open_the_url(bucket: Path, make_split_in: MakeSplit) -> None:
    import tensorstore

    tokens = np.random.default_rng(0).normal(size=(7, 2, 2, 2, 2, 8)).astype(np.float16)
    cache = place(f"s3://{bucket.name}/features")
    store = make_split_in(cache, "train", tokens, np.eye(7, dtype=bool), dtype="float16")
    assert np.array_equal(open_features(str(store.path)).read(range(7), views=1), tokens[:, 1])
    assert np.array_equal(store.to_xarray().tokens_1.values, tokens)
    assert [found.path for found in find_stores(str(cache))] == [store.path]
    spec = {
        "driver": "zarr3",
        "kvstore": {
            "driver": "s3",
            "bucket": bucket.name,
            "path": store.path.key + "/tokens_1/",
            "endpoint": os.environ["AWS_ENDPOINT_URL"],
            "aws_region": KEYS["AWS_REGION"],
        },
    }
    assert np.array_equal(tensorstore.open(spec, read=True).result().read().result(), tokens)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_skipped_clips_and_int8_in_a_bucket(
    bucket: Path, make_split_in: MakeSplit, tmp_path: Path, dtype: str
) -> None:
    tokens = np.random.default_rng(0).normal(size=(7, 1, 2, 2, 2, 8))
    split = ("train", tokens, np.eye(7, dtype=bool))
    for cache in (place(f"s3://{bucket.name}/features"), tmp_path):
        store = make_split_in(cache, *split, dtype=dtype, skipped={3: "its video is gone"})
        assert store.skipped_clips == {3}
    ours, theirs = files_below(bucket / "features"), files_below(tmp_path)
    assert {name: path.read_bytes() for name, path in ours.items()} == {
        name: path.read_bytes() for name, path in theirs.items()
    }
    assert "complete, checksums right" in scivid("validate", f"s3://{bucket.name}/features")


def test_damage_in_a_bucket_is_found_and_mended(
    bucket: Path, make_split_in: MakeSplit, tmp_path: Path
) -> None:
    tokens = np.random.default_rng(0).normal(size=(7, 1, 2, 2, 2, 8))
    split = (place(f"s3://{bucket.name}"), "train", tokens, np.eye(7, dtype=bool))
    store = make_split_in(*split)
    shards = sorted((bucket / store.path.key / "tokens_1").glob("c.*"))
    good = shards[0].read_bytes()
    shards[0].write_bytes(bytes([good[0] ^ 1]) + good[1:])
    said = scivid("validate", store.path, code=1)
    assert "fails the checksum of the chunk at byte 0" in said
    shards[0].write_bytes(good[:-1])
    shards[1].unlink()
    said = scivid("validate", store.path, code=1)
    assert "is missing" in said
    result = scivid("list", "stores", "--cache-dir", f"s3://{bucket.name}")
    assert "yes" in result
    make_split_in(*split)
    assert shards[0].read_bytes() == good
    assert "complete, checksums right" in scivid("validate", store.path)


def test_what_is_not_there_or_cannot_be_is_said_in_one_line(bucket: Path, tmp_path: Path) -> None:
    resize = ("--backbone", "resize", "--task", "flyvsfly")
    train = ("train-readout", *resize, "--results-dir", tmp_path, "--cache-dir")
    said = scivid(*train, f"s3://{bucket.name}/none", code=1)
    assert f"no train store of resize for flyvsfly in s3://{bucket.name}/none: make one with `scivid" in said
    said = scivid(*train, "s3://no-such-bucket/none", code=1)
    assert "s3://no-such-bucket/none: there is no such bucket" in said
    assert said.count("\n") == 1
    found = CliRunner().invoke(app, ["--debug", *map(str, train), "s3://no-such-bucket/none"])
    assert found.exception is not None
    text = "".join(traceback.format_exception(found.exception))
    assert "no such bucket" in text
    assert not any(secret in text for secret in SECRETS)
    assert "neither a folder nor a bucket" in scivid(*train, "ftp://host/x", code=2)
    said = scivid("validate", f"s3://{bucket.name}/none.zarr", code=1)
    assert f"s3://{bucket.name}/none.zarr is not there" in said
    said = scivid("extract", *resize, "--data-dir", f"s3://{bucket.name}/none", code=1)
    assert f"s3://{bucket.name}/none has no files of flyvsfly/train, which are full/fly_vs_fly/" in said
    said = scivid("report", "--results-dir", f"s3://{bucket.name}/results", code=2)
    assert f"--results-dir s3://{bucket.name}/results: stores, data and weights may be in a bucket" in said


def run(environment: dict[str, str], *words: object) -> "subprocess.Popen[str]":
    """A command in a process of its own, begun."""
    return subprocess.Popen(
        [sys.executable, "-c", "from cli import app; app()", *map(str, words)],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_two_workers_share_a_store_in_a_bucket(
    object_store: ObjectStore, bucket: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """They make a part each, at once; the store is the one of a single process, and no claim is left."""
    there = f"s3://{bucket.name}/features"
    extract = ("extract", "--backbone", "resize", "--task", "flyvsfly", "--split", "val", "--shard-mb", "1")
    extract = (*extract, "--data-dir", tiny_data, "--cache-dir")
    workers = [run(object_store.environment(), *extract, there, "--shards", f"{n}/2") for n in (1, 2)]
    for worker in workers:
        said = worker.communicate(timeout=200)[0]
        assert worker.returncode == 0, said
    scivid(*extract, tmp_path)
    ours, theirs = files_below(bucket / "features"), files_below(tmp_path)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not filecmp.cmp(ours[name], theirs[name], shallow=False)] == []


@pytest.mark.slow
def test_a_network_cut_in_the_middle_costs_only_the_time(
    object_store: ObjectStore, bucket: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """In the middle of an extraction and of a training: both go on, to the same bytes and scores."""
    network, there = Network(object_store.port), f"s3://{bucket.name}/features"
    environment = object_store.environment(network.port) | {"SCIVID_READ_CACHE": "off"}
    where = ("--backbone", "resize", "--task", "flyvsfly", "--cache-dir", there)
    extract = ("extract", *where, "--split", "train,val", "--data-dir", tiny_data)
    train = ("train-readout", *where, "--readout", "linear", "--set", "steps=60", "--results-dir", tmp_path)
    for words, begun in ((extract, "zarr.json"), (train, None)):
        before, process = network.sent, run(environment, *words)
        while process.poll() is None and not (
            list(bucket.rglob(begun)) if begun else network.sent > before + 20_000
        ):
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()[0]
        network.cut(2.0)
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 0, said
    network.close()
    assert "complete, checksums right" in scivid("validate", there)


@pytest.mark.slow
def test_what_is_killed_in_an_upload_leaves_nothing_half_written(
    object_store: ObjectStore, bucket: Path, make_split_in: MakeSplit, tmp_path: Path
) -> None:
    """kill -9 while a shard is on its way: readers never see it, and the same call finishes the store."""
    code = """
import sys
import numpy as np
from featcache.buckets.path import place
from tests.conftest import make_split_in
make = make_split_in.__wrapped__()
tokens = np.random.default_rng(0).normal(size=(6, 1, 2, 4, 4, 4096))
make(place(sys.argv[1]), "train", tokens, np.eye(6, dtype=bool))
"""
    network, there = Network(object_store.port, rate=1e6), f"s3://{bucket.name}/features"
    for kill_at in (100_000, 300_000, 300_000, None):
        before = network.sent
        process = subprocess.Popen(
            [sys.executable, "-c", code, there],
            cwd=ROOT,
            env=os.environ | object_store.environment(network.port),
        )
        while kill_at is not None and network.sent < before + kill_at:
            assert process.poll() is None
            time.sleep(0.002)
        if kill_at is None:
            network.rate = float("inf")
        else:
            process.send_signal(signal.SIGKILL)
        process.wait(120)
        if kill_at is not None:
            (root,) = (bucket / "features").rglob("toy-*.zarr/zarr.json")
            assert json.loads(root.read_bytes())["attributes"]["scivid"]["complete"] is False
            assert "is unfinished" in scivid("validate", there, code=1)
            for shard in root.parent.glob("tokens_1/c.*"):
                assert shard.stat().st_size > 2 * 2 * 4 * 4 * 4096 * 2
    network.close()
    tokens = np.random.default_rng(0).normal(size=(6, 1, 2, 4, 4, 4096))
    make_split_in(tmp_path, "train", tokens, np.eye(6, dtype=bool))
    ours, theirs = files_below(bucket / "features"), files_below(tmp_path)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not filecmp.cmp(ours[name], theirs[name], shallow=False)] == []
