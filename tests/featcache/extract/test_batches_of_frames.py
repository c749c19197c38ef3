"""Batches of distinct frames: each as the clip that shows it first has it, broken ones left out."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.backbones import load_backbone
from featcache.clips import Clip, ClipIndex
from featcache.data.readers import open_reader
from featcache.errors import DataError
from featcache.extract.batches import FrameBatches
from featcache.extract.job import plan_extraction
from featcache.extract.pixels.clip_views import ClipViews
from featcache.extract.pixels.host_pixels import HostPixels
from featcache.extract.shared_frames import shared_frames
from featcache.manifest import load_manifest
from featcache.store.rows import FrameTable

Shared = tuple[ClipViews, ClipIndex, FrameTable]


@pytest.fixture
def shared_windows(overlapping: Path, tmp_path: Path) -> Shared:
    backbone: Any = load_backbone("resize")
    backbone = replace(backbone, info=replace(backbone.info, frame_level=True))
    job = plan_extraction(
        load_manifest(), task="flyvsfly", role="val", backbone=backbone,
        layers=backbone.info.default_layers, n_views=1, seed=0, dtype=torch.float32,
    )  # fmt: skip
    reader = open_reader(job.dataset, job.split, overlapping)
    index = reader.scan().index
    table = shared_frames(job, index, reader, cache_dir=tmp_path, progress=lambda what, done, total: None)
    assert table is not None
    return ClipViews(job, reader), index, table


def refuse(row: int, problem: DataError) -> None:
    raise problem


@pytest.mark.parametrize(("rows", "size", "threads"), [(range(90), 48, 3), (range(13, 57), 16, 1)])
def test_every_frame_is_as_its_clip_shows_it(
    shared_windows: Shared, rows: range, size: int, threads: int
) -> None:
    views, index, table = shared_windows
    batches = FrameBatches(
        views, index, table, size=size, threads=threads, skip=refuse, pixels=HostPixels(views)
    )
    rows_given: list[int] = []
    for batch in batches.of([rows]):
        assert batch.pixels.shape == (size // 16, 16, 3, 16, 16)
        frames = batch.pixels.flatten(0, 1)
        for (row, _), pixels in zip(batch.slots, frames, strict=False):
            number, _, step = table.first_occurrence[row].tolist()
            clip = index.clip(number)
            (shown,) = views.pixels(clip, views.read(clip, 1), 1)
            assert torch.equal(pixels, shown[step])
        assert (frames[len(batch.slots) :] == 0).all()
        rows_given += [row for row, _ in batch.slots]
    assert rows_given == list(rows)


def test_a_frame_that_cannot_be_read_takes_no_other_along(
    shared_windows: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    views, index, table = shared_windows
    broken = 5
    number, _, step = table.first_occurrence[broken].tolist()
    victim, original = index.clip(number), views.reader.read

    def read(clip: Clip, frames: Sequence[int]) -> np.ndarray:
        if clip == victim and step in frames:
            raise DataError(f"frame {step} is broken")
        return original(clip, frames)

    monkeypatch.setattr(views.reader, "read", read)
    skipped: list[tuple[int, str]] = []
    note: Callable[[int, DataError], None] = lambda row, problem: skipped.append((row, str(problem)))  # noqa: E731
    batches = FrameBatches(views, index, table, size=32, threads=2, skip=note, pixels=HostPixels(views))
    rows = [row for batch in batches.of([range(40)]) for row, _ in batch.slots]
    assert rows == [row for row in range(40) if row != broken]
    assert skipped == [(broken, f"frame {step} is broken")]
