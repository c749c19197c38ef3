"""Every generated data set keeps the same contract: official layout, pure items, cheap second run."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest
import simplejpeg

from featcache.errors import CallError, DataError
from featcache.manifest import Split, load_manifest
from featcache.synthetic import DATASETS, generate, load_generator
from featcache.synthetic.base import Generator, Part
from featcache.synthetic.folder import NOTE

every_set = pytest.mark.parametrize("name", list(DATASETS))
every_set_of_shards = pytest.mark.parametrize("name", [name for name in DATASETS if name != "weatherbench2"])
every_behaviour_set = pytest.mark.parametrize("name", ["flyvsfly", "calms21"])
Few = Callable[[str], dict[str, int]]
Made = Callable[[str], Path]
ReadShard = Callable[[Path], list[bytes]]
Parse = Callable[[bytes], Any]


def digests(folder: Path) -> dict[str, str]:
    """Of all files but the note, whether a part is one file or a directory of them."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != NOTE
    }


def shards_of(data_dir: Path, split: Split) -> list[Path]:
    stem = data_dir / split.files.partition("{shard")[0]
    return sorted(stem.parent.glob(f"{stem.name}*"))


def messages_of(data_dir: Path, split: Split, read_shard: ReadShard, parse: Parse) -> Iterator[Any]:
    return (parse(record) for shard in shards_of(data_dir, split) for record in read_shard(shard))


@every_set
def test_the_workers_do_not_change_a_byte(name: str, few: Few, made: Made, tmp_path: Path) -> None:
    generate(name, tmp_path, profile=few(name), workers=3)
    assert digests(tmp_path) == digests(made(name))


@every_set
def test_a_second_run_only_fills_a_hole(name: str, few: Few, made: Made, tmp_path: Path) -> None:
    shutil.copytree(made(name), tmp_path, dirs_exist_ok=True)
    assert generate(name, tmp_path, profile=few(name)).n_written == 0
    part = max(load_generator(name).parts(few(name)), key=lambda part: len(part.items))
    hole = tmp_path / part.path
    (hole if hole.is_file() else hole / ".zgroup").unlink()
    seen: list[tuple[int, int]] = []
    again = generate(name, tmp_path, profile=few(name), progress=lambda *count: seen.append(count))
    assert again.n_written == 1
    assert seen == [(done, len(part.items)) for done in range(1, len(part.items) + 1)]
    assert digests(tmp_path) == digests(made(name))


@every_set
def test_all_items_of_all_parts_are_made_of_the_seed_and_counted(
    name: str, few: Few, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, seeds, seen = load_generator(name), set[int](), list[tuple[int, int]]()

    def write(
        self: Generator, part: Part, path: Path, *, seed: int, pool: Executor, tick: Callable[[], None]
    ) -> None:
        path.write_bytes(b"")
        seeds.add(seed)
        for _ in part.items:
            tick()

    monkeypatch.setattr(type(generator), "write", write)
    sizes = dict.fromkeys(few(name), 3)
    summary = generate(name, tmp_path, profile=sizes, seed=7, progress=lambda *count: seen.append(count))
    parts = generator.parts(sizes)
    total = sum(len(part.items) for part in parts)
    assert seen == [(done, total) for done in range(1, total + 1)]
    assert seeds == {7}
    assert summary.n_written == len(parts)


@every_set
def test_official_files_are_refused_before_anything_is_written(name: str, few: Few, tmp_path: Path) -> None:
    official = tmp_path / load_generator(name).parts(few(name))[0].path
    if name == "weatherbench2":
        official /= ".zattrs"
    official.parent.mkdir(parents=True)
    official.write_bytes(b"precious")
    with pytest.raises(DataError, match="may be the official data"):
        generate(name, tmp_path, profile=few(name))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [official]
    assert official.read_bytes() == b"precious"


@every_set_of_shards
def test_shards_are_named_as_in_the_bucket_and_hold_all_items(
    name: str, few: Few, made: Made, read_shard: ReadShard
) -> None:
    dataset = load_manifest().dataset(name)
    for split, n_records in few(name).items():
        shards = shards_of(made(name), dataset.split(split))
        assert 2 <= len(shards) <= 4
        assert [shard.name[-14:] for shard in shards] == [
            f"{i:05d}-of-{len(shards):05d}" for i in range(len(shards))
        ]
        assert sum(len(read_shard(shard)) for shard in shards) == n_records


@every_set_of_shards
def test_one_shard_of_a_set_stays_empty_at_any_size(name: str) -> None:
    generator = load_generator(name)
    assert any(not part.items for part in generator.parts(dict.fromkeys(generator.profiles["demo"], 1000)))


def test_the_weather_is_one_store_which_is_a_directory(made: Made) -> None:
    (path,) = {split.files for split in load_manifest().dataset("weatherbench2").splits.values()}
    store = made("weatherbench2") / path
    assert (store / ".zmetadata").is_file()
    assert {file.name for file in store.parent.iterdir()} == {NOTE, store.name}


@every_behaviour_set
def test_a_record_is_16_images_of_the_released_size_with_labels(
    name: str, tiny_data: Path, read_shard: ReadShard, sequence_example: Parse
) -> None:
    dataset = load_manifest().dataset(name)
    decoder = "GRAY" if dataset.channels == 1 else "RGB"
    for split in dataset.splits.values():
        for message in messages_of(tiny_data, split, read_shard, sequence_example):
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


@every_behaviour_set
def test_every_class_occurs_in_every_split(
    name: str, tiny_data: Path, read_shard: ReadShard, sequence_example: Parse
) -> None:
    dataset = load_manifest().dataset(name)
    for split in dataset.splits.values():
        counts: Counter[int] = Counter()
        for message in messages_of(tiny_data, split, read_shard, sequence_example):
            counts.update(message.context.entries[0].value.int64_list.value)
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
