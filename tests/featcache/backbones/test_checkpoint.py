"""Weight files: header first, chosen tensors later, and what is said when one is broken."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from featcache.backbones.checkpoint import read_tensors, tensor_shapes
from featcache.errors import WeightsError

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(4, dtype=torch.float16)}


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
