"""Shapes, names and bytes of a store's arrays: values only, no I/O, no torch."""

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, prod
from typing import Literal

from featcache.errors import CallError
from featcache.spec import Layer, TokenGrid
from featcache.store.rows import Rows

TARGET_SHARD_BYTES = 256 * 2**20
"""A shard is the unit of writing and of loss in a crash: large enough to stream, small enough to lose."""

ALIGNMENT = 4096
"""Chunks begin at multiples of so many bytes: a page, and what direct reads into a GPU's memory ask for."""

CRC_BYTES = 4
"""A crc32c, which follows every chunk."""

TokenDtype = Literal["float16", "int8"]
"""What a store keeps its tokens as; int8 has one float32 scale per token beside it: about half the bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySpec:
    """One Zarr array of a store: what a row has in it, and how rows share shards.

    A row is a clip with its views, a chunk each; or a distinct frame, which is one chunk.
    """

    name: str
    dtype: Literal["float16", "int8", "float32"]
    of_a_chunk: tuple[int, ...]
    """Shape of one clip and view, or of one frame."""
    rows: Rows
    rows_per_shard: int
    alignment: int
    """Chunks begin at its multiples; 1 where they follow one another, as stores of version 1 have them."""

    @property
    def axes(self) -> tuple[str, ...]:
        """`dimension_names`: the legend's, as far as they go (a scale is of all channels of a token)."""
        return self.rows.axes[: len(self.shape)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array, in the order of `axes`."""
        return (self.rows.n_rows, *self.rows.view_shape, *self.of_a_chunk)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """One clip and view, or one frame: the unit of reading."""
        return (1, *(1 for _ in self.rows.view_shape), *self.of_a_chunk)

    @property
    def of_a_piece(self) -> tuple[int, ...]:
        """Shape of a chunk with its steps in front: (step, row, column, ...), a frame's is one step."""
        return self.of_a_chunk if self.rows.axis == "clip" else (1, *self.of_a_chunk)

    @property
    def shard_shape(self) -> tuple[int, ...]:
        """All chunks of `rows_per_shard` rows: the unit of writing."""
        return (self.rows_per_shard, *self.rows.view_shape, *self.of_a_chunk)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk, without the checksum."""
        return prod(self.of_a_chunk) * {"int8": 1, "float16": 2, "float32": 4}[self.dtype]

    @property
    def stride(self) -> int:
        """Bytes from the beginning of a chunk to that of the next one in its shard."""
        return ceil((self.chunk_bytes + CRC_BYTES) / self.alignment) * self.alignment

    @property
    def chunks_per_shard(self) -> int:
        """Entries of a shard's index; in the last shard some may lie beyond the array and stay absent."""
        return self.rows_per_shard * self.rows.chunks_per_row


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """The shape of one store: how many clips and views of which grid, at which layers, in which shards.

    A row is what the first axis of its arrays counts: clips, or (`n_frames`) their distinct frames.
    """

    grid: TokenGrid
    layers: tuple[Layer, ...]
    n_clips: int
    n_views: int
    clips_per_shard: int
    """Rows of a shard, be they clips or distinct frames."""
    dtype: TokenDtype = "float16"
    n_frames: int | None = None
    """Distinct frames, of a model that sees each by itself: every one is stored once, and a step of a clip is
    one of them (`featcache.store.rows`). None: the tokens of a clip and view lie together.
    """
    alignment: int = ALIGNMENT
    """As in `ArraySpec`."""

    def __post_init__(self) -> None:
        if not self.layers or len(set(self.layers)) != len(self.layers):
            raise CallError(f"layers {[layer.name for layer in self.layers]} must be one or more, each once.")
        for name in ("n_clips", "n_views", "clips_per_shard", "n_frames", "alignment"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise CallError(f"a store with {name}={getattr(self, name)} would be empty.")

    @cached_property
    def rows(self) -> Rows:
        """What the first axis of the arrays counts."""
        return Rows(grid=self.grid, n_clips=self.n_clips, n_views=self.n_views, n_frames=self.n_frames)

    @property
    def n_shards(self) -> int:
        """Number of shards of each layer's arrays."""
        return ceil(self.rows.n_rows / self.clips_per_shard)

    @property
    def payload_bytes(self) -> int:
        """Bytes of all tokens of all layers, and of their scales, without checksums and indexes."""
        return self.rows.n_chunks * sum(array.chunk_bytes for array in self.all_arrays)

    @cached_property
    def all_arrays(self) -> tuple[ArraySpec, ...]:
        """The arrays of every layer, in order."""
        return tuple(array for layer in self.layers for array in self.arrays(layer))

    def arrays(self, layer: Layer) -> tuple[ArraySpec, ...]:
        """The tokens of a layer and, where they are int8, their scales."""
        assert layer in self.layers
        tokens = ArraySpec(
            name=layer.array,
            dtype=self.dtype,
            of_a_chunk=self.rows.chunk_shape,
            rows=self.rows,
            rows_per_shard=self.clips_per_shard,
            alignment=self.alignment,
        )
        if self.dtype == "float16":
            return (tokens,)
        scales = replace(tokens, name=layer.scale_array, dtype="float32", of_a_chunk=tokens.of_a_chunk[:-1])
        return (tokens, scales)

    def rows_of_shard(self, shard: int) -> range:
        """The rows that shard number `shard` holds; the last shard may hold fewer."""
        first = shard * self.clips_per_shard
        return range(first, min(first + self.clips_per_shard, self.rows.n_rows))


def rows_per_shard_for(rows: Rows, shard_bytes: int = TARGET_SHARD_BYTES) -> int:
    """The number of rows whose shard comes closest to `shard_bytes` from below, at least one.

    From 32 on a multiple of 32, so that the usual batch sizes fill a shard without padding.
    """
    fitting = shard_bytes // rows.row_bytes
    return max(1, min(fitting - fitting % 32 if fitting >= 32 else fitting, rows.n_rows))
