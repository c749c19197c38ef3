"""Workers at one store: together they write what one process writes, and nothing is made twice."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from featcache.buckets.path import place
from featcache.data.readers.sequence_example.reader import SequenceExampleReader
from featcache.errors import CallError, DataError, StoreError, WeightsError
from featcache.extract.prepare import Prepared, prepare
from featcache.extract.run import LoadedModel, Machine
from featcache.extract.workers import shards
from featcache.extract.workers.claims import FOLDER, FileClaims, Owner
from featcache.extract.workers.parts import Part
from featcache.extract.workers.shards import ShardWorker, extract_parts
from featcache.store.feature_store import open_features
from featcache.store.writer import StoreWriter
from tests.featcache.extract.test_pipeline import Doubled
from tests.featcache.extract.test_run import plan
from tests.featcache.one_split import extract

CPU = Machine(device=torch.device("cpu"), batch=3, shard_bytes=2**17, decode_threads=2)
JOB = replace(plan("train"), backbone=Doubled())
HERE = Owner.this_process({})


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.name != "runs.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in files}


@pytest.fixture(scope="module")
def alone(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a single process leaves."""
    cache = tmp_path_factory.mktemp("alone")
    extract(JOB, CPU, data_dir=tiny_data, cache_dir=cache)
    return contents(cache)


@pytest.fixture
def begin(tiny_data: Path, tmp_path: Path) -> Iterator[Callable[..., ShardWorker]]:
    """Makes workers at the store of one cache, which end with the test."""
    workers = []

    def make(machine: Machine = CPU, owner: Owner = HERE, **options: Any) -> ShardWorker:
        (one,) = prepared(tiny_data, tmp_path)
        workers.append(ShardWorker(one, machine, LoadedModel(machine.device), owner, **options))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


def prepared(data: Path, cache: Path) -> list[Prepared]:
    return prepare(
        [JOB], data_dir=data, cache_dir=cache, shard_bytes=CPU.shard_bytes, skip_bad=True,
        progress=lambda *_: None,
    )  # fmt: skip


def part(number: int, of: int, data: Path, cache: Path, **options: Any) -> Any:
    machine = options.pop("machine", CPU)
    (done,) = extract_parts(
        [JOB], machine, Part(number=number, of=of), HERE, data_dir=data, cache_dir=cache, **options
    )
    return done


