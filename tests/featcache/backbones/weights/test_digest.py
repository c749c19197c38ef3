"""Weights that are not the released ones, or not those of the first load: noticed, by digest."""

import hashlib
import logging
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from featcache.backbones import load_backbone
from featcache.backbones.weights import digest as digests
from featcache.backbones.weights.digest import checked_digest, file_digest, forget, remember
from featcache.errors import WeightsError
from featcache.spec import Layer

STATE = {"a": torch.arange(600.0).reshape(20, 30), "b": torch.ones(40)}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache of our own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path: Path = tmp_path / "weights/model.safetensors"
    path.parent.mkdir()
    save_file(STATE, path)
    return path


def flip(path: Path, at: int = -9) -> None:
    """One bit, and the times as they were."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_digest_of_bytes_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[object] = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda f, name: reads.append(f) or digest(f, name))
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    assert file_digest(file) == file_digest(file) == checked_digest(file) == expected
    assert len(reads) == 1
    flip(file)
    assert file_digest(file) == hashlib.sha256(file.read_bytes()).hexdigest() != expected


def test_weights_that_change_after_their_first_load_are_told_until_their_note_is_removed(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = checked_digest(file)
    note = file.with_name("model.safetensors.sha256")
    assert not note.exists(), "nothing was loaded yet"
    remember(file)
    comment, line = note.read_text().splitlines()
    assert comment.startswith("# at the first load, 2") and line == f"{first}  model.safetensors"
    assert checked_digest(file) == first and caplog.messages == []

    flip(file)
    second = checked_digest(file)
    (said,) = caplog.messages
    assert f"{file} is not what it was at its first load on 2" in said
    assert f"its sha256 was {first[:12]}..., it is {second[:12]}... now" in said
    assert f"If that is meant, remove {note}" in said
    remember(file)
    assert first in note.read_text(), "what was noted stays, for other jobs are to be told too"

    digests._check.cache_clear()  # as in the next process
    checked_digest(file)
    assert len(caplog.messages) == 2
    note.unlink()
    remember(file)
    digests._check.cache_clear()
    assert checked_digest(file) == second and len(caplog.messages) == 2


def test_where_weights_are_read_only_their_digest_is_remembered_in_the_users_cache(
    file: Path, no_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish = digests.publish

    def read_only(path: Path, content: bytes) -> None:
        if path.parent == file.parent or not no_cache.is_dir():
            raise PermissionError(30, "Read-only file system")
        publish(path, content)

    monkeypatch.setattr(digests, "publish", read_only)
    remember(file)
    assert not any(path.suffix == ".sha256" for path in file.parent.iterdir()), "neither place: no harm"
    no_cache.mkdir()
    remember(file)
    (note,) = no_cache.rglob("*.sha256")
    flip(file)
    checked_digest(file)
    assert f"remove {note}" in caplog.text
    forget(file)
    assert not note.exists()


def test_a_note_that_is_none_is_told(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    note = file.with_name("model.safetensors.sha256")
    note.write_bytes(b"\xff\x00")
    assert checked_digest(file) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"{note} holds no sha256" in caplog.text


def test_a_note_of_sha256sum_is_taken(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.with_name("model.safetensors.sha256").write_text(f"{'0' * 64} *model.safetensors\n")
    checked_digest(file)
    assert "is not what it was when model.safetensors.sha256 was written" in caplog.text


@pytest.mark.parametrize("name", ["model.pth", "model.npz"])
def test_zeroed_bytes_inside_a_zip_are_refused_at_the_first_load(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".npz"):
        np.savez(path, **{key: tensor.numpy() for key, tensor in STATE.items()})  # type: ignore[arg-type]
    else:
        torch.save(STATE, path)
    content = bytearray(path.read_bytes())
    at = content.index(STATE["a"].numpy().tobytes()) + 800
    content[at : at + 512] = bytes(512)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name} is damaged: what it holds as .* has another checksum"):
        checked_digest(path)
    end = zipfile.ZipFile(path).start_dir
    path.write_bytes(bytes(content[: end + 4]) + bytes(10) + bytes(content[end + 14 :]))
    with pytest.raises(WeightsError, match=rf"{name} (cannot be read|is damaged)"):
        checked_digest(path)


def test_a_damaged_file_of_the_hubs_cache_is_known_by_its_name(file: Path) -> None:
    blob = file.parent / file_digest(file)
    file.rename(blob)
    file.symlink_to(blob)
    checked_digest(file)
    remember(file)
    assert {path.name for path in file.parent.iterdir()} == {file.name, blob.name}, "the name says it"
    flip(blob)
    with pytest.raises(WeightsError, match=rf"is damaged: the hub's cache has it as {blob.name}"):
        checked_digest(file)


@pytest.mark.parametrize("kind", ["directory", "fifo", "device", "missing"])
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.safetensors"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    with pytest.raises(WeightsError, match=r"model\.safetensors is not a regular file"):
        checked_digest(path)


def test_weights_that_are_not_the_released_file_are_refused_with_the_way_out(tmp_path: Path) -> None:
    backbone = load_backbone("dinov2_s", tmp_path)
    folder = tmp_path / "dinov2_s"
    folder.mkdir()
    shapes = backbone.key_map({}).shapes  # type: ignore[attr-defined]
    save_file({key: torch.full(shape, 0.01) for key, shape in shapes.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    for use in (backbone.weights_digest, lambda: backbone.load((Layer(0),), CPU, torch.float32)):
        with pytest.raises(WeightsError) as refusal:
            use()
        message = str(refusal.value)
        assert f"model.safetensors is not the released file: its sha256 is {found}, not ae1e99fc" in message
        assert f"scivid data download --weights dinov2_s --weights-dir {tmp_path}" in message
        assert f"with --weights, or as --backbone dinov2_s@{folder / 'model.safetensors'}" in message
    assert not (folder / "model.safetensors.sha256").exists()

    mine = load_backbone(f"dinov2_s@{folder / 'model.safetensors'}")
    assert mine.weights_digest() == found
    mine.load((Layer(0),), CPU, torch.float32)
    assert (folder / "model.safetensors.sha256").is_file()


def test_a_load_that_fails_remembers_nothing(tiny_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (tiny_folder / "model.safetensors").read_bytes()
    (tiny_folder / "model.safetensors").write_bytes(b"<html>log in</html>")
    backbone = load_backbone(str(tiny_folder))
    backbone.weights_digest()
    with pytest.raises(WeightsError, match="it is a web page, not weights"):
        backbone.load((Layer(1),), CPU, torch.float32)
    (tiny_folder / "model.safetensors").write_bytes(whole)
    backbone.load((Layer(1),), CPU, torch.float32)
    assert "is not what it was" not in caplog.text
    assert logging.WARNING not in {record.levelno for record in caplog.records}
