"""Clips of the official records: equal to the reference's reader, and what happens to broken ones."""

import errno
import os
import re
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from einops import rearrange, repeat

from featcache.clips import Clip, label_matrix
from featcache.data.readers import UnreadableFileError, data_status, open_reader
from featcache.data.readers.sequence_example import reader as sequence_example
from featcache.data.readers.sequence_example.images import decode_image
from featcache.data.sampling import frame_indices
from featcache.data.views import View, clip_pixels
from featcache.errors import CallError, DataError
from featcache.manifest import load_manifest
from featcache.resampling import resize_bilinear

SPLITS = [(name, split) for name in ("flyvsfly", "calms21") for split in ("train", "val", "test")]


def assert_like(found: np.ndarray, case: dict[str, np.ndarray], key: str, *, atol: float) -> None:
    """Compare an array [F Y X C] with the parts of it that the golden files keep."""
    exact = found.astype(np.float64)
    assert list(found.shape) == case[f"{key}.shape"].tolist()
    np.testing.assert_allclose(exact[:, 1::7, 1::7], case[f"{key}.sub"], rtol=0, atol=atol)
    np.testing.assert_allclose(exact[0, ::32], case[f"{key}.frame0_rows"], rtol=0, atol=atol)
    np.testing.assert_allclose(exact.mean((1, 2)), case[f"{key}.mean"], rtol=0, atol=max(atol, 1e-9))
    np.testing.assert_allclose((exact**2).mean((1, 2)), case[f"{key}.sq"], rtol=1e-5)


