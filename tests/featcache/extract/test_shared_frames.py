"""Which frames clips share: as decoding all of them would tell, and only where an image model can use it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from featcache import synthetic
from featcache.backbones import load_backbone
from featcache.backbones.base import Backbone
from featcache.data.readers import open_reader
from featcache.data.readers.sequence_example.reader import SequenceExampleReader
from featcache.extract.job import Extraction, plan_extraction
from featcache.extract.pixels.clip_views import ClipViews
from featcache.extract.shared_frames import fewest_known, shared_frames, source_frames
from featcache.manifest import load_manifest
from featcache.store.rows import FrameTable
from featcache.system.sealed import UNSEALED, parquet_sealed


def image_model(name: str = "resize") -> Backbone:
    """`resize` sees each frame by itself, though it does not say so: it costs nothing either way."""
    backbone: Any = load_backbone(name)
    return replace(backbone, info=replace(backbone.info, frame_level=True))


def plan(task: str, role: str, backbone: Backbone | None = None, **options: Any) -> Extraction:
    backbone = backbone or image_model()
    given = {"n_views": 1, "seed": 0, "dtype": torch.float32, "layers": backbone.info.default_layers}
    return plan_extraction(load_manifest(), task=task, role=role, backbone=backbone, **(given | options))


def found(job: Extraction, data_dir: Path, cache_dir: Path) -> FrameTable | None:
    reader = open_reader(job.dataset, job.split, data_dir)
    index = reader.scan().index
    return shared_frames(job, index, reader, cache_dir=cache_dir, progress=lambda what, done, total: None)


def test_windows_over_many_files_share_what_their_videos_share(overlapping: Path, tmp_path: Path) -> None:
    job = plan("flyvsfly", "val")
    table = found(job, overlapping, tmp_path)
    assert table is not None
    assert table.numbers.shape == (45, 1, 16)
    assert table.n_frames == 90
    # The same that all decoded frames tell.
    reader = open_reader(job.dataset, "val", overlapping)
    index = reader.scan().index
    frames = np.concatenate([reader.read(index.clip(i), range(16)) for i in range(45)])
    _, same = np.unique(frames.reshape(45 * 16, -1), axis=0, return_inverse=True)
    numbers = table.numbers.ravel()
    assert np.array_equal(numbers[:, None] == numbers, same[:, None] == same)


def test_what_was_found_is_kept_and_a_broken_file_costs_looking_again(
    overlapping: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = plan("flyvsfly", "val")
    first = found(job, overlapping, tmp_path)
    assert first is not None
    looked: list[str] = []
    original = SequenceExampleReader.frame_keys

    def counted(self: SequenceExampleReader, clip: Any, frames: Any) -> list[bytes]:
        looked.append(clip.id)
        return original(self, clip, frames)

    monkeypatch.setattr(SequenceExampleReader, "frame_keys", counted)
    again = found(job, overlapping, tmp_path)
    assert again is not None
    assert looked == []
    assert again.digest == first.digest
    # Frames in another order are another table.
    found(plan("flyvsfly", "val", shuffle_frames=True), overlapping, tmp_path)
    assert len(looked) == 45
    kept = file_of(first, tmp_path)
    kept.write_bytes(kept.read_bytes()[:-1])
    mended = found(job, overlapping, tmp_path)
    assert mended is not None
    assert len(looked) == 90
    assert mended.digest == first.digest


def file_of(table: FrameTable, cache_dir: Path) -> Path:
    """The file that keeps a table."""
    numbers = table.numbers.ravel().tolist()
    files = (cache_dir / "index").iterdir()
    (kept,) = (path for path in files if pq.read_table(path)["frame"].to_pylist() == numbers)
    return kept


def test_a_kept_table_is_not_used_once_the_code_gives_other_numbers(
    overlapping: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where its name, of 8 digits, is by chance that of another: the whole digest is inside."""
    job = plan("flyvsfly", "val")
    first = found(job, overlapping, tmp_path)
    assert first is not None
    kept = file_of(first, tmp_path)
    for name, value in (("FEATURE_VERSION", 99), ("reading_code", lambda: "tomorrow's")):
        with monkeypatch.context() as changed:
            changed.setattr(f"featcache.extract.shared_frames.{name}", value)
            assert made_anew(job, overlapping, tmp_path) == 45
    assert made_anew(job, overlapping, tmp_path) == 0
    other = pq.read_table(kept)
    about = {**other.schema.metadata, b"made_from": b"f" * 64, b"seal": UNSEALED.encode()}
    kept.write_bytes(parquet_sealed(other.replace_schema_metadata(about)))
    assert made_anew(job, overlapping, tmp_path) == 45
    assert made_anew(job, overlapping, tmp_path) == 0


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_a_kept_table_with_one_flipped_bit_is_made_anew(
    overlapping: Path, tmp_path: Path, share: float
) -> None:
    job = plan("flyvsfly", "val")
    first = found(job, overlapping, tmp_path)
    assert first is not None
    kept = file_of(first, tmp_path)
    content = bytearray(kept.read_bytes())
    content[int(share * len(content))] ^= 4
    kept.write_bytes(content)
    assert made_anew(job, overlapping, tmp_path) == 45
    again = found(job, overlapping, tmp_path)
    assert again is not None
    assert again.digest == first.digest


