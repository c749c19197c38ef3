"""Digests of whatever was read: two readings are the same where these are, whatever they are made of."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch


def digests(found: Any) -> dict[str, str]:
    """A digest of each part of what was read, by its name; of anything but a mapping it is one part."""
    parts = found if isinstance(found, Mapping) else {"all": found}
    return {str(name): digest(value) for name, value in parts.items()}


def digest(value: Any) -> str:
    """The digest of one value: numbers by their bits, containers by what is in them."""
    state = blake2b(digest_size=8)
    _feed(state, value)
    return state.hexdigest()


def contents(folder: Path, *, but: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Every file below a folder, by its path; names that are in `but` are left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in but
    }


def _feed(state: Any, value: Any) -> None:
    if is_dataclass(value) and not isinstance(value, type):
        value = {one.name: getattr(value, one.name) for one in fields(value)}
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            state.update(f"{key}:".encode())
            _feed(state, value[key])
    elif isinstance(value, list | tuple):
        state.update(f"[{len(value)}]".encode())
        for one in value:
            _feed(state, one)
    elif isinstance(value, torch.Tensor):
        _feed(state, value.detach().float().numpy())
    elif isinstance(value, np.ndarray):
        state.update(f"{value.dtype}{value.shape}".encode())
        state.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, pa.Table):
        _feed(state, value.to_pydict())
    elif isinstance(value, bytes):
        state.update(value)
    else:
        state.update(repr(value).encode())
