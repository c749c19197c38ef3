"""The part of a store that is Zarr v3: `zarr.json` of arrays and groups, codecs, chunk keys."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from featcache.store.spec import ArraySpec

SEPARATOR = "."
"""Separates a chunk key's numbers: Zarr's usual slash would make six folders per shard, each to be synced."""

LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}

CRC32C = {"name": "crc32c"}


def array_metadata(array: ArraySpec) -> dict[str, Any]:
    """The `zarr.json` of one array of a store."""
    to_bytes = _to_bytes(np.dtype(array.dtype))
    sharding = {
        "chunk_shape": list(array.chunk_shape),
        "codecs": [to_bytes, CRC32C],
        "index_codecs": [LITTLE, CRC32C],
        "index_location": "end",
    }
    codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return _metadata(array.shape, array.shard_shape, np.dtype(array.dtype), codecs, array.axes)


def plain_metadata(
    shape: tuple[int, ...], chunk_rows: int, dtype: np.dtype[Any], axes: tuple[str, ...]
) -> dict[str, Any]:
    """The `zarr.json` of an array whose every chunk is a file of `chunk_rows` whole rows and a crc32c."""
    chunk_shape = (chunk_rows, *shape[1:])
    return _metadata(shape, chunk_shape, dtype, [_to_bytes(dtype), CRC32C], axes)


def group_metadata(attributes: Mapping[str, Any], arrays: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The `zarr.json` of a group, its arrays' metadata inline, so that no client lists the folder."""
    inline = {"kind": "inline", "must_understand": False, "metadata": dict(arrays)}
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": dict(attributes),
        "consolidated_metadata": inline,
    }


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """A `zarr.json` as we write it: the same bytes for the same content."""
    return json.dumps(document, sort_keys=True, indent=2, allow_nan=False).encode() + b"\n"


def shard_key(array: ArraySpec, shard: int) -> str:
    """Path of a shard file below the store."""
    return f"{array.name}/{chunk_key(shard, len(array.axes))}"


def chunk_key(number: int, n_axes: int) -> str:
    """File name of chunk `number` along the first axis, of an array that is not cut along the others."""
    return SEPARATOR.join(["c", str(number), *"0" * (n_axes - 1)])


def _to_bytes(dtype: np.dtype[Any]) -> dict[str, Any]:
    return LITTLE if dtype.itemsize > 1 else {"name": "bytes"}


def _metadata(
    shape: tuple[int, ...],
    chunk_shape: tuple[int, ...],
    dtype: np.dtype[Any],
    codecs: list[dict[str, Any]],
    axes: tuple[str, ...],
) -> dict[str, Any]:
    # NaN where there is one, so that a chunk that was never written cannot pass for data.
    fill = "NaN" if dtype.kind == "f" else False if dtype.kind == "b" else 0
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": SEPARATOR}},
        "fill_value": fill,
        "codecs": codecs,
        "dimension_names": list(axes),
        "attributes": {},
        "storage_transformers": [],
    }
