"""What is known, and refused, before the first extraction begins."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from featcache.backbones import load_backbone
from featcache.clips import Clip, ClipIndex
from featcache.errors import DataError, StoreError
from featcache.extract.job import Extraction, plan_extraction
from featcache.extract.prepare import Prepared, _refuse_uncuttable, prepare
from featcache.extract.run import Machine, extract_all
from featcache.manifest import load_manifest
from featcache.store.feature_store import find_stores
from featcache.store.writer import StoreWriter
from featcache.system.console import silent
from tests.featcache.one_split import extract

CPU = Machine(device=torch.device("cpu"), batch=4, shard_bytes=8 * 24_576)


def job(role: str, task: str = "flyvsfly") -> Extraction:
    backbone = load_backbone("resize")
    return plan_extraction(
        load_manifest(), task=task, role=role, backbone=backbone, layers=backbone.info.default_layers,
        n_views=1, seed=0, dtype=torch.float32,
    )  # fmt: skip


def left(tiny_data: Path, cache_dir: Path, *roles: str) -> list[int]:
    jobs = [job(role) for role in roles]
    found = prepare(
        jobs, data_dir=tiny_data, cache_dir=cache_dir, shard_bytes=CPU.shard_bytes, skip_bad=False,
        progress=silent,
    )  # fmt: skip
    return [one.bytes_to_write() for one in found]


def test_the_disk_must_hold_all_splits_before_the_first_begins(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = left(tiny_data, tmp_path, "val", "test")
    disk = SimpleNamespace(free=sum(needed) - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: disk)
    jobs = [job("val"), job("test")]
    message = (
        rf"resize on flyvsfly/val, flyvsfly/test needs {sum(needed):,} bytes .*--cache-dir.*--layers.*--force"
    )
    with pytest.raises(StoreError, match=message):
        list(extract_all(jobs, CPU, data_dir=tiny_data, cache_dir=tmp_path))
    assert not find_stores(tmp_path)
    disk.free += 1
    assert len(list(extract_all(jobs, CPU, data_dir=tiny_data, cache_dir=tmp_path))) == 2
    disk.free = 0
    assert left(tiny_data, tmp_path, "val", "test") == [0, 0]
    assert len(list(extract_all(jobs, CPU, data_dir=tiny_data, cache_dir=tmp_path))) == 2


def test_what_is_on_disk_is_not_needed_again(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = left(tiny_data, tmp_path, "val")
    write, written = StoreWriter.write_shard, []

    def killed(self: StoreWriter, shard: int, *rest: object) -> None:
        if shard == 1:
            raise KeyboardInterrupt
        write(self, shard, *rest)  # type: ignore[arg-type]
        written.append(shard)

    # A second writer may have the third shard on disk before the kill is seen.
    monkeypatch.setattr("featcache.extract.write_behind.WRITERS", 1)
    monkeypatch.setattr(StoreWriter, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        extract(job("val"), CPU, data_dir=tiny_data, cache_dir=tmp_path)
    assert written == [0]
    (rest,) = left(tiny_data, tmp_path, "val")
    # 8 of 18 clips, and the targets, are there.
    assert rest / whole == pytest.approx(10 / 18, rel=0.01)


def test_a_clip_with_too_few_frames_is_named() -> None:
    index = ClipIndex.from_clips(
        Clip(id=str(n), source="a.record", record=n, n_source=frames, digest="0" * 16)
        for n, frames in enumerate((24, 15, 24))
    )
    with pytest.raises(DataError, match=r"a\.record, record 1: 15 frames have 0 windows of 16"):
        _refuse_uncuttable(job("train", "stir"), index)


OWN = """
datasets:
  cages:
    {title: Cages, source: lab, licence: none, citation: none, version: "1", reader: video_file,
     classes: [rest, dig], splits: {train: {files: "*.gif", clips: train.csv},
     val: {files: "*.gif", clips: val.csv}}}
tasks:
  cages: {title: What, kind: classification, splits: {train: cages/train, val: cages/val}}
"""


def own_clips(folder: Path, train: str, val: str) -> list[Prepared]:
    """A video of 20 frames, and clips that begin at the given frames of it."""
    frames = [Image.new("L", (32, 32), 12 * k) for k in range(20)]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:], duration=40)
    for name, starts in (("train", train), ("val", val)):
        rows = "".join(f"a.gif,{start},rest\n" for start in starts.split())
        (folder / f"{name}.csv").write_text(f"video,first_frame,labels\n{rows}")
    (folder / "own.yaml").write_text(OWN)
    manifest, backbone = load_manifest(folder / "own.yaml"), load_backbone("resize")
    jobs = [
        plan_extraction(
            manifest, task="cages", role=role, backbone=backbone, layers=backbone.info.default_layers,
            n_views=1, seed=0, dtype=torch.float32,
        )
        for role in ("train", "val")
    ]  # fmt: skip
    return prepare(
        jobs,
        data_dir=folder,
        cache_dir=folder / "features",
        shard_bytes=2**20,
        skip_bad=False,
        progress=silent,
    )


def test_clips_that_run_past_the_end_are_noted(tmp_path: Path) -> None:
    train, val = own_clips(tmp_path, train="0 4", val="5 19")
    assert train.provenance["notes"] == []  # frames 4 to 19 are the last that fit
    (note,) = val.provenance["notes"]
    assert "val: 2 of 2 clips run past the end" in note
    assert "the first: a.gif from frame 5, 15 of the 16 frames" in note


def test_clips_of_two_splits_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shared = "1 of the 1 videos of val are videos of train as well (a.gif)"
    says = "val says little of other videos. Give each video to one split."
    own_clips(tmp_path, train="0 2", val="1 3")
    assert caplog.messages == [f"{shared}: {says}"]
    caplog.clear()
    own_clips(tmp_path, train="0 2 3", val="2 4")
    assert caplog.messages == [f"{shared}, and 1 of the 2 clips are the same: {says}"]
