"""Weight files: header first, chosen tensors later, and what is said when one is broken."""

from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from featcache.backbones.weights.checkpoint import open_tensors, tensor_shapes
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
