"""Frame numbers and one-hot labels against the reference's; the clip index against itself."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from featcache import clips as clips_module
from featcache.clips import CLIP_SCHEMA, DIGEST_ROWS, Clip, ClipIndex, label_matrix, shared_between
from featcache.errors import DataError
from featcache.system.row_groups import RowGroups, write_grouped


def golden(shared: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(shared / "golden" / "reference" / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def clip(i: int, **changes: Any) -> Clip:
    fields: dict[str, Any] = {
        "id": f"00000/{i}",
        "source": "a",
        "record": i,
        "n_source": 16,
        "labels": (i % 3,),
        "digest": "0",
    }
    return Clip(**{**fields, **changes})


def test_index_gives_back_its_clips() -> None:
    clips = [clip(0), clip(1, labels=()), clip(2, labels=(2, 2, 0), n_source=7)]
    index = ClipIndex.from_clips(clips)
    assert [index.clip(i) for i in range(len(index))] == clips


def test_digest_sees_every_field_and_the_order() -> None:
    clips = [clip(0), clip(1)]
    other: dict[str, Any] = {
        "id": "x",
        "source": "b",
        "record": 9,
        "n_source": 15,
        "labels": (5,),
        "digest": "1",
    }
    variants = [[replace(clips[0], **{name: value}), clips[1]] for name, value in other.items()]
    variants += [clips, clips[::-1], clips[:1], []]
    assert len({ClipIndex.from_clips(variant).digest for variant in variants}) == len(variants)


def test_digest_does_not_see_chunks() -> None:
    whole = ClipIndex.from_clips([clip(i) for i in range(6)])
    parts = pa.concat_tables([whole.clips.slice(0, 1), whole.clips.slice(1, 3), whole.clips.slice(4)])
    assert ClipIndex(parts).digest == whole.digest
    assert ClipIndex(parts).frames_digest == whole.frames_digest
    assert ClipIndex(parts).clips.column("id").num_chunks == 1
    assert [ClipIndex(parts).clip(i) for i in range(6)] == [clip(i) for i in range(6)]


def test_the_digest_of_the_frames_sees_everything_but_the_labels() -> None:
    frames = {
        ClipIndex.from_clips([clip(0, **change), clip(1)]).frames_digest
        for change in ({}, {"labels": (5,)}, {"labels": ()})
    }
    assert len(frames) == 1
    for change in ({"id": "x"}, {"source": "b"}, {"record": 9}, {"n_source": 15}, {"digest": "1"}):
        frames.add(ClipIndex.from_clips([clip(0, **change), clip(1)]).frames_digest)
    frames.add(ClipIndex.from_clips([clip(1), clip(0)]).frames_digest)
    assert len(frames) == 7


def test_digests_are_made_of_slices_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips_module, "DIGEST_ROWS", 2)
    index = ClipIndex.from_clips([clip(i) for i in range(5)])
    lengths: list[int] = []
    real = json.dumps
    monkeypatch.setattr(
        clips_module.json, "dumps", lambda piece: lengths.append(len(piece[-1])) or real(piece)
    )
    assert index.digest == index.digest
    assert lengths == [2, 2, 1] * 6
    assert index.frames_digest == index.frames_digest
    assert lengths == [2, 2, 1] * 6, "both are made of one look"
    for last in range(5):
        changed = [clip(i, record=99 if i == last else i) for i in range(5)]
        assert ClipIndex.from_clips(changed).digest != index.digest


def test_index_refuses_a_repeated_id_and_other_columns() -> None:
    with pytest.raises(DataError, match="00000/1"):
        ClipIndex.from_clips([clip(0), clip(1), clip(1)])
    with pytest.raises(DataError, match="columns"):
        ClipIndex(pa.table({"id": ["a"]}))


def test_labels_are_multi_hot_clipped_at_one() -> None:
    index = ClipIndex.from_clips([clip(0, labels=(2, 0, 2)), clip(1, labels=()), clip(2, labels=(1,))])
    np.testing.assert_array_equal(label_matrix(index, 3), [[1, 0, 1], [0, 0, 0], [0, 1, 0]])


def test_labels_of_a_part_of_an_index() -> None:
    index = ClipIndex(ClipIndex.from_clips([clip(i, labels=(i,)) for i in range(4)]).clips.slice(2))
    np.testing.assert_array_equal(label_matrix(index, 4), [[0, 0, 1, 0], [0, 0, 0, 1]])


def test_labels_equal_the_reference(shared: Path) -> None:
    cases = golden(shared, "data_value_transforms")
    for i in range(4):
        index = ClipIndex.from_clips([clip(0, labels=tuple(cases[f"in/onehot{i}"].tolist()))])
        np.testing.assert_array_equal(label_matrix(index, 5)[0], cases[f"out/onehot{i}"])


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_without_a_class_names_the_clip(label: int) -> None:
    index = ClipIndex.from_clips([clip(0), clip(1, labels=(0, label))])
    with pytest.raises(DataError, match=f"clip 00000/1 of a has the label {label}"):
        label_matrix(index, 3)


def of_videos(*rows: tuple[str, str, int]) -> pa.Table:
    """A clip for each path and content of a video, and first frame."""
    made = (
        clip(i, id=str(i), source=path, digest=content, record=first)
        for i, (path, content, first) in enumerate(rows)
    )
    return ClipIndex.from_clips(made)


def test_splits_that_share_a_video_are_told_though_no_clip_is_the_same() -> None:
    train = of_videos(("a.mp4", "aa", 0), ("a.mp4", "aa", 16), ("b.mp4", "bb", 0))
    of = {
        "the same, three frames later": of_videos(("a.mp4", "aa", 3), ("c.mp4", "cc", 0)),
        "a copy by another name": of_videos(("copy.mp4", "aa", 3), ("c.mp4", "cc", 0)),
        "written anew in place": of_videos(("a.mp4", "a2", 3), ("c.mp4", "cc", 0)),
    }
    for val in of.values():
        said = shared_between("train", train, "val", val, of_videos=True)
        assert said is not None
        assert said.startswith("1 of the 2 videos of val are videos of train as well (")
        assert "clips are the same" not in said
    same = shared_between("train", train, "val", train, of_videos=True)
    assert same is not None and ", and 3 of the 3 clips are the same: " in same
    apart = of_videos(("c.mp4", "cc", 0))
    assert shared_between("train", train, "val", apart, of_videos=True) is None


def test_records_are_shared_by_content_and_never_by_file() -> None:
    train = of_videos(("train.rec", "aa", 0), ("train.rec", "bb", 1))
    assert shared_between("train", train, "val", of_videos(("train.rec", "cc", 0)), of_videos=False) is None
    said = shared_between("train", train, "val", of_videos(("v", "bb", 7), ("v", "cc", 8)), of_videos=False)
    assert said == (
        "1 of the 2 clips of val are clips of train as well: val says little of clips that were not seen."
    )


def on_disk(index: ClipIndex, path: Path, **known: Any) -> ClipIndex:
    """The same clips, as a table that is read as far as it is asked for."""
    write_grouped(path, CLIP_SCHEMA, index.blocks(), {})
    return ClipIndex(RowGroups(path), **known)


def very_many(n: int, **columns: list[Any]) -> ClipIndex:
    made = {
        "id": [f"00000/{i}" for i in range(n)],
        "source": ["a"] * n,
        "record": range(n),
        "n_source": [16] * n,
        "labels": [[i % 3] * (i % 2) for i in range(n)],
        "digest": [f"{i:016x}" for i in range(n)],
    }
    return ClipIndex(pa.table({**made, **columns}, schema=CLIP_SCHEMA))


def test_a_table_on_disk_is_the_same_index(tmp_path: Path) -> None:
    whole = very_many(DIGEST_ROWS + 5)
    stored = on_disk(whole, tmp_path / "index.parquet")
    assert len(stored) == len(whole)
    assert stored.digests == whole.digests
    for i in (0, 7, DIGEST_ROWS - 1, DIGEST_ROWS, DIGEST_ROWS + 4, 3):
        assert stored.clip(i) == whole.clip(i)
    assert stored.column("record").equals(whole.column("record"))
    assert np.array_equal(label_matrix(stored, 3), label_matrix(whole, 3))
    assert [len(block) for block in stored.blocks("id")] == [len(block) for block in whole.blocks("id")]
    # The digest of before there were tables on disk.
    rows = sha256()
    for name in CLIP_SCHEMA.names:
        for start in (0, DIGEST_ROWS):
            values = whole.clips.column(name).slice(start, DIGEST_ROWS).to_pylist()
            rows.update(json.dumps([name, start, values]).encode())
    assert stored.digest == rows.hexdigest()


def test_digests_that_are_known_are_not_computed_again(tmp_path: Path) -> None:
    stored = on_disk(very_many(4), tmp_path / "index.parquet", known_digests=("one", "other"))
    assert (stored.digest, stored.frames_digest) == ("one", "other")


def test_an_id_that_stands_twice_on_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = DIGEST_ROWS + 5
    ids = [f"00000/{i}" for i in range(n)]
    ids[n - 1] = ids[2]
    table = very_many(n).clips.set_column(0, "id", pa.array(ids))
    write_grouped(tmp_path / "a", CLIP_SCHEMA, [table.slice(0, DIGEST_ROWS), table.slice(DIGEST_ROWS)], {})
    with pytest.raises(DataError, match="the clip id '00000/2' stands in several rows"):
        ClipIndex(RowGroups(tmp_path / "a"))
    # Ids whose keys are alike by chance are not the same.
    monkeypatch.setattr("featcache.clips._keys", lambda ids: np.zeros(len(ids), np.int64))
    on_disk(very_many(5), tmp_path / "b")


def test_a_list_on_disk_that_was_damaged_says_how_it_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    stored = on_disk(very_many(100), path)
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    for use in (lambda: stored.clip(3), lambda: list(stored.blocks())):
        with pytest.raises(DataError, match=f"{path} cannot be read: it .*Delete it and run the same"):
            use()
