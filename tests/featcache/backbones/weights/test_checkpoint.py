"""Weight files: header first, chosen tensors later, and what is said when one is broken."""

import os
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from featcache.backbones.weights.checkpoint import open_tensors, tensor_shapes
from featcache.backbones.weights.digest import checked_digest
from featcache.errors import WeightsError

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(4, dtype=torch.float16)}


def read_tensors(path: Path, names: list[str]) -> dict[str, torch.Tensor]:
    with open_tensors(path) as file:
        return {name: file.read(name) for name in names}


@pytest.fixture(params=["model.safetensors", "pytorch_model.bin"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file: Path = tmp_path / request.param
    if file.suffix == ".safetensors":
        save_file(STATE, file)
    else:
        torch.save(OrderedDict(STATE), file)
    return file


def test_shapes_and_chosen_tensors(path: Path) -> None:
    assert tensor_shapes(path) == {"a": (2, 3), "b": (4,)}
    found = read_tensors(path, ["b"])
    assert list(found) == ["b"] and found["b"].dtype == torch.float16
    assert torch.equal(read_tensors(path, ["a"])["a"], STATE["a"])


def test_a_truncated_file_says_so(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(WeightsError, match=r"cannot be read.*fetch the file again"):
        tensor_shapes(path)


class _Rogue:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code in a weight file was run",)


@pytest.mark.parametrize("content", [{"a": _Rogue()}, {"model": {"a": torch.zeros(2)}}, [torch.zeros(2)]])
def test_pickles_of_anything_else_are_refused(
    tmp_path: Path, content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError):
        tensor_shapes(tmp_path / "pytorch_model.bin")
    assert "was run" not in capsys.readouterr().out


@pytest.mark.parametrize("zipped", [True, False])
def test_a_model_among_a_training_script_s_things(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    content = {"model": STATE, "encoder": {"w": torch.zeros(3)}, "epoch": 3, "args": Namespace(lr=0.1)}
    # Files from before torch 1.6 are no zip and cannot be mapped.
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with open_tensors(path, sections=("target", "model"), skipped=("encoder",)) as file:
        assert file.shapes == {"a": (2, 3), "b": (4,)}
        assert torch.equal(file.read("a"), STATE["a"])
    with (
        pytest.raises(WeightsError, match="tensors under 'encoder' beside 'model'"),
        open_tensors(path, sections=("model",)),
    ):
        pass
    with pytest.raises(WeightsError, match="under 'target'"), open_tensors(path, sections=("target",)):
        pass


def test_an_npz_is_read_like_the_others(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, **{name: tensor.numpy() for name, tensor in STATE.items()})  # type: ignore[arg-type]
    assert tensor_shapes(path) == {"a": (2, 3), "b": (4,)}
    found = read_tensors(path, ["b", "a"])
    assert list(found) == ["b", "a"] and torch.equal(found["a"], STATE["a"])


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.pth"])
def test_a_file_that_is_none_of_these(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>404</html>")
    with pytest.raises(WeightsError, match=r"cannot be read .*fetch the file again"):
        tensor_shapes(tmp_path / name)


NAMES = ("a.npz", "a.pth", "a.safetensors")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is empty"),
        (b"  <!doctype html><html>log in</html>", "it is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a pointer of Git LFS"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_weights_at_all_is_named(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name} cannot be read .*{what}.*fetch the file again"):
        tensor_shapes(tmp_path / name)


def test_a_format_under_the_name_of_another_is_named(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.pth")
    torch.save(STATE, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"a\.pth cannot be read \(it is a \.safetensors file under"):
        tensor_shapes(tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.safetensors cannot be read \(it is a zip"):
        tensor_shapes(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["directory", "fifo", "device"])
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(WeightsError, match=rf"{name} is not a regular file"):
        tensor_shapes(path)


def test_a_header_that_claims_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for length in (2**63, 2**31, 10**8 - 1):
        path.write_bytes(length.to_bytes(8, "little") + b'{"a": 1}')
        with pytest.raises(WeightsError, match=r"a\.safetensors cannot be read"):
            tensor_shapes(path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_numbers_that_no_weight_can_be_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"a": torch.ones(2).to(dtype)}, tmp_path / "a.safetensors")
    torch.save({"a": torch.ones(2).to(dtype)}, tmp_path / "a.pth")
    for path in (tmp_path / "a.safetensors", tmp_path / "a.pth"):
        with pytest.raises(WeightsError, match=rf"holds a as {dtype}.*not as plain floating-point numbers"):
            read_tensors(path, ["a"])


def test_keys_that_are_no_names_are_refused(tmp_path: Path) -> None:
    torch.save({0: torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="not a flat dict of tensors"):
        tensor_shapes(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["a.safetensors", "a.npz", "a.pth", "old.pth"])
def test_no_damage_of_a_small_file_is_a_traceback_and_none_of_a_zip_is_silent(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if name.endswith(".npz"):
        np.savez(path, **{key: tensor.numpy() for key, tensor in STATE.items()})  # type: ignore[arg-type]
    elif name.endswith(".pth"):
        torch.save(STATE, path, _use_new_zipfile_serialization=name != "old.pth")
    else:
        save_file(STATE, path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    n_refused = 0
    for _ in range(60):
        content = bytearray(whole)
        at, length = rng.integers(len(whole)), int(rng.choice([1, 4, 64]))
        content[at : at + length] = rng.bytes(min(length, len(whole) - at))
        path.write_bytes(content[: None if rng.random() < 0.8 else at])
        try:
            checked_digest(path)
            found = read_tensors(path, list(STATE))
        except (WeightsError, KeyError) as refusal:
            n_refused += 1
            assert isinstance(refusal, KeyError) or str(path) in str(refusal)
        else:
            same = all(torch.equal(found[key].float(), STATE[key].float()) for key in STATE)
            assert same or name in ("a.safetensors", "old.pth"), "only a remembered digest tells these"
    assert n_refused > 20
