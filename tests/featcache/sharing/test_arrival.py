"""An import: whole, verified and once; or told what is wrong, with nothing to be seen of it."""

import shutil
from pathlib import Path

import pytest

from featcache.errors import CallError, DamagedFileError, DownloadError, ScividError, StoreError
from featcache.sharing.arrival import HIDDEN, Arrival, import_bundle
from featcache.sharing.cut import Cut
from featcache.store.feature_store import FeatureStore, find_stores, open_features
from featcache.store.validation.caches import named, validate_any
from featcache.system.console import silent
from featcache.system.sealed import json_sealed, json_unsealed
from tests.featcache.conftest import flip
from tests.featcache.sharing.conftest import write
from tests.featcache.sharing.small_cache import LAYERS, make_store, tree
from tests.featcache.sharing.test_sources import serve
from tests.featcache.system.site import Page, Site


def bring(place: object, cache: Path, *accepted: str, said: list[str] | None = None) -> Arrival:
    say = (said if said is not None else []).append
    return import_bundle(str(place), cache, accepted=accepted, progress=silent, say=say)


def seen(cache: Path) -> list[Path]:
    """What any other command finds in a cache."""
    return named([cache]) if list(cache.rglob("*.zarr")) else []


def without_index(bundle: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(bundle).items() if name != "bundle.json"}


@pytest.mark.parametrize("web", [False, True])
def test_all_of_it_comes_once(web: bool, bundle: Path, site: Site, tmp_path: Path) -> None:
    cache, said = tmp_path / "new" / "cache", list[str]()
    place = serve(site, bundle) if web else bundle
    came = bring(place, cache, said=said)
    assert tree(cache) == without_index(bundle)
    assert [path.parent.name for path in came.paths] == ["train", "val"] and came.n_there == 0
    assert came.n_bytes == sum(map(len, without_index(bundle).values()))
    assert said.pop(0).endswith(") by: scivid export features bundle")
    assert said[0].startswith("weights a tiny model: licence MIT") and said[1].startswith(
        "data Flies: licence CC0"
    )
    for path in named([cache]):
        assert validate_any(path).ok
    # Again: nothing but the index and the headers is asked for, and nothing is written.
    site.asked.clear()
    times = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    again = bring(place, cache)
    assert (again.paths, again.n_there, again.n_bytes) == ((), 2, 0)
    assert {path.rpartition("/")[2] for path, _ in site.asked} <= {"bundle.json", "zarr.json"}
    files = {path: time for path, time in times.items() if path.is_file()}
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert sorted(path.name for path in cache.iterdir()) == ["flyvsfly"]


