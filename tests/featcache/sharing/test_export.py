"""What a bundle holds, what stays at home, and that it is whole or not there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from featcache.errors import StoreError
from featcache.sharing import export as module
from featcache.sharing.bundle import CERTIFICATE
from featcache.sharing.cut import Cut
from featcache.sharing.golden import golden_of
from featcache.sharing.sources import read_bundle
from featcache.store.feature_store import FeatureStore, open_features
from featcache.system.fetch import sha256_of
from featcache.system.sealed import changed_since, json_unsealed
from readouts.certify import certificate
from tests.featcache.conftest import flip
from tests.featcache.sharing.conftest import write
from tests.featcache.sharing.small_cache import LAYERS, certify, tree


def test_a_bundle_is_a_cache_and_an_index(
    stores: dict[str, FeatureStore], bundle: Path, tmp_path: Path
) -> None:
    before, after = tree(tmp_path / "features"), tree(bundle)
    headers = {f"flyvsfly/{role}/{store.path.name}/zarr.json" for role, store in stores.items()}
    logs = {name.replace("zarr.json", "runs.jsonl") for name in headers}
    assert after.keys() == (before.keys() - logs) | {"bundle.json"}
    # Only the headers are other bytes: of folders of this machine.
    assert {name for name in before.keys() & after.keys() if before[name] != after[name]} == headers
    index = read_bundle(str(bundle))
    assert {path: (file.n_bytes, file.sha256) for path, file in index.files()} == {
        name: (len(content), sha256_of(bundle / name))
        for name, content in after.items()
        if name != "bundle.json"
    }
    for folder in index.folders:
        golden = () if folder.holds_targets else golden_of(open_features(bundle / folder.path))
        assert folder.golden == golden and (golden or folder.holds_targets)
    assert [folder.holds_targets for folder in index.folders] == [True, True, False, False]
    assert [one.of for one in index.terms] == ["weights", "data"] and index.software["numpy"]


def test_nothing_tells_of_this_machine(bundle: Path, tmp_path: Path) -> None:
    for name, content in tree(bundle).items():
        for private in (b"alice", b"/home", str(tmp_path).encode()):
            assert private not in content, name
    header = open_features(next(bundle.glob("*/train/tiny-*"))).header
    assert header.skipped_rows == {4: "a.bin, clip 4: broken"}
    assert header.provenance["clip_list"] == {"name": "clips.csv", "path": "", "sha256": "00" * 32}
    assert header.provenance["software"] == {"torch": "2.13"}
    # Nor is a file of that name looked for where the bundle is used.
    assert changed_since(header.provenance["clip_list"]) is None


def test_private_words_that_must_stay_are_told(stores: dict[str, FeatureStore], tmp_path: Path) -> None:
    from tests.featcache.sharing.small_cache import make_store

    shutil.rmtree(tmp_path / "features")
    make_store(tmp_path / "features", "train", parts={"decoding": "/home/alice/decoder"})
    _, notes = write(tmp_path / "features", tmp_path / "bundle")
    assert (
        len(notes) == 1 and "names /home/alice/decoder in what its fingerprint or its clips are" in notes[0]
    )


def test_certificates_go_along_with_their_layers(stores: dict[str, FeatureStore], tmp_path: Path) -> None:
    assert certificate.FILE == CERTIFICATE
    certify(stores["train"], stores["val"])
    write(tmp_path / "features", tmp_path / "cut", Cut(layers=LAYERS[:1]))
    (path,) = (tmp_path / "cut").glob(f"*/*/*/{CERTIFICATE}")
    kept, sealed = json_unsealed(path.read_bytes())
    names = {role: next((tmp_path / "cut/flyvsfly" / role).glob("tiny-*")) for role in ("train", "val")}
    assert sealed and kept.keys() == {"11"}
    assert kept["11"]["command"] == "scivid certify --data-dir ... --steps 2"
    for role, of in names.items():
        assert kept["11"][f"{role}_fingerprint"] == open_features(of).fingerprint != stores[role].fingerprint
    _, notes = write(tmp_path / "features", tmp_path / "one", Cut(n_views=1))
    assert not list((tmp_path / "one").glob(f"*/*/*/{CERTIFICATE}")) and "it stays behind" in notes[0]
    (stores["train"].path / CERTIFICATE).write_text("{")
    with pytest.raises(StoreError, match=r"certificate\.json cannot be read"):
        write(tmp_path / "features", tmp_path / "broken")


def test_a_bundle_is_whole_or_not_there(
    stores: dict[str, FeatureStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "bundle"
    flip(stores["val"].shard_path(LAYERS[1], 1), 10)
    with pytest.raises(StoreError, match="fails the checksum of the chunk"):
        write(tmp_path / "features", out)
    assert tree(tmp_path / "out") == {} and not list((tmp_path / "out").iterdir())
    monkeypatch.setattr(
        "featcache.system.files.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0)
    )  # type: ignore[attr-defined]
    with pytest.raises(
        StoreError, match=r"the bundle .*bundle needs .* more and the disk of .* has 0 .* free"
    ):
        write(tmp_path / "features", out)


def test_what_is_there_is_not_touched(stores: dict[str, FeatureStore], tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(StoreError, match="bundle is there: give the bundle another name"):
        write(tmp_path / "features", tmp_path / "bundle")


def test_damaged_targets_are_not_copied(stores: dict[str, FeatureStore], tmp_path: Path) -> None:
    (chunk,) = (tmp_path / "features/flyvsfly/val").glob("targets-*/labels/c.*")
    flip(chunk, 3)
    with pytest.raises(StoreError, match=r"labels/c\.0\.0 fails the checksum"):
        write(tmp_path / "features", tmp_path / "bundle")


def test_the_index_says_what_made_it(bundle: Path) -> None:
    index = json.loads((bundle / "bundle.json").read_bytes())
    assert index["command"] == "scivid export features bundle"
    assert index["software"].keys() == set(module.SOFTWARE)
    assert replace(read_bundle(str(bundle)), made="").made == ""
