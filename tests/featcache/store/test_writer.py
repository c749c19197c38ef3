"""Nothing that was written is lost, by whatever it was interrupted, and the end is the same to the byte."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from featcache.errors import CallError, StoreError
from featcache.spec import Layer
from featcache.store.feature_store import open_features
from featcache.store.shards import shard_bytes
from featcache.store.validation.stores import validate

ROOT = Path(__file__).resolve().parents[3]
LAYERS = (Layer(11), Layer(12, normed=True))


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file's bytes and every folder, but for the log of the runs and a lock that nobody holds any more.

    (A kill leaves its file; who finds the targets there takes no lock.)
    """
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.name not in ("runs.jsonl", ".targets.lock")
    }


# --- killed ------------------------------------------------------------------------------------------------

CALLS = ("open", "writev", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "link")
"""Of `os`: all that changes a disk."""


class Killed(BaseException):
    """Stands in for SIGKILL: from here on no call reaches the disk, so no clean-up does either."""


def tiny(example, folder: Path, **changes: Any):
    """Two shards, two layers, a skipped clip: every kind of file."""
    return example(n_clips=3, n_views=1, clips_per_shard=2, skipped={1: "broken"}, folder=folder, **changes)


def die_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the call of that number the last: nothing of it happens, or half of it where it writes."""
    count = 0

    def watched(name: str, real: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == number and name == "writev":
                whole = b"".join(map(bytes, args[1]))
                os.pwrite(args[0], whole[: len(whole) // 2], os.fstat(args[0]).st_size)
            if count >= number:
                raise Killed
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, watched(name, getattr(os, name)))


@pytest.mark.parametrize("changes", [{}, {"dtype": "int8", "layers": (Layer(1),)}], ids=["float16", "int8"])
def test_killed_before_every_call_and_resumed_is_the_undisturbed_store(
    example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    tiny(example, tmp_path / "whole", **changes).write()
    whole, killed = tree(tmp_path / "whole"), 0
    monkeypatch.setattr("featcache.system.files.is_running", lambda pid: False)  # but for us, who resume
    while True:
        folder = tmp_path / str(killed)
        made = tiny(example, folder, **changes)
        with monkeypatch.context() as patched:
            die_at(killed + 1, patched)
            try:
                made.write()
                break
            except Killed:
                killed += 1
        made.write()
        assert tree(folder) == whole, f"killed at call {killed}"
    assert killed > 120


SIGKILL = """
import importlib.util, os, random, signal, sys, time
from pathlib import Path

spec = importlib.util.spec_from_file_location("stores", sys.argv[1])
stores = importlib.util.module_from_spec(spec)
sys.modules["stores"] = stores
spec.loader.exec_module(stores)
from featcache.spec import Layer
from featcache.store.spec import FeatureSpec

FOLDER = Path(sys.argv[2])
SHAPE = FeatureSpec(grid=stores.GRID, layers=(Layer(1), Layer(2)), n_clips=3, n_views=1, clips_per_shard=2)

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def write(name):
    path = FOLDER / name / "task/train/tiny-0123abcd.zarr"
    stores.Example(path=path, spec=SHAPE, skipped={1: "broken"}).write()

def extraction(name, prepare=lambda: None):
    child = os.fork()
    if child == 0:
        try:
            os.fsync = lambda fd: None
            prepare()
            write(name)
        except BaseException as problem:
            print("failed:", repr(problem), flush=True)
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code

def tree(name):
    paths = (path for path in (FOLDER / name).rglob("*") if path.name != ".targets.lock")
    return {str(p.relative_to(FOLDER / name)): p.read_bytes() if p.is_file() else None for p in paths}

