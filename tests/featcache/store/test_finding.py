"""The stores of a cache, found by name."""

from dataclasses import replace
from pathlib import Path

from featcache.store.finding import find_stores


def test_stores_are_found_by_task_split_and_backbone(example, tmp_path: Path) -> None:
    made = example()
    made.write()
    other = replace(made, path=tmp_path / "features/task/val/tiny_b-11111111.zarr")
    other.start().close()
    (tmp_path / "features/task/val/tiny-22222222.zarr").mkdir()
    cache = tmp_path / "features"
    assert [store.path for store in find_stores(cache)] == [made.path, other.path]
    assert [store.path for store in find_stores(cache, "task", "train", "tiny")] == [made.path]
    assert find_stores(cache, "task", "val", "tiny") == ()
    (unfinished,) = find_stores(cache, backbone="tiny_b")
    assert not unfinished.complete
    assert unfinished.spec == made.spec
    assert find_stores(tmp_path / "none") == ()