def test_parts_one_after_the_other_make_the_store_of_one_process(
    tiny_data: Path, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    done = [part(number, 3, tiny_data, tmp_path) for number in (2, 3, 1)]
    n_shards = done[0].n_shards
    assert n_shards > 5
    assert [one.store is None for one in done] == [True, True, False]
    assert sum(one.n_made for one in done) == n_shards == sum(one.n_ours for one in done)
    assert done[0].n_missing == n_shards - done[0].n_ours
    assert str(done[0]).endswith(f"; {done[0].n_missing} of {n_shards} are to come from other parts")
    assert ", part 1/3: all " in str(done[2]) and str(done[2]).endswith("made now; the store is complete")
    assert contents(tmp_path) == alone


def test_another_number_of_parts_goes_on_with_what_is_there(
    tiny_data: Path, tmp_path: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    part(1, 2, tiny_data, tmp_path)
    written, write = [], StoreWriter.write_shard

    def noted(self: StoreWriter, shard: int, *rest: Any) -> None:
        written.append(shard)
        write(self, shard, *rest)

    monkeypatch.setattr(StoreWriter, "write_shard", noted)
    # More parts than shards: some have nothing to do.
    done = [part(number, 40, tiny_data, tmp_path) for number in range(1, 41)]
    n_shards = done[0].n_shards
    assert written == list(range(n_shards // 2, n_shards))
    assert any("no shard is left for it" in str(one) for one in done)
    assert done[-1].store is not None
    assert contents(tmp_path) == alone


def test_a_worker_that_has_nothing_to_do_loads_no_model(
    tiny_data: Path, tmp_path: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    part(1, 2, tiny_data, tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("the model was loaded")

    with monkeypatch.context() as patched:
        patched.setattr(Doubled, "load", refuse)
        assert part(1, 2, tiny_data, tmp_path).n_made == 0
    part(2, 2, tiny_data, tmp_path)
    monkeypatch.setattr(Doubled, "load", refuse)
    assert part(2, 2, tiny_data, tmp_path).store is not None
    assert contents(tmp_path) == alone


def test_a_long_lived_worker_makes_shards_in_any_order_with_the_model_loaded_once(
    begin: Callable[..., ShardWorker],
    tmp_path: Path,
    alone: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded, load = [], Doubled.load
    monkeypatch.setattr(Doubled, "load", lambda self, *given: loaded.append(1) or load(self, *given))
    with begin() as worker:
        order = [3, 0, *range(worker.n_shards - 1, 3, -1), 1, 2]
        for shard in order:
            assert worker.finish() is None
            made = worker.make([shard])
            assert made.shards == (shard,)
            rows = len(worker.writer.spec.rows_of_shard(shard))
            assert made.n_passes == -(-rows // 3)
            assert made.seconds > 0
        assert worker.make(order).shards == ()
        store = worker.finish()
        assert store is not None and store.header.complete
    assert loaded == [1]
    assert contents(tmp_path) == alone


def test_what_another_worker_is_at_is_waited_for_and_not_made(
    begin: Callable[..., ShardWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = begin(), begin()
    assert theirs.claims.claim("1")
    waits, written = [], []
    write = StoreWriter.write_shard

    def noted(self: StoreWriter, shard: int, *rest: Any) -> None:
        written.append((self is ours.writer, shard))
        write(self, shard, *rest)

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            # As the other does: it lets go of nothing that it has not written.
            theirs.claims.release("1")
            assert theirs.make([1]).shards == (1,)

    monkeypatch.setattr(StoreWriter, "write_shard", noted)
    monkeypatch.setattr(shards.time, "sleep", wait)
    assert ours.make([0, 1, 2]).shards == (0, 2)
    assert sorted(written) == [(False, 1), (True, 0), (True, 2)]
    assert len(waits) == 3


def test_what_a_worker_had_that_is_gone_is_made(begin: Callable[..., ShardWorker]) -> None:
    worker = begin()
    gone = FileClaims(worker.writer.path / FOLDER, replace(HERE, started="1"))
    assert gone.claim("0")
    assert worker.make([0]).shards == (0,)


def test_what_was_finished_after_the_first_look_is_not_made_again(
    begin: Callable[..., ShardWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = begin(), begin()
    look = ours.writer.take

    def late(numbers: Any) -> None:
        look(numbers)
        theirs.make(numbers)

    monkeypatch.setattr(ours.writer, "take", late)
    made = ours.make([0, 1])
    assert (made.shards, made.n_passes, made.bound) == ((), 0, None)


def test_a_store_that_another_worker_finished_meanwhile_is_given(
    begin: Callable[..., ShardWorker], tmp_path: Path, alone: dict[str, bytes]
) -> None:
    ours, theirs = begin(), begin()
    ours.make(range(ours.n_shards))
    assert theirs.finish() is not None
    store = ours.finish()
    assert store is not None and store.header.complete
    for worker in (ours, theirs):
        worker.close()
    assert contents(tmp_path) == alone


def test_a_late_worker_does_not_take_the_mark_away(begin: Callable[..., ShardWorker], tmp_path: Path) -> None:
    ours = begin()
    ours.make(range(ours.n_shards))
    # It found the store unfinished, and is at its own beginning when it is finished.
    late = begin()
    assert ours.finish() is not None
    assert late.make(range(late.n_shards)).shards == ()
    assert open_features(ours.writer.path).header.complete


def test_workers_and_a_process_alone_refuse_each_other(
    begin: Callable[..., ShardWorker], tiny_data: Path, tmp_path: Path
) -> None:
    worker = begin()
    with pytest.raises(StoreError, match="is being written by another process"):
        extract(JOB, CPU, data_dir=tiny_data, cache_dir=tmp_path)
    begin().close()
    with pytest.raises(StoreError, match="is being written by another process"):
        extract(JOB, CPU, data_dir=tiny_data, cache_dir=tmp_path)
    worker.close()
    assert extract(JOB, CPU, data_dir=tiny_data, cache_dir=tmp_path).header.complete


def test_the_first_worker_fixes_the_batch(
    begin: Callable[..., ShardWorker], tiny_data: Path, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    part(1, 2, tiny_data, tmp_path)
    with pytest.raises(CallError, match=r"--batch 4: the first worker began .* with 3"):
        begin(replace(CPU, batch=4))
    with pytest.raises(CallError, match=r"--attention-kernel math: the first worker began .* with torch"):
        begin(replace(CPU, attention_kernel="math"))
    part(2, 2, tiny_data, tmp_path, machine=replace(CPU, batch=None, shard_bytes=2**20))
    assert contents(tmp_path) == alone


def test_of_two_who_begin_at_once_the_second_does_as_the_first(
    begin: Callable[..., ShardWorker], tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (early,) = prepared(tiny_data, tmp_path)  # it finds no store
    first = begin()
    monkeypatch.setattr(shards, "choose_passes", lambda *_: shards.Passes(batch=5, attention_kernel="torch"))
    unsaid = replace(CPU, batch=None)
    with ShardWorker(early, unsaid, LoadedModel(CPU.device), HERE) as second:
        assert second.pipeline.batch == 3
        assert second.n_shards == first.n_shards


def test_another_kind_of_device_is_told(
    begin: Callable[..., ShardWorker], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begin()
    with caplog.at_level(logging.WARNING):
        begin()
        assert not caplog.records
        monkeypatch.setattr(shards, "device_name", lambda device: "NVIDIA A100")
        begin()
    assert "was begun on cpu, and this worker has NVIDIA A100" in caplog.text


def test_weights_that_cannot_be_loaded_leave_nothing_behind(
    begin: Callable[..., ShardWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise WeightsError("no weights")

    monkeypatch.setattr(Doubled, "load", missing)
    with pytest.raises(WeightsError):
        begin()
    assert not list(tmp_path.glob("flyvsfly/*/*.zarr"))


def test_records_that_are_skipped_by_several_are_all_listed_and_counted_together(
    begin: Callable[..., ShardWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, broken = SequenceExampleReader.read, set[str]()

    def damaged(self: SequenceExampleReader, clip: Any, frames: Any) -> Any:
        if clip.id in broken:
            raise DataError(f"{clip.id} is no JPEG")
        return read(self, clip, frames)

    monkeypatch.setattr(SequenceExampleReader, "read", damaged)
    first, second = begin(skip_bad=True), begin(skip_bad=True)
    ids = first.pipeline.index.clips["id"].to_pylist()
    half = first.n_shards // 2
    cut = first.writer.spec.rows_of_shard(half).start
    broken |= {*ids[:2], *ids[cut : cut + 1]}
    first.make(range(half))
    second.make(range(half, second.n_shards))
    with monkeypatch.context() as patched:
        patched.setattr("featcache.extract.pipeline.MOST_SKIPPED", 2)
        patched.setattr("featcache.extract.pipeline.MOST_SKIPPED_SHARE", 0.0)
        with pytest.raises(DataError, match=rf"3 of {len(ids)} clips cannot be read, too many to skip"):
            second.finish()
        assert not open_is_complete(second)
    store = begin(skip_bad=True).finish()
    assert store is not None and store.skipped_clips == {0, 1, cut}


def open_is_complete(worker: ShardWorker) -> bool:
    try:
        open_features(worker.writer.path)
    except StoreError as problem:
        assert "is unfinished" in str(problem)
        return False
    return True


def test_a_damaged_shard_of_another_part_is_told_and_left_to_it(
    begin: Callable[..., ShardWorker],
    tiny_data: Path,
    tmp_path: Path,
    alone: dict[str, bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    done = part(1, 2, tiny_data, tmp_path)
    (first,) = done.path.glob("*/c.0.*")
    first.write_bytes(first.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        other = part(2, 2, tiny_data, tmp_path)
    assert other.store is None and other.n_missing == 1
    assert "set aside" in caplog.text
    assert part(1, 2, tiny_data, tmp_path).n_made == 1
    (aside,) = done.path.glob("*/*.damaged")
    aside.unlink()
    assert contents(tmp_path) == alone


def test_a_broken_record_ends_a_worker_that_lets_go_of_what_it_had(
    begin: Callable[..., ShardWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = begin()

    def damaged(*_: object) -> None:
        raise DataError("no JPEG")

    with monkeypatch.context() as patched:
        patched.setattr(SequenceExampleReader, "read", damaged)
        with pytest.raises(DataError):
            worker.make([0, 1, 2])
    assert not [path for path in (worker.writer.path / FOLDER).iterdir() if not path.name.startswith(".")]
    assert worker.make([0, 1, 2]).shards == (0, 1, 2)


def test_a_worker_that_fails_in_the_middle_asks_for_no_more_shards(
    begin: Callable[..., ShardWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that makes batches ahead is at its next one when a shard cannot be written."""
    worker, claimed, claim = begin(), [], FileClaims.claim

    def noted(self: FileClaims, name: str) -> bool:
        claimed.append(name)
        return claim(self, name)

    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(FileClaims, "claim", noted)
    with monkeypatch.context() as patched:
        patched.setattr(StoreWriter, "write_shard", full)
        with pytest.raises(StoreError, match="the disk is full"):
            worker.make(range(worker.n_shards))
    n_claimed = len(claimed)
    time.sleep(0.5)
    assert len(claimed) == n_claimed < worker.n_shards
    assert not [path for path in (worker.writer.path / FOLDER).iterdir() if not path.name.startswith(".")]


@pytest.mark.slow
def test_parts_in_a_bucket_are_those_on_a_disk(
    bucket: Path, tiny_data: Path, alone: dict[str, bytes]
) -> None:
    there = place(f"s3://{bucket.name}/features")
    done = [part(number, 2, tiny_data, there) for number in (2, 1)]
    assert [one.store is None for one in done] == [True, False]
    folders = {name for name, content in alone.items() if not content}
    found = contents(bucket / "features")
    assert {name: content for name, content in found.items() if content} == {
        name: content for name, content in alone.items() if name not in folders
    }
