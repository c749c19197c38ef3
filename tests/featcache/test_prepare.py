"""What is known, and refused, before the first extraction begins."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from featcache.backbones import load_backbone
from featcache.clips import Clip, ClipIndex
from featcache.errors import DataError, StoreError
from featcache.extract import Machine, extract, extract_all
from featcache.job import Extraction, plan_extraction
from featcache.manifest import load_manifest
from featcache.prepare import _refuse_uncuttable, prepare
from featcache.store import find_stores
from featcache.writer import StoreWriter

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
        jobs, data_dir=tiny_data, cache_dir=cache_dir, skip_bad=False, progress=lambda what, done, total: None
    )
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
