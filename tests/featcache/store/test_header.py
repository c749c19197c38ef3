"""What a store says of itself survives the disk."""

from pathlib import Path
from typing import Any

import pytest

from featcache.errors import CallError, StoreError
from featcache.store import header as header_module
from featcache.store.feature_store import find_stores, open_features
from featcache.store.header import header_if_begun, read_header
from featcache.store.validation.stores import validate
from featcache.store.zarr_format import json_bytes
from tests.featcache.store.small_header import forge, header

COMPLETE = {"complete": True, "shard_digests": {"tokens_11": "0" * 16 * 3, "tokens_12_normed": "1" * 16 * 3}}


@pytest.mark.parametrize("changes", [{}, COMPLETE, {"targets": None, "attrs": {}}])
def test_a_header_survives_the_disk(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "zarr.json").write_bytes(header(**changes).to_bytes())
    assert read_header(tmp_path) == header(**changes)


def test_attributes_are_readable_under_one_name() -> None:
    attrs = header(**COMPLETE).metadata()["attributes"]["scivid"]
    assert attrs["complete"] is True
    assert attrs["task"] == "t"
    assert attrs["spec"]["layers"] == ["11", "12_normed"]
    assert attrs["parts"]["backbone"]["weights"] == "ab" * 32


def test_attributes_cannot_pose_as_the_stores_own() -> None:
    with pytest.raises(CallError, match=r"\['complete'\] are the store's own"):
        header(attrs={"complete": True})


def test_what_is_not_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not there: `scivid list stores`"):
        read_header(tmp_path / "none")
    with pytest.raises(StoreError, match=r"is not a feature store: it has no zarr\.json"):
        read_header(tmp_path)
    document = header().metadata()
    for damage in (
        b"{",
        b"[]",
        json_bytes({"attributes": {}}),
        json_bytes({**document, "attributes": {"scivid": {}}}),
    ):
        (tmp_path / "zarr.json").write_bytes(damage)
        with pytest.raises(StoreError, match="is not a feature store that this version reads"):
            read_header(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [("kind", "targets", "does not hold features"), ("store_version", 3, "another version")],
)
def test_other_kinds_and_versions_are_refused(tmp_path: Path, name: str, value: object, why: str) -> None:
    (tmp_path / "zarr.json").write_bytes(header().to_bytes())
    forge(tmp_path / "zarr.json", lambda document: document["attributes"]["scivid"].update({name: value}))
    with pytest.raises(StoreError, match=why):
        read_header(tmp_path)


def test_the_root_of_a_store_is_read_once(example, monkeypatch: pytest.MonkeyPatch) -> None:
    made, reads = example(), []
    read = header_module.read_regular

    def counted(path: Path, *, limit: int) -> bytes:
        if path == made.path / "zarr.json":
            reads.append(path)
        return read(path, limit=limit)

    made.write()
    monkeypatch.setattr(header_module, "read_regular", counted)
    monkeypatch.setattr("featcache.store.writer.publish", lambda path, content: None)  # compares first
    for use in (
        lambda: made.start().finish(),
        lambda: open_features(made.path, parts=made.parts),
        lambda: find_stores(made.path.parents[2]),
        lambda: validate(made.path),
    ):
        reads.clear()
        use()
        assert len(reads) == 1


def test_a_known_header_is_parsed_again_only_where_the_file_changed(tmp_path: Path) -> None:
    assert header_if_begun(tmp_path, header()) is None
    (tmp_path / "zarr.json").write_bytes(header().to_bytes())
    known = read_header(tmp_path)
    assert header_if_begun(tmp_path, known) is known
    (tmp_path / "zarr.json").write_bytes(header(**COMPLETE).to_bytes())
    assert header_if_begun(tmp_path, known) == header(**COMPLETE)
