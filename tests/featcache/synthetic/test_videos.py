"""Shards of a set whose records are named by their own numbers: all there, in order, one of them empty."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from featcache.manifest import Dataset
from featcache.synthetic.base import Generator
from featcache.synthetic.videos import VideoSet


def name_of(split: str, index: int, *, seed: int, dataset: Dataset) -> bytes:
    return f"{seed}/{dataset.name}/{split}/{index}".encode()


VIDEOS = VideoSet(
    name="stir",
    version=1,
    make=name_of,
    profiles={"demo": {"full_val": 5, "test": 1}},
    n_shards={"full_val": 3, "test": 2},
    empty_shard={"full_val": 1},
)


def test_every_item_has_one_place() -> None:
    assert isinstance(VIDEOS, Generator)
    parts = VIDEOS.parts({"full_val": 5, "test": 1})
    assert [part.path for part in parts[:3]] == [
        f"full/stir/full_val_stir.array_record-0000{shard}-of-00003" for shard in range(3)
    ]
    assert [part.items for part in parts] == [range(2), range(0), range(2, 5), range(0), range(1)]
    assert [part.split for part in parts] == ["full_val"] * 3 + ["test"] * 2


def test_a_shard_holds_its_records_in_order(
    tmp_path: Path, read_shard: Callable[[Path], list[bytes]]
) -> None:
    ticks: list[None] = []
    part = VIDEOS.parts({"full_val": 5})[2]
    with ThreadPoolExecutor(2) as pool:
        VIDEOS.write(part, tmp_path / "shard", seed=7, pool=pool, tick=lambda: ticks.append(None))
    assert read_shard(tmp_path / "shard") == [b"7/stir/full_val/%d" % i for i in (2, 3, 4)]
    assert len(ticks) == 3