def made_anew(job: Extraction, data_dir: Path, cache_dir: Path) -> int:
    """How many clips are looked at."""
    looked: list[str] = []
    original = SequenceExampleReader.frame_keys

    def counted(self: SequenceExampleReader, clip: Any, frames: Any) -> list[bytes]:
        looked.append(clip.id)
        return original(self, clip, frames)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SequenceExampleReader, "frame_keys", counted)
        found(job, data_dir, cache_dir)
    return len(looked)


def test_only_an_image_model_whose_views_draw_nothing_shares_frames(
    overlapping: Path, tiny_data: Path, tmp_path: Path
) -> None:
    assert found(plan("flyvsfly", "val", load_backbone("resize")), overlapping, tmp_path) is None
    assert plan("flyvsfly", "train", n_views=3).frame_steps is None
    assert plan("flyvsfly", "train").frame_steps == tuple(range(16))
    # Generated windows overlap a little: not enough to read clips in sixteen pieces.
    assert found(plan("flyvsfly", "val"), tiny_data, tmp_path) is None


def test_starts_of_a_typhoon_share_frames_and_repeats_are_one(tmp_path: Path) -> None:
    synthetic.generate("digital_typhoon", tmp_path, profile="tiny", seed=0)
    job = plan("typhoon", "train")
    table = found(job, tmp_path, tmp_path / "cache")
    reader = open_reader(job.dataset, job.split, tmp_path)
    index = reader.scan().index
    assert table is not None
    assert table.numbers.shape == (len(index), 8, 16)
    views = ClipViews(job, reader)
    for number in range(len(index)):
        clip = index.clip(number)
        shown = source_frames(views, clip)
        # Twelve frames are shown as sixteen, and view v begins at frame v.
        assert shown[0].tolist() == [0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10, 10, 11]
        n_starts = job.views.views_of(clip.n_source)
        assert (shown[:, 0] == np.arange(8) % n_starts).all()
        numbers = table.numbers[number]
        assert np.array_equal(numbers[..., None, None] == numbers, shown[..., None, None] == shown)
    assert table.n_frames <= fewest_known(job, len(index))  # type: ignore[operator]


def test_of_weather_windows_only_the_frames_that_are_read_are_shown(tmp_path: Path) -> None:
    synthetic.generate("weatherbench2", tmp_path, profile="tiny", seed=0)
    job = plan("weatherbench2", "train")
    assert job.frame_steps == (15,)
    table = found(job, tmp_path, tmp_path / "cache")
    assert table is not None
    n_clips = len(table.numbers)
    assert table.numbers.shape == (n_clips, 1, 1)
    assert table.n_frames == n_clips


def test_what_arithmetic_knows() -> None:
    assert fewest_known(plan("weatherbench2", "train"), 100) == 100
    # 8 starts of 12 frames, a frame apart.
    assert fewest_known(plan("typhoon", "train"), 100) == 100 * 19
    # 9 starts of 16 frames.
    assert fewest_known(plan("stir", "train"), 10) == 10 * 24
    assert fewest_known(plan("typhoon", "val"), 10) is None
    assert fewest_known(plan("flyvsfly", "val"), 10) is None
    assert fewest_known(plan("typhoon", "train", load_backbone("resize")), 10) is None
