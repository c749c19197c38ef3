"""Tensors of a weight file by name: all names and shapes first, then only the tensors that are asked for.

A file is checked against a model by its header, so early exit never reads the blocks it will not run. Nothing
in a file is executed: safetensors, npz without pickled objects, torch pickles of tensors only.
"""

import argparse
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from featcache.backbones.weights.npz import npz_arrays
from featcache.backbones.weights.shard_index import files_of, files_of_tensors, is_index
from featcache.errors import WeightsError

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class TensorFile:
    """An open weight file: what is in it, and how to get one tensor of it."""

    shapes: Shapes
    """Name -> shape of every tensor in it."""
    read: Callable[[str], Tensor]
    """Name -> tensor, on the CPU, in the file's own dtype; memory-mapped where the format allows."""
    origin: str
    """The file's path, as messages name it."""
    part_of: Mapping[str, str] = field(default_factory=dict)
    """Name of a tensor -> path of the file that holds it, where there are several."""


@contextmanager
def open_tensors(
    path: Path, *, sections: tuple[str, ...] = (), skipped: tuple[str, ...] = (), every: bool = False
) -> Iterator[TensorFile]:
    """The tensors of `.safetensors` (or the index of several), `.npz` or a torch pickle (any other suffix).

    A pickle may be a dict of state dicts, as training scripts save it: then the first of `sections` that is
    there is taken. `skipped` names state dicts beside it that are known and not needed; optimiser states
    and numbers may be there too. With `every`, all tensors of all of them are given, a dict's name before
    those in it and a point between.

    Raises:
        WeightsError: the file cannot be read, holds something other than tensors, or state dicts that are
            not known.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is not a regular file: put the weights there, or a link to them.")
    if path.suffix == ".safetensors":
        with _safetensors(path) as file:
            yield TensorFile(_shapes_in(path, file), _reader(path, file.get_tensor), str(path))
    elif is_index(path):
        with ExitStack() as opened:
            yield _indexed(path, opened)
    elif path.suffix == ".npz":
        yield _npz(path)
    else:
        tensors = _everything(path) if every else _pickled(path, sections, skipped)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        yield TensorFile(shapes, _reader(path, tensors.__getitem__), str(path))


def tensor_shapes(path: Path, *, every: bool = False) -> Shapes:
    """Name -> shape of every tensor in a flat weight file, or of all state dicts in it.

    Raises:
        WeightsError: as `open_tensors`.
    """
    with open_tensors(path, every=every) as file:
        return file.shapes


def _safetensors(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except Exception as problem:  # of the library's own kinds, and of the system's
        raise _unreadable(path, problem) from problem


def _shapes_in(path: Path, file: Any) -> Shapes:
    try:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except Exception as problem:
        raise _unreadable(path, problem) from problem


def _reader(path: Path, get: Callable[[str], Tensor]) -> Callable[[str], Tensor]:
    """A tensor by its name, of numbers that weights can be."""

    def read(name: str) -> Tensor:
        try:
            tensor = get(name)
        except Exception as problem:  # whatever a damaged file makes its library raise
            raise _unreadable(path, problem) from problem
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise WeightsError(
                f"{path} holds {name} as {tensor.dtype}, {tensor.layout}, not as plain floating-point "
                "numbers: use the file as it was released, or save the model in float32."
            )
        return tensor

    return read


def _indexed(index: Path, opened: ExitStack) -> TensorFile:
    home = files_of_tensors(index)
    files = {path: opened.enter_context(_safetensors(path)) for path in files_of(index)}
    shapes: Shapes = {}
    for path, file in files.items():
        names = _shapes_in(path, file)
        if lacking := [name for name, of in home.items() if of == path and name not in names]:
            raise WeightsError(
                f"{path} lacks {lacking[0]}, which {index.name} says is there: fetch it again."
            )
        # Those that the index does not name are told as well: none goes unaccounted for.
        shapes |= names
        home |= dict.fromkeys(names.keys() - home.keys(), path)
    return TensorFile(
        shapes,
        lambda name: _reader(home[name], files[home[name]].get_tensor)(name),
        str(index),
        {name: str(path) for name, path in home.items()},
    )


def _npz(path: Path) -> TensorFile:
    try:
        arrays = npz_arrays(path)
    except WeightsError:
        raise
    except Exception as problem:  # zipfile and numpy raise a dozen kinds for what is damaged
        raise _unreadable(path, problem) from problem

    def get(name: str) -> Tensor:
        array = arrays[name].read()
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=False))

    return TensorFile({name: array.shape for name, array in arrays.items()}, _reader(path, get), str(path))


def _pickled(path: Path, sections: tuple[str, ...], skipped: tuple[str, ...]) -> dict[str, Tensor]:
    content = _unpickled(path)
    if not isinstance(content, dict):
        raise _not_tensors(path, sections)
    chosen = next((name for name in sections if name in content), None)
    if chosen is None:
        tensors = content
    else:
        tensors = content[chosen]
        others = [name for name, value in content.items() if name != chosen and _is_model(value)]
        _refuse_unknown_models(path, chosen, [name for name in others if name not in skipped])
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()
    ):
        raise _not_tensors(path, sections)
    return tensors


def _everything(path: Path) -> dict[str, Tensor]:
    """All floating-point tensors of a pickle by the names on the way to them."""
    found: dict[str, Tensor] = {}

    def look(content: object, name: str) -> None:
        if isinstance(content, dict):
            for key, value in content.items():
                look(value, f"{name}.{key}" if name else str(key))
        elif isinstance(content, Tensor) and content.is_floating_point() and name:
            found[name] = content

    look(_unpickled(path), "")
    if not found:
        raise _not_tensors(path, ())
    return found


def _unpickled(path: Path) -> Any:
    try:
        # weights_only refuses code in the pickle; a Namespace is inert, and training scripts save their
        # arguments as one. mmap leaves the tensors on disk until they are used; files older than torch 1.6
        # cannot be mapped.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as problem:  # a damaged pickle raises nearly anything
        raise _unreadable(path, problem) from problem


def _is_model(value: object) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, dict) and any(isinstance(entry, Tensor) for entry in value.values())
    )


def _refuse_unknown_models(path: Path, chosen: str, unknown: list[str]) -> None:
    if unknown:
        raise WeightsError(
            f"{path} holds tensors under {', '.join(map(repr, unknown))} beside {chosen!r}, which scivid "
            "does not know: use the file as it was released."
        )


def _not_tensors(path: Path, sections: tuple[str, ...]) -> WeightsError:
    under = (
        f", as it is or under {' or '.join(map(repr, sections))}" if sections else " and nothing around it"
    )
    return WeightsError(f"{path} is not a flat dict of tensors: save the model's state_dict(){under}.")


def _unreadable(path: Path, problem: Exception) -> WeightsError:
    reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
    if isinstance(problem, pickle.UnpicklingError):
        # torch's own message advises to run the code that it found.
        reason = "it is damaged, or holds more than tensors, of which nothing was run"
    return WeightsError(
        f"{path} cannot be read ({_looks_like(path) or reason}): the download may be incomplete, fetch the "
        "file again."
    )


def _looks_like(path: Path) -> str | None:
    """What a file is that has the name of another kind; None where that cannot be told."""
    with path.open("rb") as file:
        start = file.read(256)
    is_zip = path.suffix != ".safetensors"  # and then damaged, if at all
    kinds = {
        "it is empty": not start,
        "it is a web page, not weights": start.lstrip().startswith(b"<"),
        "it is a pointer of Git LFS, which `git lfs pull` replaces by the file": start.startswith(
            b"version https://git-lfs"
        ),
        "it is a zip, as .npz and .pth are, under another name": start.startswith(b"PK") and not is_zip,
        "it is a .safetensors file under another name": start[8:10] == b'{"' and is_zip,
    }
    return next((kind for kind, so in kinds.items() if so), None)
