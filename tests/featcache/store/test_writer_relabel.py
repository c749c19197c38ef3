"""Labels and attributes of a store change without its features: whole, or as before, at every moment."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.clips import Clip, ClipIndex
from featcache.errors import StoreError
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore, open_features
from featcache.store.validation.stores import validate
from featcache.store.writer import StoreWriter, write_targets

ATTRS = {"task": "t", "backbone": "tiny", "readout_steps": 7}


def relabelled(index: ClipIndex) -> ClipIndex:
    clips: list[Clip] = [index.clip(i) for i in range(len(index))]
    return ClipIndex.from_clips([replace(clips[0], labels=(4, 1)), *clips[1:]])


def start_relabelled(made) -> StoreWriter:
    """Clip 0 has another class and a new one, and an attribute was corrected."""
    clips = relabelled(made.clips)
    labels = np.eye(5, dtype=np.uint8)[np.arange(len(clips)) % 4]
    labels[0] = [0, 1, 0, 0, 1]
    targets = write_targets(made.path.parent, clips, {"labels": labels}, {"classes": list("abcde")})
    return made.start(clips=clips, attrs={**ATTRS, "targets": targets.name})


def assert_relabelled(store: FeatureStore) -> None:
    assert store.complete
    assert store.clips["labels"].to_pylist()[:2] == [[4, 1], [1]]
    assert store.targets.read("labels")[0].tolist() == [0, 1, 0, 0, 1]
    assert store.attrs == ATTRS
    assert validate(store.path).problems == ()


def shards(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_ino, path.read_bytes()) for path in folder.rglob("c.*.0.0.0.0.0")}


def test_a_complete_store_takes_corrected_labels_and_stays_complete(example) -> None:
    made = example(skipped={4: "broken"})
    before = made.write()
    files = shards(made.path)
    with start_relabelled(made) as writer:
        assert writer.todo() == []
        assert_relabelled(open_features(made.path))
        assert_relabelled(writer.finish())
    assert shards(made.path) == files
    assert len(files) == 6
    after = open_features(made.path, fingerprint=before.fingerprint)
    assert after.skipped_clips == {4}
    assert after.provenance == before.provenance
    # And back: whoever asks last is right.
    made.start().close()
    assert open_features(made.path).header == before.header


def test_an_unfinished_store_takes_them_as_well(example) -> None:
    made = example()
    with made.start() as writer:
        made.write_shard(writer, 1)
    with start_relabelled(made) as writer:
        assert writer.todo() == [0, 2]
        for shard in writer.todo():
            made.write_shard(writer, shard)
        assert_relabelled(writer.finish())


def test_other_frames_are_another_store_even_if_the_parts_do_not_say_so(example) -> None:
    made = example()
    made.write()
    clips = [made.clips.clip(i) for i in range(7)]
    moved = ClipIndex.from_clips([replace(clips[0], record=9), *clips[1:]])
    with pytest.raises(StoreError, match=r"frames: .* here, .* asked for"):
        made.start(clips=moved)


class Killed(BaseException):
    """Stands in for SIGKILL: no call reaches the disk after it."""


def die_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def watched(real: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count >= number:
                raise Killed
            return real(*args, **kwargs)

        return call

    for name in ("open", "writev", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "link"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))


def test_killed_before_every_call_it_is_complete_and_the_next_run_mends_it(
    example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, shown = 0, 0
    monkeypatch.setattr("featcache.system.files.is_running", lambda pid: False)  # but for us, who resume
    while True:
        made = example(
            n_clips=3, n_views=1, clips_per_shard=2, layers=(Layer(1),), folder=tmp_path / str(killed)
        )
        before = made.write()
        with monkeypatch.context() as patched:
            die_at(killed + 1, patched)
            try:
                start_relabelled(made).close()
                break
            except Killed:
                killed += 1
        # The header is the last to change: it never promises labels that are not there.
        try:
            now = open_features(made.path)
            if now.header != before.header:
                assert_relabelled(now)
        except StoreError as problem:
            shown += 1
            assert "clips.parquet is not the clip table that this store was written with" in str(problem)
        start_relabelled(made).close()
        assert_relabelled(open_features(made.path))
        assert not list(made.path.rglob("*.partial"))
    assert killed > 20
    assert shown >= 1