def cases(shared: Path, name: str, stage: str) -> list[dict[str, np.ndarray]]:
    with np.load(shared / f"golden/records/expected/{name}_{stage}.npz", allow_pickle=False) as file:
        flat = dict(file)
    return [{k.partition("/")[2]: v for k, v in flat.items() if k.startswith(f"{i}/")} for i in range(3)]


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_clips_equal_the_reference(shared: Path, name: str, split: str) -> None:
    manifest = load_manifest()
    dataset, spec = manifest.dataset(name), manifest.task(name).clip
    reader = open_reader(dataset, split, shared / "golden" / "records")
    scan = reader.scan()
    official = dataset.split(split).n_shards
    assert scan.notes == (f"{split}: 2 shards found, the official release has {official}.",)
    assert (len(scan.index), scan.skipped) == (3, ())
    labels = label_matrix(scan.index, len(dataset.classes))
    stages = zip(*(cases(shared, name, stage) for stage in ("native", "reader", "eval")), strict=True)
    for i, (native, resized, evaluation) in enumerate(stages):
        clip = scan.index.clip(i)
        frames = frame_indices(spec, clip.n_source)
        np.testing.assert_array_equal(frames, native["frame_idx"])
        assert clip.n_source == native["vid_len"]
        assert list(clip.labels) == native["label"].tolist()
        np.testing.assert_array_equal(labels[i], evaluation["labels"])
        stored = reader.read(clip, frames.tolist())
        assert_like(
            repeat(stored, "f y x c -> f y x (r c)", r=3 // dataset.channels), native, "image", atol=0
        )
        planes = rearrange(torch.from_numpy(stored).float(), "f y x c -> f c y x")
        planes = repeat(resize_bilinear(planes, 224, 224), "f c y x -> f y x (r c)", r=3 // dataset.channels)
        assert_like(planes.numpy(), resized, "image", atol=2e-3)
        pixels = clip_pixels(torch.from_numpy(stored), spec, View())
        assert_like(rearrange(pixels, "f c y x -> f y x c").numpy(), evaluation, "video", atol=1e-5)


def test_clip_names_digests_and_order(shards: Any) -> None:
    records = [[shards.record(shards.jpegs[:n], [n % 2]) for n in sizes] for sizes in ([5, 2], [], [3])]
    shards.write(records)
    seen: list[tuple[int, int]] = []
    reader = open_reader(shards.dataset(), "val", shards.folder)
    index = reader.scan(progress=lambda done, total: seen.append((done, total))).index
    clips = [index.clip(i) for i in range(3)]
    assert [clip.id for clip in clips] == ["00000/0", "00000/1", "00002/0"]
    assert [clip.n_source for clip in clips] == [5, 2, 3]
    assert [clip.labels for clip in clips] == [(1,), (0,), (1,)]
    assert clips[2].source == "full/mice/val.array_record-00002-of-00003"
    assert clips[1].digest == blake2b(records[0][1], digest_size=8).hexdigest()
    assert seen[-1] == (3, 3)


def test_scan_keeps_file_order_over_many_blocks(shards: Any) -> None:
    shards.write([[shards.record(shards.jpegs[: 1 + i % 7]) for i in range(300)] for _ in range(3)])
    index = open_reader(shards.dataset(), "val", shards.folder).scan().index
    assert index.clips.column("n_source").to_pylist() == [1 + i % 7 for _ in range(3) for i in range(300)]
    assert index.clips.column("record").to_pylist() == [*range(300)] * 3


def test_reads_the_frames_asked_for_in_their_order(shards: Any) -> None:
    broken = b"\xff\xd8\xff no frame"
    shards.write([[shards.record([*shards.jpegs[:6], broken, *shards.jpegs[7:12]])], [], []])
    reader = open_reader(shards.dataset(), "val", shards.folder)
    clip = reader.scan().index.clip(0)
    pixels = reader.read(clip, [11, 0, 5, 5, 11])
    assert pixels.shape == (5, 24, 32, 1)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[:, 0, 0, 0], [110, 0, 50, 50, 110])
    with pytest.raises(DataError, match=r"00000-of-00003, record 0, frame 6: a broken JPEG"):
        reader.read(clip, [5, 6])


def test_repeated_frames_are_decoded_once(shards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []

    def counted(data: memoryview, channels: int) -> np.ndarray:
        decoded.append(len(data))
        return decode_image(data, channels)

    monkeypatch.setattr(sequence_example, "decode_image", counted)
    shards.write([[shards.record(shards.jpegs[:2])], [], []])
    reader = open_reader(shards.dataset(), "val", shards.folder)
    assert reader.read(reader.scan().index.clip(0), [0, *[1] * 15]).shape == (16, 24, 32, 1)
    assert len(decoded) == 2


def test_many_threads_read_the_same_pixels(shards: Any) -> None:
    shards.write([[shards.record(shards.jpegs[i : i + 2]) for i in range(6)] for _ in range(3)])
    reader = open_reader(shards.dataset(), "val", shards.folder)
    index = reader.scan().index
    clips = [index.clip(i % 18) for i in range(200)]
    with ThreadPoolExecutor(4) as pool:
        levels = [
            int(pixels[1, 0, 0, 0]) for pixels in pool.map(lambda clip: reader.read(clip, [0, 1]), clips)
        ]
    assert levels == [10 * (i % 18 % 6 + 1) for i in range(200)]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut", "only .* left|cut short"),
        ("other name", "no frames under 'image/encoded', the record holds clip/name, video"),
        ("no frames", "no frames under 'image/encoded'"),
        ("label 2", "label 2 is not from 0 to 1"),
        ("label -1", "label -1 is not from 0 to 1"),
        ("text label", "labels are not whole numbers"),
        ("damaged", "damaged"),
    ],
)
def test_a_bad_record_is_an_error_or_left_out(
    shards: Any,
    messages: dict[bool, type[Any]],
    kind: str,
    reason: str,
) -> None:
    good = shards.record(shards.jpegs[:2], [1])
    bad = {
        "cut": good[:-9],
        "other name": shards.record(shards.jpegs[:2], [1], name="video"),
        "no frames": shards.record([], [1]),
        "label 2": shards.record(shards.jpegs[:2], [0, 2]),
        "label -1": shards.record(shards.jpegs[:2], [-1]),
        "text label": good + _text_label(messages[True]),
        "damaged": good,
    }[kind]
    shards.write([[good, bad], [good], []], "group_size:1,uncompressed")
    if kind == "damaged":
        _flip_a_byte_of_the_second(shards.path(0, 3), good)
    reader = open_reader(shards.dataset(), "val", shards.folder)
    place = re.escape(str(shards.path(0, 3))) + ", record 1: "
    with pytest.raises(DataError, match=f"{place}.*({reason}).*gcloud storage cp .*--skip-bad") as problem:
        reader.scan()
    assert not isinstance(problem.value, UnreadableFileError)
    scan = reader.scan(skip_bad=True)
    assert scan.index.clips.column("id").to_pylist() == ["00000/0", "00001/0"]
    (skipped,) = scan.skipped
    assert (skipped.id, skipped.record) == ("00000/1", 1)
    assert skipped.source == "full/mice/val.array_record-00000-of-00003"
    assert re.search(reason, skipped.reason)


