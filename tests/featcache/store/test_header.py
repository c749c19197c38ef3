"""What a store says of itself survives the disk, and two that differ are told apart in words."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import CallError, StoreError
from featcache.fingerprint import fingerprint
from featcache.spec import Layer, TokenGrid
from featcache.store.header import StoreHeader, TargetsReference, continued, read_header, refuse_other
from featcache.store.spec import FeatureSpec
from featcache.store.zarr_format import json_bytes

SPEC = FeatureSpec(
    grid=TokenGrid(steps=2, rows=3, columns=4, channels=5),
    layers=(Layer(11), Layer(12, normed=True)),
    n_clips=7,
    n_views=2,
    clips_per_shard=3,
)
PARTS = {"backbone": {"weights": "ab" * 32}, "layers": ["11", "12_normed"]}


def header(**changes: Any) -> StoreHeader:
    given: dict[str, Any] = {
        "spec": SPEC,
        "fingerprint": fingerprint(PARTS),
        "parts": PARTS,
        "frames_digest": "ab" * 32,
        "clips_digest": "cd" * 32,
        "targets": TargetsReference(path="../targets-0.zarr", fingerprint="ef" * 32),
        "provenance": {"software": {"torch": "2.6"}},
        "attrs": {"task": "t", "exactness": "exact"},
    }
    return StoreHeader(**{**given, **changes})


@pytest.mark.parametrize("changes", [{}, {"complete": True}, {"targets": None, "attrs": {}}])
def test_a_header_survives_the_disk(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "zarr.json").write_bytes(json_bytes(header(**changes).metadata()))
    assert read_header(tmp_path) == header(**changes)


def test_attributes_are_readable_under_one_name() -> None:
    attrs = header(complete=True).metadata()["attributes"]["scivid"]
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
    [("kind", "targets", "does not hold features"), ("store_version", 2, "another version")],
)
def test_other_kinds_and_versions_are_refused(tmp_path: Path, name: str, value: object, why: str) -> None:
    document = json.loads(json_bytes(header().metadata()))
    document["attributes"]["scivid"][name] = value
    (tmp_path / "zarr.json").write_bytes(json_bytes(document))
    with pytest.raises(StoreError, match=why):
        read_header(tmp_path)


def test_an_edited_header_is_refused() -> None:
    edited = header(parts={**PARTS, "layers": ["11"]})
    with pytest.raises(StoreError, match=r"zarr\.json was edited: its parts have the fingerprint"):
        refuse_other(Path("store"), edited, fingerprint=None, parts=None)


def test_another_store_is_refused_with_the_fields_that_differ() -> None:
    refuse_other(Path("store"), header(), fingerprint=fingerprint(PARTS), parts=PARTS)
    with pytest.raises(StoreError) as problem:
        refuse_other(
            Path("store"), header(), fingerprint=None, parts={**PARTS, "backbone": {"weights": "77" * 32}}
        )
    assert "  backbone.weights: abababababab... here, 777777777777... asked for" in str(problem.value)
    with pytest.raises(StoreError, match=f"holds the features {fingerprint(PARTS)}, you asked for 0000"):
        refuse_other(Path("store"), header(), fingerprint="0000", parts=None)


def test_going_on_keeps_the_first_provenance_and_says_what_differs_later() -> None:
    first = header()
    assert continued(Path("store"), first, first) == first
    second = header(provenance={"software": {"torch": "2.7"}})
    third = continued(Path("store"), first, second)
    assert third.provenance == {
        "software": {"torch": "2.6"},
        "resumed_with": [{"software": {"torch": "2.7"}}],
    }
    assert continued(Path("store"), third, second) == third


def test_a_complete_store_goes_on_as_it_is() -> None:
    done = header(complete=True)
    assert continued(Path("store"), done, header(provenance={"software": "other"})) is done


def test_what_is_said_of_a_complete_store_may_change() -> None:
    done = header(complete=True, provenance={"software": {"torch": "2.6"}, "notes": ["labels are off"]})
    targets = TargetsReference(path="../targets-1.zarr", fingerprint="12" * 32)
    corrected = header(
        attrs={"task": "renamed"},
        clips_digest="00" * 32,
        targets=targets,
        provenance={"software": {"torch": "2.7"}, "notes": []},
    )
    now = continued(Path("store"), done, corrected)
    assert now == replace(corrected, complete=True, provenance=now.provenance)
    assert now.provenance == {
        "software": {"torch": "2.6"},
        "notes": [],
        "resumed_with": [{"software": {"torch": "2.7"}}],
    }
    assert continued(Path("store"), now, corrected) is now


def test_the_size_of_the_shards_is_that_of_the_first_run() -> None:
    other = header(spec=replace(SPEC, clips_per_shard=4))
    assert continued(Path("store"), header(), other) == header()
    assert continued(Path("store"), header(complete=True), other).spec == SPEC


def test_going_on_in_another_shape_is_refused() -> None:
    with pytest.raises(StoreError, match=r"spec\.n_views: 2 here, 4 asked for"):
        continued(Path("store"), header(), header(spec=replace(SPEC, n_views=4)))
    with pytest.raises(StoreError, match=r"frames: abababababab\.\.\. here"):
        continued(Path("store"), header(), header(frames_digest="00" * 32))
