"""Every generated data set keeps the same contract: official layout, pure items, cheap second run."""

import hashlib
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import simplejpeg

from featcache.errors import CallError, DataError
from featcache.manifest import load_manifest
from featcache.synthetic import DATASETS, generate, load_generator

SIZE = {"train": 3, "val": 1, "test": 2}

every_set = pytest.mark.parametrize("name", list(DATASETS))


def digests(files: tuple[Path, ...]) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@every_set
def test_same_seed_same_bytes_whatever_the_workers(name: str, tmp_path: Path) -> None:
    first = generate(name, tmp_path / "a", profile=SIZE, workers=1)
    second = generate(name, tmp_path / "b", profile=SIZE, workers=3)
    assert digests(first.files) == digests(second.files)
    other = generate(name, tmp_path / "c", profile=SIZE, seed=1)
    assert digests(other.files) != digests(first.files)


@every_set
def test_a_second_run_writes_nothing_and_a_hole_is_filled(name: str, tmp_path: Path) -> None:
    first = generate(name, tmp_path, profile=SIZE)
    before = digests(first.files)
    assert first.n_written == len(first.files)
    assert generate(name, tmp_path, profile=SIZE).n_written == 0
    first.files[0].unlink()
    assert generate(name, tmp_path, profile=SIZE).n_written == 1
    assert digests(first.files) == before
    smaller = generate(name, tmp_path, profile={"train": 2})
    assert smaller.n_written == len(smaller.files)


@every_set
def test_progress_counts_every_item(name: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    generate(name, tmp_path, profile=SIZE, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]


@every_set
def test_official_files_are_refused_and_kept(name: str, tmp_path: Path) -> None:
    part = load_generator(name).parts(SIZE)[0]
    official = tmp_path / part.path
    official.parent.mkdir(parents=True)
    official.write_bytes(b"precious")
    with pytest.raises(DataError, match="may be the official data"):
        generate(name, tmp_path, profile=SIZE)
    assert official.read_bytes() == b"precious"


@every_set
def test_layout_is_the_bucket_s(
    name: str,
    tiny: Path,
    read_shard: Callable[[Path], list[bytes]],
    sequence_example: Callable[[bytes], Any],
) -> None:
    dataset, sizes = load_manifest().dataset(name), load_generator(name).profiles["tiny"]
    decoder = "GRAY" if dataset.channels == 1 else "RGB"
    empty = 0
    for split, n_items in sizes.items():
        stem = dataset.split(split).files.partition("{shard")[0]
        shards = sorted((tiny / stem).parent.glob(Path(stem).name + "*"))
        assert [shard.name[-14:] for shard in shards] == [
            f"{i:05d}-of-{len(shards):05d}" for i in range(len(shards))
        ]
        assert 2 <= len(shards) <= 4
        records = [read_shard(shard) for shard in shards]
        empty += records.count([])
        assert sum(map(len, records)) == n_items
        for record in chain.from_iterable(records):
            message = sequence_example(record)
            (labels,) = message.context.entries
            assert labels.key == "clip/label/index"
            ids = list(labels.value.int64_list.value)
            assert ids
            assert all(0 <= label < len(dataset.classes) for label in ids)
            assert len(set(ids)) == len(ids)
            (image,) = message.feature_lists.entries
            assert image.key == "image/encoded"
            jpegs = [value for step in image.value.feature for value in step.bytes_list.value]
            assert len(jpegs) == 16
            frame = simplejpeg.decode_jpeg(jpegs[0], colorspace=decoder, fastdct=True, fastupsample=False)
            assert frame.shape == (*(dataset.frame_size or ()), dataset.channels)
            assert frame.std() > 10
    assert empty == 1


@every_set
def test_every_class_occurs_in_every_split(
    name: str, tiny: Path, read_shard: Callable[[Path], list[bytes]], sequence_example: Callable[[bytes], Any]
) -> None:
    dataset = load_manifest().dataset(name)
    for split in dataset.splits:
        stem = dataset.split(split).files.partition("{shard")[0]
        counts: Counter[int] = Counter()
        for shard in (tiny / stem).parent.glob(Path(stem).name + "*"):
            for record in read_shard(shard):
                counts.update(sequence_example(record).context.entries[0].value.int64_list.value)
        assert sorted(counts) == list(range(len(dataset.classes)))


def test_an_unknown_data_set_is_refused() -> None:
    with pytest.raises(CallError, match=r"'weather': known are flyvsfly, calms21"):
        generate("weather", Path("unused"))


@every_set
def test_every_generator_has_both_profiles_and_known_splits(name: str) -> None:
    generator, dataset = load_generator(name), load_manifest().dataset(name)
    assert generator.name == name
    assert set(generator.profiles) >= {"demo", "tiny"}
    for sizes in generator.profiles.values():
        assert set(sizes) <= set(dataset.splits)
