"""The objects of a bucket that are files of a split are those that its reader would find on a disk."""

from pathlib import Path

import pytest

from featcache.buckets.path import place
from featcache.data.bucket_files import local_data, split_objects
from featcache.data.readers import split_status
from featcache.errors import DataError
from featcache.manifest import Split, load_manifest

NAMES = [
    "full/x/train-00000-of-00002", "full/x/train-00001-of-00002", "full/x/val-00000-of-00001",
    "full/w.zarr/.zgroup", "full/w.zarr/t/0.0", "full/w.zarr2/a",
    "mice/a.mp4", "mice/b.avi", "mice/deep/c.mp4", "mice/clips.csv",
]  # fmt: skip


@pytest.mark.parametrize(
    ("split", "wanted"),
    [
        ({"files": "full/x/train-{shard:05d}-of-{n_shards:05d}"}, NAMES[:2]),
        ({"files": "full/none.zarr", "also": "full/w.zarr"}, NAMES[3:5]),
        ({"files": "mice/*.mp4", "clips": "mice/clips.csv"}, [NAMES[6], NAMES[9]]),
        ({"files": "mice/**/*.mp4"}, [NAMES[6], NAMES[8]]),
        ({"files": "mice/[!a].???"}, [NAMES[7]]),
        ({"files": "none/*"}, []),
    ],
)
def test_the_files_of_a_split_are_found(bucket: Path, split: dict[str, str], wanted: list[str]) -> None:
    for name in NAMES:
        file = bucket / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"1")
    found = split_objects(Split(name="train", **split), place(f"s3://{bucket.name}/data"))
    assert sorted(one.key for one in found) == sorted(f"data/{name}" for name in wanted)


def test_a_local_folder_stays_and_an_empty_bucket_says_what_it_lacks(bucket: Path, tmp_path: Path) -> None:
    dataset = load_manifest().dataset("flyvsfly")
    assert local_data(dataset, "train", tmp_path) == tmp_path
    there = place(f"s3://{bucket.name}/data")
    with pytest.raises(DataError, match="data has no files of flyvsfly/train, which are full"):
        local_data(dataset, "train", there)
    status = split_status(dataset, "train", there)
    assert (status.n_found, status.complete) == (0, False)
