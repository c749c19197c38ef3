"""A path in a bucket joins, lists and asks as one on a disk, and is never taken for a local name."""

import os
import pickle
from pathlib import Path

import pytest

from featcache.buckets.path import BucketPath, absolute, as_zarr_store, place
from featcache.errors import CallError


def test_a_url_is_a_place_and_so_is_one_that_was_taken_for_a_path() -> None:
    there = place("s3://bucket/a//b/")
    assert isinstance(there, BucketPath)
    assert str(there) == "s3://bucket/a/b"
    assert there == place(Path("s3://bucket/a/b")) == place(there)
    assert hash(there) == hash(place(Path("s3://bucket/a/b")))
    assert place("features") == Path("features")
    assert place(Path("./a:b/c")) == Path("a:b/c")


def test_paths_are_joined_and_taken_apart() -> None:
    store = place("gs://bucket/cache/flyvsfly/train/resize-01234567.zarr")
    targets = store / "../targets-01234567.zarr" / "zarr.json"
    assert isinstance(targets, BucketPath)
    assert str(targets) == "gs://bucket/cache/flyvsfly/train/targets-01234567.zarr/zarr.json"
    assert targets.key == "cache/flyvsfly/train/targets-01234567.zarr/zarr.json"
    assert str(store.parents[2]) == "gs://bucket/cache"
    assert (store.name, store.suffix) == ("resize-01234567.zarr", ".zarr")
    assert str(store.with_name("x")) == "gs://bucket/cache/flyvsfly/train/x"
    assert pickle.loads(pickle.dumps(targets)) == targets
    assert absolute(store / "..") == store.parent
    assert absolute(Path("a/../b")) == Path.cwd() / "b"
    assert as_zarr_store(Path("a")) == Path("a")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/x", "ftp://... is neither a folder nor a bucket: the URLs of buckets begin with s3://"),
        ("s3://", "write a bucket's name and folders in it, as s3://bucket/features"),
        ("s3://bucket/x?version=1", "write a bucket's name"),
        ("s3://AKIA:hidden@bucket/x", "the URL of a bucket has no names or keys in it"),
    ],
)
def test_other_urls_are_refused(url: str, said: str) -> None:
    for named in (url, Path(url)):
        if url == "s3://" and isinstance(named, Path):
            continue  # a folder of that name
        with pytest.raises(CallError, match=said.replace(".", r"\.")) as found:
            place(named)
        assert "hidden" not in str(found.value)


@pytest.mark.parametrize("use", [os.stat, open, Path.touch, Path.open, lambda path: path.write_bytes(b"")])
def test_what_is_not_made_for_buckets_says_so(use: object) -> None:
    with pytest.raises(CallError, match="s3://bucket/x lies in a bucket, and this goes with local files"):
        use(place("s3://bucket/x"))


def test_a_bucket_answers_as_a_folder_does(bucket: Path) -> None:
    there = place(f"s3://{bucket.name}/cache")
    assert not there.exists()
    for name in ("task/train/a-0123.zarr/zarr.json", "task/train/a-0123.zarr/t/c.0", "task/val/b.json"):
        (there / name).write_whole(name.encode())
        assert (bucket / "cache" / name).read_bytes() == (there / name).read_bytes() == name.encode()
    local = bucket / "cache"
    for pattern in ("task/*/*-????.zarr", "*", "task/*/*.json", "task/none/*"):
        ours, theirs = ([str(path.relative_to(top)) for path in top.glob(pattern)] for top in (there, local))
        assert sorted(ours) == sorted(theirs)
    assert [str(path.relative_to(there)) for path in there.rglob("*.zarr")] == ["task/train/a-0123.zarr"]
    assert sorted(path.name for path in (there / "task").iterdir()) == ["train", "val"]
    assert all(path.is_dir() and not path.is_file() for path in (there / "task").iterdir())
    file = there / "task/val/b.json"
    assert (file.is_file(), file.is_dir(), file.exists(), file.stat().st_size) == (True, False, True, 15)
    local = (bucket / "cache/task/val/b.json").stat()
    assert int(local.st_mtime) <= file.stat().st_mtime <= local.st_mtime + 1
    assert file.stat().st_mtime_ns == int(file.stat().st_mtime * 1e9)
    assert file.parent.sizes() == {"b.json": 15}
    assert (file.parent.is_dir(), file.parent.is_file()) == (True, False)
    assert place(f"s3://{bucket.name}").is_dir()
    assert file.replace(file.with_name("c.json")) == file.with_name("c.json")
    assert (bucket / "cache/task/val/c.json").read_bytes() == b"task/val/b.json"
    assert not file.exists()
    file.unlink(missing_ok=True)


def test_of_two_that_create_an_object_one_is_first(bucket: Path) -> None:
    there = place(f"s3://{bucket.name}/claim")
    assert (there.create(b"first"), there.create(b"second")) == (True, False)
    assert there.read_bytes() == b"first"
