"""What we write is what zarr-python would write."""

from dataclasses import replace

import numpy as np
import pytest
import zarr
from zarr.core.metadata import ArrayV3Metadata

from featcache.spec import Layer, TokenGrid
from featcache.store.spec import ArraySpec, FeatureSpec
from featcache.store.zarr_format import array_metadata, shard_key

GRID = TokenGrid(steps=1, rows=1, columns=2, channels=2)  # 8 bytes a chunk

SPEC = FeatureSpec(grid=GRID, layers=(Layer(3),), n_clips=5, n_views=2, clips_per_shard=2)

INT8 = replace(SPEC, dtype="int8")

(ARRAY,) = SPEC.arrays(Layer(3))


def chunk(value: float) -> np.ndarray:
    return np.full(GRID.shape, value, np.float16)


@pytest.mark.parametrize(
    ("array", "fill"),
    [
        (ARRAY, float("nan")),
        (INT8.arrays(Layer(3))[0], 0),
        (INT8.arrays(Layer(3))[1], float("nan")),
    ],
    ids=["float16", "int8", "scales"],
)
def test_metadata_say_what_zarr_python_would_say(array: ArraySpec, fill: float) -> None:
    ours = ArrayV3Metadata.from_dict(array_metadata(array))
    theirs = zarr.create_array(
        zarr.storage.MemoryStore(),
        name="a",
        shape=array.shape,
        chunks=array.chunk_shape,
        shards=array.shard_shape,
        dtype=array.dtype,
        fill_value=fill,
        compressors=zarr.codecs.Crc32cCodec(),
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=("clip", "view", "step", "row", "column", "channel")[: len(array.shape)],
    )
    assert ours.to_dict() == theirs.metadata.to_dict()


def test_a_shard_is_where_zarr_looks_for_it() -> None:
    assert shard_key(replace(ARRAY, name="tokens_12_normed"), 7) == "tokens_12_normed/c.7.0.0.0.0.0"
