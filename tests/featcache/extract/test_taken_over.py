"""One more clip in a list is one clip for the model; what is copied is what it was."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.backbones import load_backbone
from featcache.backbones.base import resolve_layers
from featcache.data.labels.base import Choices
from featcache.data.own_videos import Wishes, set_up
from featcache.data.readers.video.reader import VideoFileReader
from featcache.errors import StoreError
from featcache.extract.job import plan_extraction
from featcache.extract.run import Machine
from featcache.manifest import load_manifest
from featcache.store.feature_store import FeatureStore
from tests.featcache.one_split import extract
from tests.own_recordings import write_lab

SMALL = Machine(device=torch.device("cpu"), batch=2, shard_bytes=2**17)
"""Shards of five clips."""


class Lab:
    """Videos with lists of clips that one edits, and how often the model was given a clip."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, wishes: Wishes) -> None:
        self.root, self.read, self.said = root, list[str](), list[str]()
        self.frames = list[tuple[str, list[int]]]()
        write_lab(root / "mice", n_videos=3, n_frames=160)
        self.manifest = set_up(root / "mice", [], Choices(), wishes).manifest
        read = VideoFileReader.read

        def counted(reader: VideoFileReader, clip: Any, frames: Any) -> Any:
            self.read.append(clip.id)
            self.frames.append((clip.id, list(frames)))
            return read(reader, clip, frames)

        monkeypatch.setattr(VideoFileReader, "read", counted)

    @property
    def list(self) -> Path:
        return self.root / "mice/clip_lists/train.csv"

    def insert(self, row: int, *cells: object) -> str:
        rows = list(csv.reader(self.list.read_text().splitlines()))
        video = rows[1][0]
        rows.insert(row, [video, *map(str, cells)])
        self.list.write_text("\n".join(",".join(cells) for cells in rows) + "\n")
        return f"{video}/{cells[0]}"

    def extract(self, cache: str = "features", *, model: Any = None, **options: Any) -> FeatureStore:
        model = model or load_backbone("resize")
        job = plan_extraction(
            load_manifest(self.manifest), task="mice", role="train", backbone=model,
            layers=resolve_layers("default", model.info), n_views=1, seed=0, dtype=torch.float32, **options,
        )  # fmt: skip
        for seen in (self.read, self.said, self.frames):
            seen.clear()
        where = {"data_dir": self.root / "mice", "cache_dir": self.root / cache}
        return extract(job, SMALL, **where, say=self.said.append)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch, Wishes())


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("row", [1, 4, 8])
def test_one_clip_more_is_one_clip(lab: Lab, row: int, dtype: str) -> None:
    before = lab.extract(store_dtype=dtype)
    assert len(lab.read) >= before.spec.n_clips > 8
    clip = lab.insert(row, 5, "dig")
    after = lab.extract(store_dtype=dtype)
    assert after.spec.n_clips == before.spec.n_clips + 1
    assert set(lab.read) - {clip} <= set(previewed(after)), "the others for their pictures alone"
    anew = lab.extract("elsewhere", store_dtype=dtype)
    same_files(after, anew)
    assert after.fingerprint == anew.fingerprint


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("row", [1, 4])
def test_of_windows_that_share_frames_the_new_frames_alone_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int, dtype: str
) -> None:
    lab = Lab(tmp_path, monkeypatch, Wishes(n_frames=16, stride=1, every=4))
    # `resize` sees each frame by itself, though it does not say so.
    model: Any = load_backbone("resize")
    model = replace(model, info=replace(model.info, frame_level=True))
    lab.list.write_text("".join(lab.list.read_text().splitlines(keepends=True)[:30]))
    last = int(lab.list.read_text().splitlines()[-1].split(",")[1])
    before = lab.extract(model=model, store_dtype=dtype)
    assert before.spec.n_frames == last + 16
    # Half of its frames are of others too.
    clip = lab.insert(row, last + 8, "dig")
    after = lab.extract(model=model, store_dtype=dtype)
    assert after.spec.n_frames == before.spec.n_frames + 8
    assert (clip, list(range(8, 16))) in lab.frames
    assert set(lab.read) - {clip} <= set(previewed(after)), "the others for their pictures alone"
    assert f"{before.spec.n_frames} frames are taken over from {before.path.name}" in lab.said[0]
    same_files(after, lab.extract("elsewhere", model=model, store_dtype=dtype))


def same_files(one: FeatureStore, other: FeatureStore) -> None:
    """All that is stored of tokens, byte for byte."""
    shards = [sorted(store.path.glob("[ts][oc]*/c*")) for store in (one, other)]
    assert len(shards[0]) > 1
    for ours, theirs in zip(*shards, strict=True):
        assert ours.relative_to(one.path) == theirs.relative_to(other.path)
        assert ours.read_bytes() == theirs.read_bytes()


def previewed(store: FeatureStore) -> list[str]:
    return [store.clip_table.id(number) for number in store.previews()]


def test_a_shorter_list_needs_no_model(lab: Lab) -> None:
    lab.extract()
    rows = lab.list.read_text().splitlines()
    lab.list.write_text("\n".join(rows[:3] + rows[5:]) + "\n")
    after = lab.extract()
    assert set(lab.read) <= set(previewed(after))
    anew = lab.extract("elsewhere")
    np.testing.assert_array_equal(after.read([0, 1, 2, 5]), anew.read([0, 1, 2, 5]))


def test_what_was_made_otherwise_is_not_taken(lab: Lab) -> None:
    lab.extract()
    lab.insert(2, 5, "dig")
    text = lab.manifest.read_text()
    lab.manifest.write_text(text.replace("height: 224", "height: 112"))
    after = lab.extract()
    assert len(set(lab.read)) == after.spec.n_clips


def test_of_an_unfinished_store_nothing_is_taken(lab: Lab) -> None:
    store = lab.extract()
    header = (store.path / "zarr.json").read_bytes()
    (store.path / "zarr.json").write_bytes(header.replace(b'"complete": true', b'"complete": false'))
    lab.insert(2, 5, "dig")
    after = lab.extract()
    assert len(set(lab.read)) == after.spec.n_clips


def test_a_damaged_one_is_named_with_the_way_out(lab: Lab) -> None:
    store = lab.extract()
    shard = max(store.path.glob("tokens_*/c*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    lab.insert(2, 5, "dig")
    with pytest.raises(StoreError, match=rf"were to be taken over: move {store.path} away"):
        lab.extract()
    shutil.rmtree(store.path)
    assert lab.extract().complete


def test_another_video_of_the_same_name_is_read(lab: Lab) -> None:
    lab.extract()
    video = lab.list.read_text().splitlines()[1].split(",")[0]
    other = next(path for path in sorted((lab.root / "mice").glob("*.mp4")) if path.name != video)
    shutil.copy2(other, lab.root / "mice" / video)
    after = lab.extract()
    assert {clip for clip in lab.read if clip.startswith(video)} == {
        after.clip_table.id(i) for i in range(after.spec.n_clips) if after.clip_table.id(i).startswith(video)
    }
