"""Every kind of damage is found and named; a good store has none."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from featcache.store.shards import write_chunks
from featcache.store.validation import stores as validate_module
from featcache.store.validation.stores import Report, validate
from featcache.system.sealed import parquet_sealed
from tests.featcache.store.small_header import forge, redigest

LAYER = Layer(12, normed=True)


@pytest.fixture
def made(example):
    made = example(skipped={4: "broken JPEG"})
    made.write()
    return made


def only(report: Report) -> str:
    (problem,) = report.problems
    return problem


def test_a_good_store_has_no_problems(made) -> None:
    calls: list[tuple[int, int]] = []
    report = validate(made.path, lambda done, total: calls.append((done, total)))
    assert report.problems == ()
    assert report.ok
    assert report.notes == ("clip 4 (clip-004) was skipped: broken JPEG",)
    assert calls == [(done, 6) for done in range(1, 7)]
    # 2 layers x 6 of 7 clips x 2 views, each of 60 float16 and a checksum, at multiples of 4,096 bytes; and 6
    # tails for 6 chunks: sums, index and a checksum of either.
    assert (report.n_shards, report.n_chunks) == (6, 24)
    assert report.n_bytes == 24 * 4096 + 6 * (6 * 4 + 4 + 6 * 16 + 4)


def test_one_flipped_bit_anywhere_is_named(example, flip) -> None:
    made = example(n_clips=5, clips_per_shard=2, layers=(LAYER,), skipped={2: "broken"})
    path = made.write().shard_path(LAYER, 1)  # clips 2 (absent) and 3, two views: two chunks
    good, chunk, n = path.read_bytes(), 4096, made.spec.grid.nbytes + 4
    sums = 2 * chunk + 4 * 4 + 4
    spots = (*range(0, n, 23), n - 1, *range(chunk, chunk + n, 23), chunk + n - 1)
    for byte in (*spots, *range(2 * chunk, len(good), 3)):
        flip(path, byte)
        problem = only(validate(made.path))
        hit = byte // chunk
        if hit < 2:
            what = f"fails the checksum of the chunk at byte {hit * chunk}: clip 3 (clip-003), view {hit}."
        else:
            of = "chunks' checksums" if byte < sums else "index"
            what = (
                f"fails the checksum of its {of}: none of clip 2 (clip-002) to clip 3 (clip-003) can be read."
            )
        assert problem == f"layer 12_normed, {path} {what}"
        path.write_bytes(good)


def test_damage_has_a_way_out(example, flip) -> None:
    made = example()
    path = made.write().shard_path(LAYER, 1)
    assert validate(made.path).way_out is None
    good = path.read_bytes()
    flip(path, 3)
    assert validate(made.path).damaged == (path,)
    assert validate(made.path).way_out.startswith(f"rm {path}\n")
    path.unlink()
    with made.start() as writer:
        assert writer.todo() == [1]
        made.write_shard(writer, 1)
        writer.finish()
    assert path.read_bytes() == good
    assert validate(made.path).ok


def test_all_damage_is_listed_not_the_first(made, flip) -> None:
    store = made.path
    flip(store / "tokens_11/c.0.0.0.0.0.0", 0)
    flip(store / "tokens_11/c.0.0.0.0.0.0", 5 * 4096)
    flip(store / "tokens_12_normed/c.2.0.0.0.0.0", 10)
    problems = validate(store).problems
    assert [("clip 0" in p, "clip 2" in p, "clip 6" in p) for p in problems] == [
        (True, False, False), (False, True, False), (False, False, True),
    ]  # fmt: skip
    assert validate(store).n_chunks == 21


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda path: path.unlink(), "is missing"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1]),
            "fails the checksum of its chunks' checksums",
        ),
        (lambda path: path.write_bytes(b""), "is truncated: 0 bytes"),
        (
            lambda path: path.write_bytes(b"\0" + path.read_bytes()),
            "has 16513 bytes where its index describes",
        ),
    ],
)
def test_missing_and_truncated_shards(made, change: Callable, what: str) -> None:
    path = made.path / "tokens_12_normed/c.1.0.0.0.0.0"
    change(path)
    problem = only(validate(made.path))
    assert problem.startswith(f"layer 12_normed, {path} {what}")


def rewrite(made, shard: int, tokens: np.ndarray, absent: set[tuple[int, int]]) -> Path:
    """Replace a shard by a sound one with other content."""
    path = made.path / f"tokens_12_normed/c.{shard}.0.0.0.0.0"
    first = made.spec.rows_of_shard(shard).start
    chunks = (
        None if (first + row, view) in absent else (tokens[row, view],)
        for row in range(len(tokens))
        for view in range(made.spec.n_views)
    )
    with path.open("wb") as file:
        write_chunks([file.fileno()], chunks, made.spec.arrays(LAYER))
    assert any("is not the shard that this store" in problem for problem in validate(made.path).problems)
    redigest(made.path)
    return path


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(made, value: float) -> None:
    tokens = made.tokens(LAYER)[0:3]
    tokens[1, 1, 0, 0, 0, 0] = value
    path = rewrite(made, 0, tokens, absent=set())
    assert (
        only(validate(made.path))
        == f"layer 12_normed, {path} holds NaN or infinity: clip 1 (clip-001), view 1."
    )


def test_skipped_clips_must_be_absent_and_absent_clips_skipped(made) -> None:
    tokens = np.nan_to_num(made.tokens(LAYER)[3:6])
    path = rewrite(made, 1, tokens, absent={(4, 0), (5, 1)})
    assert validate(made.path).problems == (
        f"layer 12_normed, {path} holds a chunk of a clip listed as skipped: clip 4 (clip-004), view 1.",
        f"layer 12_normed, {path} lacks a chunk without a reason: clip 5 (clip-005), view 1.",
    )


def test_an_unfinished_store_says_how_far_it_is(example, flip) -> None:
    made = example(skipped={4: "broken"})
    with made.start() as writer:
        made.write_shard(writer, 1)
        made.write_shard(writer, 2)
    assert only(validate(made.path)) == (
        f"{made.path} is unfinished: 2 of 3 shards are there. "
        "Run the same `scivid extract` again: it goes on where it stopped."
    )
    flip(made.path / "tokens_11/c.2.0.0.0.0.0", 3)
    assert "clip 6 (clip-006), view 0" in validate(made.path).problems[1]


def test_what_the_scan_had_to_say_is_noted(example) -> None:
    made = example(n_clips=2, clips_per_shard=2, layers=(LAYER,))
    bad = {"id": "00000/7", "source": "val-0", "record": 7, "reason": "a broken JPEG"}
    with made.start(provenance={"skipped_records": [bad], "notes": ["labels count [1]"]}) as writer:
        made.write_shard(writer, 0)
        writer.finish()
    assert validate(made.path).notes == (
        "record 7 of val-0 was skipped by the scan: a broken JPEG",
        "labels count [1]",
    )


def test_it_stops_when_it_is_interrupted(example, monkeypatch: pytest.MonkeyPatch) -> None:
    made = example(n_clips=40, clips_per_shard=1, layers=(LAYER,))
    made.write()
    looked_at: list[int] = []
    interrupted = Event()

    def audit(store: FeatureStore, layer: Layer, shard: int) -> object:
        looked_at.append(shard)
        if shard:
            interrupted.wait(10)
        return real(store, layer, shard)

    def progress(done: int, total: int) -> None:
        raise KeyboardInterrupt

    real = validate_module._audit
    monkeypatch.setattr(validate_module, "_audit", audit)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        validate(made.path, progress, threads=2)
    assert time.monotonic() - started < 5
    interrupted.set()
    time.sleep(0.1)
    assert len(looked_at) <= 3


def test_what_is_not_a_store_is_one_problem(tmp_path: Path) -> None:
    assert "is not there" in only(validate(tmp_path / "none"))
    assert "is not a feature store" in only(validate(tmp_path))


def test_the_fingerprint_is_computed_again(made) -> None:
    forge(made.path / "zarr.json", lambda d: d["attributes"]["scivid"]["parts"]["views"].update(seed=9))
    assert "zarr.json was edited: its parts have the fingerprint" in only(validate(made.path))


def test_metadata_that_would_mislead_other_clients(made) -> None:
    path = made.path / "tokens_11/zarr.json"
    good = path.read_bytes()
    forge(path, lambda document: document.update(shape=[8, 2, 2, 3, 2, 5], fill_value=0.0))
    assert only(validate(made.path)) == (f"{path} was edited: fill_value, shape do not describe this store.")
    path.unlink()
    assert f"{path} cannot be read" in only(validate(made.path))
    for other in (b"[]", b"null", b'"text"', b'{"a":' * 5000):
        path.write_bytes(other)
        assert f"{path} cannot be read: it is n" in only(validate(made.path))
    path.write_bytes(good)
    arrays = lambda document: document["consolidated_metadata"]["metadata"]  # noqa: E731
    forge(made.path / "zarr.json", lambda document: arrays(document)["tokens_11"].update(shape=[1]))
    assert "inline metadata do not describe this store" in only(validate(made.path))


def test_the_clip_table_is_that_of_the_fingerprint(made) -> None:
    path = made.path / "clips.parquet"
    good = path.read_bytes()
    table = pq.read_table(path)

    def with_seal(table: pa.Table) -> None:
        metadata = {b"clips_digest": table.schema.metadata[b"clips_digest"]}
        path.write_bytes(parquet_sealed(table.replace_schema_metadata(metadata)))

    pq.write_table(table.slice(0, 6).replace_schema_metadata(None), path)
    assert f"{path} is not the clip table that this store was written with: 6 rows" in only(
        validate(made.path)
    )
    path.write_bytes(good[:1000] + bytes([good[1000] ^ 1]) + good[1001:])
    assert f"{path} cannot be read as the clip table: was changed" in only(validate(made.path))
    # Forged, by one who knows about seals.
    ids = [*table["id"].to_pylist()[:-1], "another"]
    with_seal(table.set_column(0, "id", pa.array(ids)))
    assert f"{path} was edited: its rows have the digest" in only(validate(made.path))
    moved = pa.array([0, 1, 2, 0, 2, 1, 0], pa.int32())
    with_seal(table.set_column(7, "position", moved))
    assert only(validate(made.path)) == (
        f"{path} puts clip 4 (clip-004) in another shard or position than the one it is in."
    )
    path.write_bytes(b"PAR1")
    assert f"{path} cannot be read as the clip table" in only(validate(made.path))


def test_a_broken_clip_table_still_leaves_clip_numbers(made, flip) -> None:
    (made.path / "clips.parquet").unlink()
    flip(made.path / "tokens_11/c.0.0.0.0.0.0", 0)
    assert validate(made.path).problems[1].endswith("checksum of the chunk at byte 0: clip 0, view 0.")


def test_targets_belong_to_the_store(made, flip) -> None:
    (targets,) = made.path.parent.glob("targets-*.zarr")
    flip(targets / "labels/c.0.0", 2)
    assert "labels/c.0.0 fails the checksum" in only(validate(made.path))
    targets.rename(targets.with_name("elsewhere"))
    assert f"the targets {made.path / '..' / targets.name} are missing" in only(validate(made.path))


def test_magnitudes_near_the_end_of_float16_are_noted(example) -> None:
    made = example(n_clips=2, clips_per_shard=2, layers=(LAYER,))
    store = made.write()
    assert validate(store.path).notes == ()
    tokens = made.tokens(LAYER).astype(np.float32)
    tokens[1, 0, 0, 0, 0, 0] = 40_000.0
    shutil.rmtree(store.path)
    with made.start() as writer:
        writer.write_shard(0, {LAYER: tokens})
        writer.finish()
    (note,) = validate(store.path).notes
    assert note == f"layer {LAYER.name}: largest magnitude 40000, float16 ends at 65504."


def test_an_int8_store_is_checked_with_its_scales(example, flip: Callable) -> None:
    made = example(dtype="int8", skipped={4: "broken"})
    made.write()
    report = validate(made.path)
    assert report.ok
    assert report.n_shards == 2 * 2 * 3
    assert report.n_chunks == 2 * 2 * 6 * 2
    path = made.path / "scales_12_normed/c.0.0.0.0.0"
    flip(path, 2)
    assert only(validate(made.path)).startswith(f"layer 12_normed, {path} fails the checksum of the chunk")


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 600.0])
def test_scales_that_cannot_be(example, value: float) -> None:
    made = example(dtype="int8")
    made.write()
    array = made.spec.arrays(LAYER)[1]
    scales = np.full((6, *array.of_a_chunk), 0.25, np.float32)
    scales[3, 0, 0, 0] = value
    path = made.path / "scales_12_normed/c.0.0.0.0.0"
    with path.open("wb") as file:
        write_chunks([file.fileno()], ((chunk,) for chunk in scales), [array])
    redigest(made.path)
    what = "holds a scale that is negative, not finite or beyond float16"
    assert only(validate(made.path)) == f"layer 12_normed, {path} {what}: clip 1 (clip-001), view 1."
