"""Tensors of a weight file by name: all names and shapes first, then only the tensors that are asked for.

A file is checked against a model by its header, so early exit never reads the blocks it will not run.
"""

import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from featcache.errors import WeightsError

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(path: Path) -> Shapes:
    """Name -> shape of every tensor in a `.safetensors` file or a torch pickle of tensors.

    Raises:
        WeightsError: the file cannot be read, or is not a flat dict of tensors.
    """
    if path.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in _pickled(path).items()}
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as problem:
        raise _unreadable(path, problem) from problem


def read_tensors(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """The tensors called `names`, on the CPU, in the file's own dtype.

    Raises:
        WeightsError: the file cannot be read.
    """
    if path.suffix != ".safetensors":
        tensors = _pickled(path)
        return {name: tensors[name] for name in names}
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as problem:
        raise _unreadable(path, problem) from problem


def _pickled(path: Path) -> dict[str, Tensor]:
    # weights_only refuses code in the pickle; mmap leaves the tensors on disk until they are used.
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as problem:
        raise _unreadable(path, problem) from problem
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise WeightsError(
            f"{path} is not a flat dict of tensors: save the model's state_dict() and nothing around it."
        )
    return tensors


def _unreadable(path: Path, problem: Exception) -> WeightsError:
    reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
    return WeightsError(
        f"{path} cannot be read ({reason}): the download may be incomplete, fetch the file again."
    )
