"""Whatever is named is validated as what it is."""

from pathlib import Path

from featcache.store.validation.caches import named, seal_any, validate_any


def test_a_whole_cache_is_validated_stores_and_targets(example) -> None:
    made = example()
    made.write()
    cache = made.path.parents[2]
    (targets,) = made.path.parent.glob("targets-*.zarr")
    assert named([cache]) == [targets, made.path]
    assert named([made.path.parent, made.path]) == [targets, made.path]
    assert all(validate_any(path).ok for path in named([cache]))


def test_a_folder_without_stores_is_named_as_it_is(tmp_path: Path) -> None:
    assert named([tmp_path, tmp_path / "none"]) == [tmp_path, tmp_path / "none"]
    assert "has no zarr.json" in validate_any(tmp_path).problems[0]


def test_targets_whose_metadata_cannot_be_read_are_known_by_name(example, flip) -> None:
    made = example()
    made.write()
    (targets,) = made.path.parent.glob("targets-*.zarr")
    (targets / "zarr.json").write_bytes(b"{")
    assert "cannot be read as a group of targets" in validate_any(targets).problems[0]


def test_what_is_not_right_is_not_sealed(example, flip) -> None:
    path = example().write().path
    flip(path / "tokens_11/c.0.0.0.0.0.0", 5)
    before = (path / "zarr.json").read_bytes()
    report, sealed = seal_any(path)
    assert not report.ok
    assert not sealed
    assert (path / "zarr.json").read_bytes() == before
