"""Which store is meant, how one is gone on with, and which fit together; told in words where they do not."""

from dataclasses import replace
from pathlib import Path

import pytest

from featcache.errors import StoreError
from featcache.fingerprint import fingerprint
from featcache.store.feature_store import FeatureStore
from featcache.store.header import TargetsReference
from featcache.store.matching import continued, hold, refuse_foreign, refuse_incompatible, refuse_other
from tests.featcache.store.small_header import PARTS, SPEC, header


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    refuse_foreign(tmp_path / "not there")
    store = tmp_path / "store.zarr"
    store.mkdir()
    (store / ".lock").touch()
    (store / ".zarr.json.1f2e.partial").touch()
    refuse_foreign(store)
    (store / "thesis.tex").touch()
    with pytest.raises(StoreError, match=r"is not a feature store \(it has thesis\.tex\): move it away"):
        refuse_foreign(store)
    with pytest.raises(StoreError, match=r"it has thesis\.tex"):
        refuse_foreign(store / "thesis.tex")


def test_one_process_holds_a_store(tmp_path: Path) -> None:
    lock = hold(tmp_path)
    with pytest.raises(StoreError, match="is being written by another process"):
        hold(tmp_path)
    lock.release()
    hold(tmp_path).release()


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


def test_a_store_that_several_write_stays_as_the_first_of_them_began_it() -> None:
    first = header()
    assert (
        continued(Path("store"), first, header(provenance={"software": "other"}), with_others=True) is first
    )
    now = continued(
        Path("store"), first, header(provenance={"software": "other"}, attrs={"task": "t2"}), with_others=True
    )
    assert (now.provenance, now.attrs) == (first.provenance, {"task": "t2"})


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


def with_parts(store: FeatureStore, **parts: object) -> FeatureStore:
    changed = {**store.parts, **parts}
    return FeatureStore(store.path, replace(store.header, parts=changed, fingerprint=fingerprint(changed)))


def refuse(train: FeatureStore, val: FeatureStore) -> None:
    refuse_incompatible(val.path, val.header, train_path=train.path, train=train.header)


def test_train_and_validation_stores_must_be_of_a_kind(example) -> None:
    store = example().write()
    refuse(store, with_parts(store, clips={"index": "other"}, views={"n_views": 1, "seed": None}))
    other = with_parts(store, backbone={"name": "tiny", "weights": "cd" * 32}, layers=["11"])
    with pytest.raises(StoreError) as problem:
        refuse(store, other)
    assert "  backbone.weights: cdcdcdcdcdcd... here, abababababab... asked for" in str(problem.value)
    assert '  layers: ["11"] here, ["11", "12_normed"] asked for' in str(problem.value)
    grid = replace(store.spec.grid, rows=9)
    resized = FeatureStore(store.path, replace(store.header, spec=replace(store.spec, grid=grid)))
    with pytest.raises(StoreError, match=r"store\.grid\.rows: 9 here, 3 asked for"):
        refuse(store, resized)


def test_int8_tokens_are_of_another_kind(example, tmp_path) -> None:
    store = example(dtype="int8").write()
    other = example(folder=tmp_path / "other").write()
    with pytest.raises(StoreError, match=r'tokens\.dtype: "int8" here, "float16" asked for'):
        refuse(other, store)
