import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from featcache.backbones import load_backbone
from featcache.errors import StoreError
from featcache.extract.job import plan_extraction
from featcache.extract.prepare import prepare
from featcache.extract.run import Machine
from featcache.extract.workers.remote import (
    ShardInWords,
    Source,
    StoreInWords,
    _in_words,
    begin_store,
    finish_store,
    make_shard,
)
from featcache.manifest import load_manifest
from featcache.store.feature_store import open_features
from featcache.system.cluster.task import forget
from featcache.system.console import silent
from tests.faults.workers import Experiment


@pytest.mark.slow
def test_two_workers_one_of_them_killed_make_the_store_of_one_process(tmp_path: Path) -> None:
    found = Experiment(tmp_path, n_clips=8).run(kills=1, seed=0, every=(0.2, 0.4))
    assert found.kills == 1 and found.stores >= 1
    assert (found.unlike, found.again) == ([], [])
    assert found.needed <= found.passes <= found.needed + 4


@pytest.fixture
def words(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreInWords:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    source = Source.of(
        "resize", data_dir=tiny_data, cache_dir=tmp_path / "cache", weights_dir=None, manifest_file=None
    )
    backbone = load_backbone("resize")
    job = plan_extraction(
        load_manifest(), task="flyvsfly", role="val", backbone=backbone, layers=backbone.info.default_layers,
        n_views=1, seed=0, dtype=torch.float32,
    )  # fmt: skip
    machine = Machine(device=torch.device("cpu"), batch=4, shard_bytes=100_000)
    (one,) = prepare(
        [job], data_dir=tiny_data, cache_dir=source.cache_dir, shard_bytes=machine.shard_bytes,
        skip_bad=False, progress=silent,
    )  # fmt: skip
    return _in_words(one, machine, source, False, "this command")


def test_a_worker_makes_a_shard_once_from_words_alone(words: StoreInWords) -> None:
    told = pickle.dumps(ShardInWords(store=words, shard=0))
    assert len(told) < 3000 and b"hush" not in told
    words = pickle.loads(told).store
    try:
        todo = begin_store(words, silent)
        assert todo == list(range(len(todo))) and len(todo) > 2
        assert make_shard(ShardInWords(store=words, shard=1), silent)
        assert not make_shard(ShardInWords(store=words, shard=1), silent)
        with pytest.raises(StoreError, match="lacks shards"):
            finish_store(words, silent)
        for shard in todo:
            make_shard(ShardInWords(store=words, shard=shard), silent)
        finish_store(words, silent)
    finally:
        forget()
    (path,) = (words.source.cache_dir / "flyvsfly" / "val").glob("resize-*.zarr")
    assert open_features(path).complete
    assert not (path / "claims").exists() and not (path / ".lock").exists()


def test_a_worker_that_has_other_files_says_so(words: StoreInWords) -> None:
    try:
        with pytest.raises(StoreError, match="01234567 where the command was given"):
            begin_store(replace(words, fingerprint="0123456789"), silent)
    finally:
        forget()


def test_paths_hold_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = Source.of(
        "own.py:MODEL",
        data_dir=Path("data"),
        cache_dir=Path("cache"),
        weights_dir=Path("w"),
        manifest_file=None,
    )
    assert source == Source(
        backbone=f"{tmp_path}/own.py:MODEL", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache",
        weights_dir=tmp_path / "w", manifest_file=None,
    )  # fmt: skip