def at_call(number):
    count = 0
    def watched(real):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == number:
                die()
            return real(*args, **kwargs)
        return call
    for name in ("open", "writev", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir"):
        setattr(os, name, watched(getattr(os, name)))

def after(seconds):
    signal.signal(signal.SIGALRM, die)
    signal.setitimer(signal.ITIMER_REAL, seconds)

assert extraction("whole") == 0
whole, killed = tree("whole"), 0
# Killed while resuming what was killed, some calls further each time.
for number in (3, 8, 13):
    name = f"again and again {number}"
    while extraction(name, lambda: at_call(number)) != 0:
        killed, number = killed + 1, number + 23
    assert tree(name) == whole
# At any moment of the time that one takes, which varies: so many times that enough are killed.
random.seed(0)
began = time.monotonic()
assert extraction("timed") == 0
longest = time.monotonic() - began
trial = 0
while trial < 6 or (killed <= 20 and trial < 30):
    name = f"at random {trial}"
    for _ in range(3):
        killed += extraction(name, lambda: after(random.uniform(0.001, longest))) != 0
    assert extraction(name) == 0
    assert tree(name) == whole
    trial += 1
assert killed > 20, killed
"""


def test_sigkill_at_any_moment_and_resumed_is_the_undisturbed_store(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SIGKILL, str(ROOT / "tests/featcache/conftest.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- resumed -----------------------------------------------------------------------------------------------


def test_only_what_is_missing_is_written_again(example) -> None:
    made = example(skipped={3: "broken"})
    with made.start() as writer:
        assert writer.todo() == [0, 1, 2]
        made.write_shard(writer, 1)
        assert writer.todo() == [0, 2]
    before = made.path.joinpath("tokens_11/c.1.0.0.0.0.0").stat().st_ino
    with made.start() as writer:
        assert writer.todo() == [0, 2]
        assert writer.damaged == ()
        made.write_shard(writer, 2)
        made.write_shard(writer, 0)
        store = writer.finish()
    assert store.shard_path(Layer(11), 1).stat().st_ino == before
    assert store.provenance["skipped_clips"] == [{"clip": 3, "id": "clip-003", "reason": "broken"}]
    assert validate(made.path).ok


def test_a_shard_is_done_when_every_layer_has_it(example) -> None:
    made = example()
    with made.start() as writer:
        made.write_shard(writer, 0)
    made.path.joinpath("tokens_12_normed/c.0.0.0.0.0.0").unlink()
    with made.start() as writer:
        assert writer.todo() == [0, 1, 2]


def test_an_int8_shard_is_done_when_its_scales_are_there_and_whole(example, flip) -> None:
    made = example(dtype="int8")
    with made.start() as writer:
        for shard in writer.todo():
            made.write_shard(writer, shard)
    made.path.joinpath("scales_11/c.0.0.0.0.0").unlink()
    flip(made.path / "scales_12_normed/c.2.0.0.0.0", -10)
    with made.start() as writer:
        assert writer.todo() == [0, 2]
        assert [text.endswith("set aside as c.2.0.0.0.0.damaged") for text in writer.damaged] == [True]
        for shard in writer.todo():
            made.write_shard(writer, shard)
        writer.finish()
    assert validate(made.path).ok


def test_float16_does_not_continue_int8(example) -> None:
    made = example(dtype="int8")
    made.start().close()
    with pytest.raises(StoreError, match=r"tokens\.dtype: \"int8\" here, \"float16\" asked for"):
        example().start()


@pytest.mark.parametrize("damage", ["truncated", "empty", "longer", "index"])
def test_a_damaged_shard_is_set_aside_and_written_again(example, flip, damage: str) -> None:
    whole, made = example(folder=None or example().path.parents[2] / "whole"), example()
    whole.write()
    with made.start() as writer:
        made.write_shard(writer, 0)
        made.write_shard(writer, 1)
    path = made.path / "tokens_11/c.1.0.0.0.0.0"
    good = path.read_bytes()
    contents = {"truncated": good[:-20], "empty": b"", "longer": good[:1] + good}
    path.write_bytes(contents.get(damage, good))
    if damage == "index":
        flip(path, -10)
    bad = path.read_bytes()
    with made.start() as writer:
        assert writer.todo() == [1, 2]
        assert [
            text.startswith(str(path)) and text.endswith("set aside as c.1.0.0.0.0.0.damaged")
            for text in writer.damaged
        ] == [True]
        assert path.with_name(path.name + ".damaged").read_bytes() == bad
        made.write_shard(writer, 1)
        made.write_shard(writer, 2)
        writer.write_previews([(0, b"jpeg 0"), (6, b"jpeg 1")])
        writer.finish()
    assert validate(made.path).ok
    assert "c.1.0.0.0.0.0.damaged was set aside as damaged" in validate(made.path).notes[-1]
    path.with_name(path.name + ".damaged").unlink()
    assert tree(made.path) == tree(whole.path)


def test_a_finished_store_is_left_alone(example) -> None:
    made = example()
    made.write()
    before, inodes = tree(made.path), {p: p.stat().st_ino for p in made.path.rglob("*")}
    with made.start(provenance={"software": "2.0"}) as writer:
        assert writer.todo() == []
        writer.write_previews([(0, b"jpeg 0"), (6, b"jpeg 1")])
        assert writer.finish().complete
    assert tree(made.path) == before
    assert {p: p.stat().st_ino for p in made.path.rglob("*")} == inodes


def test_a_store_keeps_the_shards_it_was_begun_with(example) -> None:
    whole, made = example(folder=example().path.parents[2] / "whole"), example()
    whole.write()
    with made.start() as writer:
        made.write_shard(writer, 1)
    with made.start(spec=replace(made.spec, clips_per_shard=5)) as writer:
        assert writer.spec == made.spec
        assert writer.todo() == [0, 2]
        for shard in writer.todo():
            made.write_shard(writer, shard)
        writer.write_previews([(0, b"jpeg 0"), (6, b"jpeg 1")])
        writer.finish()
    assert made.start(spec=replace(made.spec, clips_per_shard=1)).todo() == []
    assert validate(made.path).ok
    (made.path / ".lock").unlink(missing_ok=True)
    assert tree(made.path) == tree(whole.path)


def test_what_is_left_is_counted_only_when_the_disk_is_full(example, monkeypatch: pytest.MonkeyPatch) -> None:
    made = example()
    with made.start() as writer:
        monkeypatch.setattr(writer, "todo", lambda: pytest.fail("all shards were looked through"))
        made.write_shard(writer, 0)


def test_a_finished_store_that_lost_a_shard_is_unfinished_until_it_is_back(example) -> None:
    made = example(skipped={2: "broken"})
    before = tree(made.write().path)
    made.path.joinpath("tokens_11/c.2.0.0.0.0.0").unlink()
    with made.start() as writer:
        assert writer.todo() == [2]
        with pytest.raises(StoreError, match="is unfinished: 2 of 3"):
            open_features(made.path)
        made.write_shard(writer, 2)
        writer.finish()
    assert tree(made.path) == before


def test_a_clip_that_can_be_read_after_all_is_not_listed_as_skipped(example) -> None:
    made = example(skipped={0: "broken", 4: "broken"})
    with made.start() as writer:
        made.write_shard(writer, 0)
        made.write_shard(writer, 1)
    made.path.joinpath("tokens_11/c.0.0.0.0.0.0").unlink()
    mended = replace(made, skipped={4: "broken"})
    with mended.start() as writer:
        assert writer.todo() == [0, 2]
        for shard in writer.todo():
            mended.write_shard(writer, shard)
        store = writer.finish()
    assert store.skipped_clips == {4}
    assert validate(made.path).ok


def test_an_absent_chunk_without_a_reason_is_not_done(example) -> None:
    made = example(skipped={1: "broken"})
    with made.start() as writer:
        made.write_shard(writer, 0)
    shutil.rmtree(made.path / "skipped")
    with made.start() as writer:
        assert writer.todo() == [0, 1, 2]


def test_the_software_of_a_later_run_is_recorded_beside_the_first(example) -> None:
    made = example()
    made.start(provenance={"software": "1.0", "notes": []}).close()
    made.start(provenance={"software": "1.1", "notes": []}).close()
    with made.start(provenance={"software": "1.1", "notes": []}) as writer:
        for shard in writer.todo():
            made.write_shard(writer, shard)
        store = writer.finish()
    assert store.provenance == {
        "software": "1.0",
        "notes": [],
        "resumed_with": [{"software": "1.1"}],
        "skipped_clips": [],
    }


def test_a_lost_clip_table_comes_back(example) -> None:
    made = example()
    good = (made.write().path / "clips.parquet").read_bytes()
    for damage in (b"", good[:100]):
        (made.path / "clips.parquet").write_bytes(damage)
        made.start().close()
        assert (made.path / "clips.parquet").read_bytes() == good


def test_finishing_early_says_what_is_missing(example) -> None:
    made = example()
    with made.start() as writer:
        made.write_shard(writer, 2)
        with pytest.raises(StoreError, match=r"has 1 of 3 shards; missing or damaged: 0, 1\. Run the same"):
            writer.finish()
    assert not open_features(made.path, allow_incomplete=True).complete


# --- refused -----------------------------------------------------------------------------------------------


def test_another_extraction_is_refused_with_what_differs(example) -> None:
    made = example()
    made.start().close()
    parts = {**made.parts, "views": {"n_views": 2, "seed": 1}}
    with pytest.raises(StoreError, match=r"views\.seed: 0 here, 1 asked for"):
        made.start(parts=parts)
    with pytest.raises(StoreError, match=r"spec\.n_views: 2 here, 1 asked for"):
        made.start(spec=replace(made.spec, n_views=1))
    with pytest.raises(CallError, match="a store of 6 clips was asked for, the index has 7"):
        made.start(spec=replace(made.spec, n_clips=6))
    made.start().close()


def test_what_is_not_a_store_is_not_written_into(example) -> None:
    made = example()
    made.write_targets()
    made.path.mkdir()
    (made.path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(StoreError, match=r"is not a feature store \(it has holiday\.jpg\): move it away"):
        made.start()
    assert [path.name for path in made.path.iterdir()] == ["holiday.jpg"]
    shutil.rmtree(made.path)
    made.path.write_bytes(b"a file")
    with pytest.raises(StoreError, match="is not a feature store"):
        made.start()


def test_missing_targets_are_refused_before_anything_is_made(example) -> None:
    made = example()
    with pytest.raises(StoreError, match=r"targets-none\.zarr are missing"):
        made.start(attrs={"targets": "targets-none.zarr"})
    assert not made.path.exists()


def test_a_second_writer_is_refused(example) -> None:
    made = example()
    with made.start() as writer:
        with pytest.raises(StoreError, match="is being written by another process: wait for it"):
            made.start()
        child = os.fork()
        if child == 0:
            try:
                made.start()
            except StoreError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        made.write_shard(writer, 0)
    with made.start() as writer:
        assert writer.todo() == [1, 2]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, np.inf, -70000.0, 65510.0])
def test_a_value_that_does_not_fit_is_named_and_costs_only_its_shard(
    example, value: float, dtype: type
) -> None:
    if dtype == np.float16 and abs(value) > 65504:
        value = np.inf
    made = example()
    with made.start() as writer:
        made.write_shard(writer, 0)
        rows = made.spec.rows_of_shard(1)
        tokens = {layer: made.tokens(layer)[rows.start : rows.stop].astype(dtype) for layer in LAYERS}
        tokens[LAYERS[1]][2, 1, 0, 2, 1, 4] = value
        with pytest.raises(StoreError) as problem:
            writer.write_shard(1, tokens)
        text = str(problem.value)
        assert f"clip 5 (clip-005), view 1, layer 12_normed: the value {float(dtype(value))} at" in text
        assert "(step, row, column, channel) (0, 2, 1, 4) does not fit float16, which ends at 65504" in text
        assert "--layers" in text
        assert writer.todo() == [1, 2]
        # Neither layer has the shard, nor a part of it.
        assert list(made.path.rglob("*c.1.*")) == []
        # The clip may be skipped instead; what its rows hold is not looked at.
        writer.write_shard(1, tokens, {5: "overflows"})
        made.write_shard(writer, 2)
        assert writer.finish().skipped_clips == {5}


def test_float16_and_float32_of_any_layout_are_stored_alike(example) -> None:
    trees = []
    for name, dtype, order in (
        ("a", np.float32, "C"),
        ("b", np.float16, "C"),
        ("c", np.float32, "F"),
        ("d", np.float16, "F"),
    ):
        made = example(folder=example().path.parents[2] / name)
        with made.start() as writer:
            for shard in writer.todo():
                rows = made.spec.rows_of_shard(shard)
                tokens = {
                    layer: np.asarray(made.tokens(layer)[rows.start : rows.stop], dtype=dtype, order=order)
                    for layer in LAYERS
                }
                writer.write_shard(shard, tokens)
            writer.finish()
        trees.append(tree(made.path))
    assert trees[0] == trees[1] == trees[2] == trees[3]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda tokens: tokens.pop(LAYERS[0]), r"came with layers \['12_normed'\]"),
        (lambda tokens: tokens.update({layer: tokens[layer][:2] for layer in LAYERS}), r"\[2, 2, 2"),
        (lambda tokens: tokens.update({LAYERS[1]: tokens[LAYERS[1]].astype(np.float64)}), "float64"),
    ],
)  # fmt: skip
def test_tokens_that_are_not_the_stores_are_refused(example, change: Callable, why: str) -> None:
    made = example()
    with made.start() as writer:
        tokens = {layer: made.tokens(layer)[:3] for layer in LAYERS}
        change(tokens)
        with pytest.raises(CallError, match=why):
            writer.write_shard(0, tokens)
        good = {layer: made.tokens(layer)[:3] for layer in LAYERS}
        with pytest.raises(CallError, match="has no shard 3: there are 3"):
            writer.write_shard(3, good)
        with pytest.raises(CallError, match=r"skipped \[3\]: shard 0 has 0 to 2"):
            writer.write_shard(0, good, {3: "of another shard"})
        assert writer.todo() == [0, 1, 2]


def test_a_full_disk_loses_nothing(example, monkeypatch: pytest.MonkeyPatch) -> None:
    made = example()
    with made.start() as writer:
        made.write_shard(writer, 0)
        real, written = os.writev, 0

        def writev(fd: int, pieces: list) -> int:
            nonlocal written
            if written > 300:
                raise OSError(errno.ENOSPC, "No space left on device")
            moved = real(fd, pieces)
            written += moved
            return moved

        with monkeypatch.context() as full:
            full.setattr(os, "writev", writev)
            needed = 2 * shard_bytes(made.spec, 6)
            left = needed + 2 * shard_bytes(made.spec, 2)
            with pytest.raises(
                StoreError, match=f"is full: .* {needed:,} are needed now and {left:,} to the end"
            ):
                made.write_shard(writer, 1)
        assert not list(made.path.rglob("*.partial"))
        assert writer.todo() == [1, 2]
        for shard in writer.todo():
            made.write_shard(writer, shard)
        assert writer.finish().complete


def test_the_order_of_a_shards_publication(example, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reason, then every layer's bytes, then the names: nothing has its name before its bytes are durable."""
    made = example(skipped={1: "broken"})
    with made.start() as writer:
        calls: list[tuple[str, str]] = []
        for name in ("fsync", "replace"):
            real = getattr(os, name)

            def spy(*args: object, real: Callable = real, name: str = name) -> object:
                what = Path(f"/proc/self/fd/{args[0]}").readlink() if isinstance(args[0], int) else args[1]
                calls.append(
                    (name, str(Path(what).relative_to(made.path.parent)).removeprefix(made.path.name + "/"))
                )
                return real(*args)

            monkeypatch.setattr(os, name, spy)
        made.write_shard(writer, 0)
    names = [(name, what) for name, what in calls if name == "replace"]
    assert names == [
        ("replace", "skipped/0.json"),
        ("replace", "tokens_11/c.0.0.0.0.0.0"),
        ("replace", "tokens_12_normed/c.0.0.0.0.0.0"),
    ]
    for layer in ("tokens_11", "tokens_12_normed"):
        at = calls.index(("replace", f"{layer}/c.0.0.0.0.0.0"))
        assert calls[at - 1][0] == "fsync" and calls[at - 1][1].startswith(f"{layer}/.c.0.")
        assert calls[at + 1] == ("fsync", layer)


def test_runs_are_logged_outside_of_all_digests(example) -> None:
    made = example()
    before = tree(made.write().path)
    with made.start() as writer:
        writer.log_run(clips=7, seconds=1.5, device="cpu")
        writer.log_run(clips=0, seconds=0.1, device="cpu")
    lines = [json.loads(line) for line in (made.path / "runs.jsonl").read_text().splitlines()]
    assert [line["clips"] for line in lines] == [7, 0]
    assert tree(made.path) == before


def test_previews_may_be_none(example) -> None:
    made = example()
    with made.start() as writer:
        writer.write_previews([])
        writer.write_previews([(5, b"five"), (2, b"two")])
    assert list(open_features(made.path, allow_incomplete=True).previews().items()) == [
        (2, b"two"),
        (5, b"five"),
    ]


def test_the_lock_goes_with_the_writer(example) -> None:
    made = example()
    writer = made.start()
    assert (made.path / ".lock").exists()
    writer.close()
    writer.close()
    assert not (made.path / ".lock").exists()


def test_the_clip_table_says_where_a_clip_is_unless_frames_are_stored(example) -> None:
    table = pq.read_table(example().write().path / "clips.parquet")
    assert table["shard"].to_pylist() == [0, 0, 0, 1, 1, 1, 2]
    assert table["position"].to_pylist() == [0, 1, 2, 0, 1, 2, 0]