def test_a_flipped_byte_of_any_file_is_refused(bundle: Path, tmp_path: Path) -> None:
    """Of every file, the index too: its name is told, and nothing is to be seen."""
    for number, name in enumerate(sorted(tree(bundle))):
        content, cache = (bundle / name).read_bytes(), tmp_path / f"cache {number}"
        flip(bundle / name, (0, len(content) // 2, -1)[number % 3])
        with pytest.raises(DamagedFileError, match=name.rpartition("/")[2]) as refusal:
            bring(bundle, cache)
        assert "bundle anew" in str(refusal.value) or "bundle once more" in str(refusal.value)
        assert seen(cache) == [] and not find_stores(cache)
        (bundle / name).write_bytes(content)
    # With the file put right the same call goes on, and ends.
    bring(bundle, cache)
    assert tree(cache) == without_index(bundle)


def test_a_flipped_byte_on_the_way_is_refused(bundle: Path, site: Site, tmp_path: Path) -> None:
    address = serve(site, bundle)
    name = next(name for name in tree(bundle) if name.endswith("tokens_11/c.1.0.0.0.0.0"))
    page = site.pages[f"/lab/{name}"]
    site.pages[f"/lab/{name}"] = Page(content=page.content[:9] + b"?" + page.content[10:])
    with pytest.raises(
        DownloadError, match=r"what came from .*tokens_11/c\.1\.0\.0\.0\.0\.0 is wrong, and removed"
    ):
        bring(address, tmp_path / "cache")
    assert seen(tmp_path / "cache") == []
    site.pages[f"/lab/{name}"] = page
    site.asked.clear()
    bring(address, tmp_path / "cache")
    assert tree(tmp_path / "cache") == without_index(bundle)
    # What was there by then was not asked for again.
    asked = [path for path, _ in site.asked]
    assert len(asked) == len(set(asked)) and len(asked) < len(tree(bundle))


def test_a_cut_connection_goes_on(bundle: Path, site: Site, tmp_path: Path) -> None:
    address = serve(site, bundle)
    name = f"/lab/{max(tree(bundle), key=lambda name: (bundle / name).stat().st_size)}"
    page = site.pages[name]
    site.pages[name] = Page(content=page.content, stop=5000)
    with pytest.raises(DownloadError, match="ended after 5,000 of"):
        bring(address, tmp_path / "cache")
    site.pages[name] = page
    site.asked.clear()
    bring(address, tmp_path / "cache")
    assert [headers["Range"] for path, headers in site.asked if path == name] == ["bytes=5000-"]
    assert tree(tmp_path / "cache") == without_index(bundle)


def test_another_store_in_its_place_is_refused(
    bundle: Path, stores: dict[str, FeatureStore], tmp_path: Path
) -> None:
    cache, name = tmp_path / "cache", f"flyvsfly/val/{stores['val'].path.name}"
    shutil.copytree(stores["train"].path, cache / name)
    before = tree(cache)
    with pytest.raises(
        StoreError, match=r"flyvsfly/val/tiny-.* is another one than the bundle's, of the same name"
    ):
        bring(bundle, cache)
    assert {path: content for path, content in tree(cache).items() if not path.startswith(HIDDEN)} == before
    # What the lab has of its own, extracted alike, is left alone: here the exporter's own cache.
    assert bring(bundle, tmp_path / "features").n_there == 2


def test_a_second_bundle_brings_what_is_new(
    bundle: Path, stores: dict[str, FeatureStore], tmp_path: Path
) -> None:
    write(tmp_path / "features", tmp_path / "part", Cut(layers=LAYERS[:1]))
    bring(bundle, tmp_path / "cache")
    came = bring(tmp_path / "part", tmp_path / "cache")
    assert len(came.paths) == 2 and len(find_stores(tmp_path / "cache")) == 4
    assert open_features(came.paths[0]).targets is not None


def test_the_licence_of_gated_weights_has_to_be_accepted(
    stores: dict[str, FeatureStore], tmp_path: Path, site: Site
) -> None:
    make_store(tmp_path / "gated", "train", backbone="dinov3_b", backbone_title="DINOv3-B")
    write(tmp_path / "gated", tmp_path / "bundle")
    address = serve(site, tmp_path / "bundle")
    for accepted in ((), ("Apache-2.0",)):
        with pytest.raises(
            CallError, match=r'DINOv3 License \(https://.*--accept-licence "DINOv3 License"\. Nothing but'
        ):
            bring(address, tmp_path / "cache", *accepted)
    assert {path for path, _ in site.asked} == {"/lab/bundle.json"} and not (tmp_path / "cache").exists()
    # Whatever an index says, this installation's catalogue knows better.
    index, _ = json_unsealed((tmp_path / "bundle/bundle.json").read_bytes())
    index["terms"] = []
    (tmp_path / "bundle/bundle.json").write_bytes(json_sealed(index))
    with pytest.raises(CallError, match="DINOv3 License"):
        bring(tmp_path / "bundle", tmp_path / "cache")
    assert len(bring(tmp_path / "bundle", tmp_path / "cache", "dinov3 license").paths) == 1


def test_a_full_disk_is_told_before(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = shutil.disk_usage(tmp_path)._replace(free=20_000)
    monkeypatch.setattr("featcache.system.files.shutil.disk_usage", lambda path: few)
    with pytest.raises(
        StoreError, match=r"the bundle needs .* more and the disk of .*cache has .* free: make room, or"
    ):
        bring(bundle, tmp_path / "cache")
    assert not [
        path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != "zarr.json"
    ]


def test_nothing_is_written_elsewhere(bundle: Path, tmp_path: Path) -> None:
    """An index that leads out of the cache, sealed again by whoever changed it."""
    for path in ("../../evil.zarr", "flyvsfly/train/../../../evil.zarr", f"{tmp_path}/evil.zarr"):
        index, _ = json_unsealed((bundle / "bundle.json").read_bytes())
        index["folders"][0]["path"] = path
        (tmp_path / "forged").mkdir(exist_ok=True)
        (tmp_path / "forged/bundle.json").write_bytes(json_sealed(index))
        before = set(tmp_path.rglob("*"))
        with pytest.raises(ScividError, match="It is not the index of a bundle"):
            bring(tmp_path / "forged", tmp_path / "cache")
        assert set(tmp_path.rglob("*")) == before


def test_what_a_killed_import_left_is_tidied(bundle: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    name = next(name for name in tree(bundle) if name.endswith("tokens_11/c.1.0.0.0.0.0"))
    content = (bundle / name).read_bytes()
    (bundle / name).unlink()
    with pytest.raises(DamagedFileError, match="is missing"):
        bring(bundle, cache)
    (coming,) = cache.glob(f"{HIDDEN}*")
    for n, left in enumerate((".zarr.json.partial", "tokens_11/c.0.part.json", "zarr.json.part")):
        (coming / str(n) / left).parent.mkdir(exist_ok=True)
        (coming / str(n) / left).write_bytes(b"half")
    (bundle / name).write_bytes(content)
    bring(bundle, cache)
    assert tree(cache) == without_index(bundle)


def test_no_store_is_seen_before_its_targets(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between any two renames, of a bundle that lists its stores first."""
    index, _ = json_unsealed((bundle / "bundle.json").read_bytes())
    index["folders"].reverse()
    (bundle / "bundle.json").write_bytes(json_sealed(index))
    rename, cache = Path.rename, tmp_path / "cache"

    class KilledError(BaseException):
        pass

    def once(path: Path, to: Path) -> Path:
        rename(path, to)
        raise KilledError

    monkeypatch.setattr(Path, "rename", once)
    for n_seen in range(1, 5):
        with pytest.raises(KilledError):
            bring(bundle, cache)
        assert len(seen(cache)) == n_seen
        for store in find_stores(cache):
            assert store.targets is not None
    assert bring(bundle, cache).n_there == 2
    assert tree(cache) == without_index(bundle)


def test_an_import_that_is_a_link_is_refused(bundle: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(CallError):
        bring(tmp_path, cache)
    bring(bundle, cache)
    shutil.rmtree(cache / "flyvsfly")
    from hashlib import sha256

    digits = sha256((bundle / "bundle.json").read_bytes()).hexdigest()[:16]
    (tmp_path / "elsewhere").mkdir()
    (cache / f"{HIDDEN}{digits}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is a link: remove it"):
        bring(bundle, cache)
    assert not list((tmp_path / "elsewhere").iterdir())
