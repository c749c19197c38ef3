"""A bundle's files from a folder and from a server: whole and right, or refused by name."""

import os
from pathlib import Path

import pytest

from featcache.errors import CallError, DamagedFileError, DownloadError, StoreError
from featcache.sharing.bundle import SharedFile
from featcache.sharing.sources import Source, copy_file, open_source, read_bundle
from featcache.system.fetch import sha256_of
from tests.featcache.conftest import flip
from tests.featcache.sharing.small_cache import tree
from tests.featcache.system.site import Page, Site

CONTENT = b"tokens" * 1000


def serve(site: Site, folder: Path) -> str:
    """The address of a folder."""
    site.pages |= {f"/lab/{name}": Page(content=content) for name, content in tree(folder).items()}
    return site.url("/lab")


def file_of(path: Path, name: str) -> SharedFile:
    return SharedFile(path=name, n_bytes=path.stat().st_size, sha256=sha256_of(path))


def bring(source: Source, path: str, file: SharedFile, to: Path) -> list[int]:
    told: list[int] = []
    source.bring(path, file, to, told.append, told.append)  # type: ignore[arg-type]
    return told


def test_the_index_comes_from_a_folder_or_an_address(bundle: Path, site: Site) -> None:
    address = serve(site, bundle)
    index = read_bundle(str(bundle))
    for place in (bundle / "bundle.json", address, f"{address}/", f"{address}/bundle.json"):
        assert read_bundle(str(place)) == index
    assert open_source(address).origin == f"{address}/bundle.json"
    assert open_source(f"{address}/mybundle.json").origin == f"{address}/mybundle.json/bundle.json"


@pytest.mark.parametrize("place", ["ftp://example.org/x", "s3://bucket/x"])
def test_other_protocols_are_refused(place: str) -> None:
    with pytest.raises(CallError, match="bundles come from a folder, or from http"):
        open_source(place)


@pytest.mark.parametrize(
    "place", ["https://me:secret@example.org/x", "https://example.org/x?token=secret", "http://a/b#secret"]
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(place: str) -> None:
    with pytest.raises(CallError, match="the address of a bundle has a name, a password") as refusal:
        open_source(place)
    assert "secret" not in str(refusal.value)


def test_no_bundle_is_told(tmp_path: Path, site: Site) -> None:
    for place in (tmp_path, tmp_path / "not there"):
        with pytest.raises(CallError, match=r"is no bundle: it has no bundle\.json"):
            read_bundle(str(place))
    with pytest.raises(DownloadError, match=r"/lab/bundle\.json: the server says 404"):
        read_bundle(site.url("/lab"))


def test_a_file_of_a_folder_is_copied_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    there, to = tmp_path / "a" / "file", tmp_path / "to"
    there.write_bytes(CONTENT)
    file = file_of(there, "file")
    assert bring(open_source(str(tmp_path)), "a/file", file, to)[-1] == len(CONTENT)
    assert to.read_bytes() == CONTENT
    there.unlink()
    assert bring(open_source(str(tmp_path)), "a/file", file, to) == [len(CONTENT)]
    # One of those bytes is wrong: it is asked for again.
    flip(to, 5)
    with pytest.raises(DamagedFileError, match=r"a/file is missing, though bundle\.json lists it"):
        bring(open_source(str(tmp_path)), "a/file", file, to)
    there.write_bytes(CONTENT)
    bring(open_source(str(tmp_path)), "a/file", file, to)
    assert to.read_bytes() == CONTENT


def test_another_file_is_refused(tmp_path: Path) -> None:
    there, to = tmp_path / "file", tmp_path / "to"
    there.write_bytes(CONTENT)
    file = file_of(there, "file")
    flip(there, 77)
    with pytest.raises(
        DamagedFileError, match=r"file is not what was exported: its sha256 is .*Copy the bundle anew"
    ):
        bring(open_source(str(tmp_path)), "file", file, to)
    there.write_bytes(CONTENT[1:])
    with pytest.raises(DamagedFileError, match="has 5,999 bytes instead of 6,000"):
        bring(open_source(str(tmp_path)), "file", file, to)
    assert not to.exists()


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "secret").write_bytes(CONTENT)
    (tmp_path / "bundle/file").symlink_to(tmp_path / "secret")
    file = file_of(tmp_path / "secret", "file")
    with pytest.raises(StoreError, match="is a link that leads out of the bundle"):
        bring(open_source(str(tmp_path / "bundle")), "file", file, tmp_path / "to")
    os.mkfifo(tmp_path / "bundle/pipe")
    with pytest.raises((StoreError, OSError), match=r"has 0 bytes instead|not a regular file"):
        bring(open_source(str(tmp_path / "bundle")), "pipe", file, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_file_of_a_server_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_bytes(CONTENT)
    file = file_of(there, "a b/c.0")
    site.pages["/lab/a%20b/c.0"] = Page(content=CONTENT, stop=2500)
    with pytest.raises(DownloadError, match="ended after 2,500 of 6,000 bytes"):
        bring(open_source(site.url("/lab")), "a b/c.0", file, tmp_path / "to")
    site.pages["/lab/a%20b/c.0"] = Page(content=CONTENT)
    bring(open_source(site.url("/lab")), "a b/c.0", file, tmp_path / "to")
    assert (tmp_path / "to").read_bytes() == CONTENT and site.ranges == [None, "bytes=2500-"]
    site.pages["/lab/a%20b/c.0"] = Page(content=CONTENT[::-1])
    with pytest.raises(DownloadError, match=r"what came from .*/lab/a%20b/c\.0 is wrong, and removed"):
        bring(open_source(site.url("/lab")), "a b/c.0", file, tmp_path / "other")


def test_a_copy_has_the_digest_of_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    assert (
        copy_file(tmp_path / "file", tmp_path / "to")
        == sha256_of(tmp_path / "to")
        == sha256_of(tmp_path / "file")
    )