def _text_label(message: type[Any]) -> bytes:
    example = message()
    example.context.feature["clip/label/index"].bytes_list.value.append(b"run")
    return bytes(example.SerializeToString())


def _flip_a_byte_of_the_second(path: Path, record: bytes) -> None:
    data = bytearray(path.read_bytes())
    second = data.index(record, data.index(record) + 1)
    data[second + len(record) // 2] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_broken_file_is_always_an_error(shards: Any, skip_bad: bool, damage: str) -> None:
    shards.write([[shards.record(shards.jpegs[:2])], [shards.record(shards.jpegs)], []])
    path = shards.path(1, 3)
    path.write_bytes(path.read_bytes()[:-100] if damage == "cut" else b"<html>not found</html>" * 9000)
    reader = open_reader(shards.dataset(), "val", shards.folder)
    with pytest.raises(UnreadableFileError, match=r"00001-of-00003: .* no whole ArrayRecord.*gcloud storage"):
        reader.scan(skip_bad=skip_bad)


@pytest.mark.parametrize("damage", ["gone", "cut", "replaced", "cut while open"])
def test_a_file_lost_after_the_scan_is_never_a_bad_record(shards: Any, damage: str) -> None:
    shards.write([[os.urandom(9), shards.record(shards.jpegs)], [], []], "group_size:1,uncompressed")
    clip = open_reader(shards.dataset(), "val", shards.folder).scan(skip_bad=True).index.clip(0)
    reader, path = open_reader(shards.dataset(), "val", shards.folder), shards.path(0, 3)
    if damage == "cut while open":
        reader.read(clip, [0])
    if damage == "gone":
        path.unlink()
    elif damage == "replaced":
        shards.write([[shards.record(shards.jpegs)], [], []])
    else:
        os.truncate(path, 200)
    with pytest.raises(UnreadableFileError, match="00000-of-00003, record 1: it") as problem:
        reader.read(clip, [0])
    assert "--skip-bad" not in str(problem.value)


def test_a_disk_that_fails_is_never_a_bad_record(shards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    good = shards.record(shards.jpegs[:2], [1])
    shards.write([[good, good], [], []], "group_size:1,uncompressed")
    _flip_a_byte_of_the_second(shards.path(0, 3), good)
    reader = open_reader(shards.dataset(), "val", shards.folder)

    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(UnreadableFileError, match=r"record 1: it cannot be read \(Input/output error\)"):
        reader.scan(skip_bad=True)


def test_a_missing_shard_is_an_error_before_anything_is_read(shards: Any) -> None:
    shards.write([[shards.record(shards.jpegs)], [], []])
    shards.path(2, 3).unlink()
    with pytest.raises(DataError, match=r"missing: val.array_record-00002-of-00003"):
        open_reader(shards.dataset(), "val", shards.folder)


def test_a_split_without_any_clip_is_an_error(shards: Any) -> None:
    shards.write([[], [], []])
    with pytest.raises(DataError, match=r"none of its 0 records"):
        open_reader(shards.dataset(), "val", shards.folder).scan()


def test_absent_labels_are_no_labels_and_a_note(shards: Any) -> None:
    shards.write([[shards.record(shards.jpegs[:1], [0])], [], []])
    dataset = shards.dataset(features={"image": "image/encoded", "labels": "clip/behaviour"})
    scan = open_reader(dataset, "val", shards.folder).scan()
    assert scan.index.clip(0).labels == ()
    assert scan.notes == (
        "mice/val: no clip has a label; the manifest looks for them under 'clip/behaviour'.",
    )
    unlabelled = open_reader(shards.dataset(features={"image": "image/encoded"}), "val", shards.folder)
    assert unlabelled.scan().notes == ()


def test_frames_of_two_sizes_are_refused(shards: Any) -> None:
    other = simplejpeg.encode_jpeg(np.zeros((8, 8, 1), np.uint8), 95, "GRAY")
    shards.write([[shards.record([shards.jpegs[0], other])], [], []])
    reader = open_reader(shards.dataset(), "val", shards.folder)
    with pytest.raises(DataError, match=r"differ in size: \[\(8, 8\), \(24, 32\)\]"):
        reader.read(reader.scan().index.clip(0), [0, 1])


def test_wrong_channels_are_refused(shards: Any) -> None:
    shards.write([[shards.record(shards.jpegs)], [], []])
    reader = open_reader(shards.dataset(channels=3), "val", shards.folder)
    with pytest.raises(DataError, match=r"record 0, frame 4: a JPEG in Gray has 1 channels .*channels: 3"):
        reader.read(reader.scan().index.clip(0), [4])


@pytest.mark.parametrize("frames", [[20], [-1]])
def test_a_frame_past_the_end_is_refused(shards: Any, frames: list[int]) -> None:
    shards.write([[shards.record(shards.jpegs)], [], []])
    reader = open_reader(shards.dataset(), "val", shards.folder)
    with pytest.raises(DataError, match=f"frame {frames[0]}: the record has 20 frames"):
        reader.read(reader.scan().index.clip(0), frames)


def test_a_clip_of_another_index_is_refused(shards: Any) -> None:
    shards.write([[shards.record(shards.jpegs)], [], []])
    reader = open_reader(shards.dataset(), "val", shards.folder)
    stale = Clip(
        id="00000/4", source="full/mice/val.array_record-00000-of-00003", record=4, n_source=20, digest=""
    )
    with pytest.raises(DataError, match="record 4: it has 1 records"):
        reader.read(stale, [0])


def test_a_data_set_without_frames_is_a_wrong_call(shards: Any) -> None:
    with pytest.raises(CallError, match="image: image/encoded"):
        open_reader(shards.dataset(features={}), "val", shards.folder)


def test_status_counts_and_finds_fault(shards: Any) -> None:
    assert not data_status(shards.dataset(), shards.folder)["val"].complete
    shards.write([[shards.record(shards.jpegs)] * 4, [], [shards.record(shards.jpegs)]])
    status = data_status(shards.dataset(n_shards=100), shards.folder)["val"]
    assert status.complete
    assert (status.n_found, status.n_expected, status.n_clips) == (3, 100, 5)
    assert status.n_bytes == sum(shards.path(i, 3).stat().st_size for i in range(3))
    assert status.notes == ("val: 3 shards found, the official release has 100.",)
    shards.path(0, 3).unlink()
    shards.path(2, 3).write_bytes(b"cut")
    status = data_status(shards.dataset(), shards.folder)["val"]
    missing, broken = status.problems
    assert "missing: val.array_record-00000-of-00003" in missing
    assert "00002-of-00003: its 3 bytes are no whole ArrayRecord file" in broken


def test_status_of_two_sets_is_a_problem_not_an_error(shards: Any) -> None:
    shards.write([[], []])
    shards.write([[]])
    (problem,) = data_status(shards.dataset(), shards.folder)["val"].problems
    assert "twice" in problem
