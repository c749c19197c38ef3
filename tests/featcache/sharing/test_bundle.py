"""An index there and back; and every lie that one may tell."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import DamagedFileError
from featcache.sharing.bundle import Bundle, SharedFile, SharedFolder, Terms, bundle_from
from featcache.system.sealed import json_sealed, json_unsealed

FILE = SharedFile(path="zarr.json", n_bytes=3, sha256="ab" * 32)
FOLDER = SharedFolder(
    path="flyvsfly/train/tiny-01234567.zarr", files=(FILE, replace(FILE, path="tokens_1/c.0"))
)
BUNDLE = Bundle(
    folders=(FOLDER,),
    terms=(Terms(of="weights", title="a model", licence="MIT"),),
    software={"scivid": "1"},
    command="scivid export a b",
    made="2026-01-01T00:00:00+00:00",
)


def forged(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The index, changed by somebody who seals it again."""
    document, _ = json_unsealed(BUNDLE.to_bytes())
    change(document)
    return json_sealed(document)


def test_there_and_back() -> None:
    assert bundle_from(BUNDLE.to_bytes(), "there") == BUNDLE
    assert (BUNDLE.n_files, BUNDLE.n_bytes, FOLDER.holds_targets) == (2, 6, False)
    assert [path for path, _ in BUNDLE.files()] == [f"{FOLDER.path}/zarr.json", f"{FOLDER.path}/tokens_1/c.0"]


def test_every_byte_of_the_index_is_under_its_seal() -> None:
    content = BUNDLE.to_bytes()
    for at in range(0, len(content), 7):
        changed = bytearray(content)
        changed[at] ^= 1
        with pytest.raises(DamagedFileError, match=r"^there.*Get the bundle once more"):
            bundle_from(bytes(changed), "there")
    unsealed = json.dumps({k: v for k, v in json.loads(content).items() if k != "seal"}).encode()
    with pytest.raises(DamagedFileError, match="it has no seal"):
        bundle_from(unsealed, "there")
    for nonsense in (b"", b"[]", b"[" * 100_000, content[: len(content) // 2]):
        with pytest.raises(DamagedFileError):
            bundle_from(nonsense, "there")


def _nodes(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value below a node."""
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield (*path, key)
        yield from _nodes(node[key], (*path, key))


def test_whatever_stands_anywhere_is_taken_or_refused() -> None:
    """Other values in every place: no other error, and nothing that is not printable or a path of ours."""
    document, _ = json_unsealed(BUNDLE.to_bytes())
    for way in _nodes(document):
        for value in (None, 0, -1, 10**40, 0.5, True, "", "x/y", "\x1b", "../..", [], {}, [[]], {"a": 1}):
            changed = json.loads(json.dumps(document))
            node = changed
            for key in way[:-1]:
                node = node[key]
            node[way[-1]] = value
            with suppress(DamagedFileError):
                found = bundle_from(json_sealed(changed), "there")
                assert all(".." not in path for path, _ in found.files())
                assert found.origin.isprintable() and all(str(one).isprintable() for one in found.terms)


@pytest.mark.parametrize(
    "path",
    [
        "../x", "a/../../x", "/etc/passwd", "..", "", ".", "tokens_1/..", "a/b/c", "a//b", "~/x", ".hidden",
        "a\\b", "a\nb", "a\0b", "-rf", "x" * 300, "tokens_1", "ZARR.JSON", "zarr.json",
    ],
)  # fmt: skip
def test_a_file_elsewhere_is_refused(path: str) -> None:
    """As a third file beside `zarr.json` and `tokens_1/c.0`."""
    file = {"path": path, "n_bytes": 1, "sha256": "ab" * 32}
    with pytest.raises(DamagedFileError, match="It is not the index of a bundle"):
        bundle_from(forged(lambda index: index["folders"][0]["files"].append(file)), "there")


@pytest.mark.parametrize(
    "path", ["../../x.zarr", "/a/b.zarr", "a/b.zarr", "a/b/c/d.zarr", "a/b/c", "a/../c.zarr", "a/.b/c.zarr"]
)
def test_a_folder_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(DamagedFileError, match="It is not the index of a bundle"):
        bundle_from(forged(lambda index: index["folders"][0].update(path=path)), "there")


def _file(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda index: index["folders"][0]["files"][0].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        _file(n_bytes=10**15), _file(n_bytes=-1), _file(n_bytes="3"), _file(n_bytes=True),
        _file(n_bytes=1e400),
        _file(sha256="ab"), _file(sha256="g" * 64), _file(link="/etc/passwd"),
        lambda index: index.update(format=2),
        lambda index: index.update(command="\x1b[2J"),
        lambda index: index.update(folders=[]),
        lambda index: index["folders"].append(index["folders"][0]),
        lambda index: index["folders"][0].update(files=[]),
        lambda index: index["terms"][0].update(title="\x1b[2J"),
        lambda index: index["terms"][0].update(must_accept="perhaps"),
        lambda index: index.pop("folders"),
    ],
)  # fmt: skip
def test_other_lies_are_refused(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    document, _ = json_unsealed(BUNDLE.to_bytes())
    change(document)
    with pytest.raises(DamagedFileError, match="It is not the index of a bundle"):
        bundle_from(json_sealed(document, allow_nan=True), "there")
