"""Find, open and read feature stores.

A store is complete and the one that was asked for, or it is refused with what differs. Threads read straight
from shard files into the caller's buffer, one chunk for each clip and view (or distinct frame); its checksum
is verified when it is first read. The same files open in any Zarr client (`to_xarray`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from glob import escape
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
from jaxtyping import Float16, Float32, Int8, Int64, Integer, Shaped

from featcache.buckets.path import as_zarr_store, place
from featcache.errors import CallError, StoreError
from featcache.fingerprint import SHORT
from featcache.spec import Layer
from featcache.store.clip_table import ClipTable, read_previews, refuse_other_clip_table
from featcache.store.frame_table import read_frame_table
from featcache.store.header import StoreHeader, read_header
from featcache.store.matching import refuse_other, unfinished
from featcache.store.reading.destinations import AsStored, Destination, buffer_for
from featcache.store.reading.layer_reader import LayerReader, UnreadableChunk
from featcache.store.reading.shard_file import OpenShards, misshapen
from featcache.store.reading.threads import READ_THREADS, Threads
from featcache.store.rows import Rows
from featcache.store.spec import FeatureSpec
from featcache.store.targets import Targets, open_targets
from featcache.store.zarr_format import shard_key

if TYPE_CHECKING:
    import xarray

LOOKED_AT = 4
"""Shards of each array whose digest is compared as a store is opened, the first and the last among them."""

MOST_BROKEN = 99
"""Broken shards that are counted before a store is refused."""


class FeatureStore:
    """A feature store opened for reading, from any number of threads; made by `open_features`."""

    def __init__(self, path: Path, header: StoreHeader) -> None:
        self.path = path
        self.header = header
        shards, spec = OpenShards(), self.spec
        self._readers = {
            layer: LayerReader(path, spec.arrays(layer), shards, header.digest_of) for layer in spec.layers
        }
        self._threads = Threads()
        self.clip_table = ClipTable(path, header)
        """The clips with the columns of `clips`, of which no more is read than is asked for."""

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r}: {self.spec.n_clips} clips, {self._layer_names})"

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureStore, (self.path, self.header)

    @property
    def spec(self) -> FeatureSpec:
        """Shape of the store."""
        return self.header.spec

    @property
    def fingerprint(self) -> str:
        """Digest of `parts`."""
        return self.header.fingerprint

    @property
    def parts(self) -> Mapping[str, Any]:
        """Everything that changes a feature."""
        return self.header.parts

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How the store came about: software, skipped clips and why."""
        return self.header.provenance

    @property
    def attrs(self) -> Mapping[str, Any]:
        """What the extraction says of itself: task, backbone, exactness, ..."""
        return self.header.attrs

    @property
    def complete(self) -> bool:
        """Whether every shard was found on disk when the store was finished."""
        return self.header.complete

    @cached_property
    def clips(self) -> pa.Table:
        """All clips: id, source, record, n_source, labels, digest; and shard and position unless by frames.

        Raises:
            StoreError: the table is missing, damaged, or not the one that this store was written with.
        """
        return self.clip_table.whole()

    @cached_property
    def skipped_clips(self) -> frozenset[int]:
        """Clips without features: their source could not be read (`provenance["skipped_clips"]` says why)."""
        return frozenset(entry["clip"] for entry in self.provenance.get("skipped_clips", ()))

    @cached_property
    def skipped_rows(self) -> frozenset[int]:
        """Rows of the arrays that were not written: skipped clips, or distinct frames that cannot be read."""
        return frozenset(self.header.skipped_rows)

    @cached_property
    def rows(self) -> Rows:
        """The rows of the arrays, with the frame table where there is one.

        Raises:
            StoreError: the table is missing or damaged.
        """
        table = read_frame_table(self.path, self.spec, self.header.frame_table)
        return replace(self.spec.rows, table=table)

    def shards_of(self, clips: Int64[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
        """The shard of each clip; where frames are stored once, of the frame that it begins with."""
        return self.rows.first_rows(clips) // self.spec.clips_per_shard

    @property
    def targets(self) -> Targets | None:
        """The targets of the split, shared with other backbones' stores; None where the task has none.

        Raises:
            StoreError: they are missing, or not those this store was extracted with.
        """
        reference = self.header.targets
        if reference is None:
            return None
        return open_targets(
            self.path / reference.path, expected=reference.fingerprint, digest=reference.digest
        )

    def shard_path(self, layer: Layer, shard: int) -> Path:
        """The file of one shard of a layer's tokens."""
        return self.path / shard_key(self.spec.arrays(layer)[0], shard)

    def read(
        self,
        clips: Sequence[int] | Integer[np.ndarray, " B"],
        *,
        views: int | Sequence[int] | Integer[np.ndarray, " B"] = 0,
        layer: Layer | None = None,
        out: Float16[np.ndarray, "B T H W C"] | None = None,
        verify: bool = True,
        threads: int = READ_THREADS,
    ) -> Float16[np.ndarray, "B T H W C"]:
        """Tokens of the given clips, in the order given; those of an int8 store are dequantised.

        Args:
            clips: clip numbers; a number may come more than once.
            views: the view of each clip, or one view for all.
            layer: None is the store's only layer.
            out: the buffer to fill, C-contiguous; a fresh one costs as much as the read itself.
            verify: check the checksum of every chunk that this object has not checked before.
            threads: 1 reads in the calling thread.

        Raises:
            CallError: no such clip, view or layer, or `out` does not fit.
            StoreError: a chunk is damaged or missing, or its clip was skipped; names file, clip and view.
        """
        chunks, layer = self._chunks(clips, views), self._layer(layer)
        out = buffer_for("out", out, np.float16, (len(clips), *self.spec.grid.shape))
        self._read(layer, chunks, self._float16_rows(self.rows.by_chunk(out)), verify, threads)
        return out

    def read_quantized(
        self,
        clips: Sequence[int] | Integer[np.ndarray, " B"],
        *,
        views: int | Sequence[int] | Integer[np.ndarray, " B"] = 0,
        layer: Layer | None = None,
        out: tuple[Int8[np.ndarray, "B T H W C"], Float32[np.ndarray, "B T H W"]] | None = None,
        verify: bool = True,
        threads: int = READ_THREADS,
    ) -> tuple[Int8[np.ndarray, "B T H W C"], Float32[np.ndarray, "B T H W"]]:
        """Tokens of an int8 store as they are on disk, and their scales: a token is `int8 * scale`.

        Half the bytes of `read`, to dequantise on the device or to fold the scale into other arithmetic.
        All else is as in `read`; `out` are the two buffers to fill.

        Raises:
            CallError: as `read`, or the store holds float16.
            StoreError: as `read`.
        """
        if self.spec.dtype != "int8":
            raise CallError(f"{self.path} holds {self.spec.dtype} tokens, not int8: use `read`.")
        chunks, layer = self._chunks(clips, views), self._layer(layer)
        shape = (len(clips), *self.spec.grid.shape)
        levels, scales = out or (None, None)
        levels = buffer_for("out[0]", levels, np.int8, shape)
        scales = buffer_for("out[1]", scales, np.float32, shape[:-1])
        buffers = self.rows.by_chunk(levels), self.rows.by_chunk(scales)
        self._read(layer, chunks, lambda: AsStored(*buffers), verify, threads)
        return levels, scales

    def read_mapped(
        self,
        clips: Sequence[int] | Integer[np.ndarray, " B"],
        *,
        views: int | Sequence[int] | Integer[np.ndarray, " B"] = 0,
        layer: Layer | None = None,
        verify: bool = True,
        threads: int = READ_THREADS,
    ) -> tuple[list[Shaped[np.ndarray, "t H W *C"]], ...] | None:
        """What `read` (of int8, `read_quantized`) gives, where it lies: the pages of mapped files, no copy.

        A list of tokens, and of int8 one of scales; in each as many pieces for every clip, in order: all of
        its steps in one, or a step each where frames are stored once. They last as long as they are held,
        are in memory when this returns, and are read-only. None where files may not be mapped, as those of
        network file systems. Arguments and errors: as `read`.
        """
        chunks, layer = self._chunks(clips, views), self._layer(layer)
        try:
            found = self._readers[layer].pages(chunks, verify=verify, threads=threads, pool=self._threads)
        except UnreadableChunk as problem:
            raise StoreError(self._unreadable(layer, problem)) from problem.__cause__
        if found is None:
            return None
        pairs = zip(self.spec.arrays(layer), found, strict=True)
        return tuple(
            [np.ndarray(array.of_a_piece, array.dtype, piece) for piece in of] for array, of in pairs
        )

    def previews(self) -> dict[int, bytes]:
        """Clip number -> JPEG strip of a few clips as the backbone was given them; empty if none are kept.

        Raises:
            StoreError: the file is damaged, or another store's.
        """
        return read_previews(self.path, self.header)

    def strange_shards(self) -> Iterator[str]:
        """What is wrong with some shards, up to `LOOKED_AT` of each array, by one small read each.

        The others are looked at in the same way when they are first read.
        """
        shards = sorted({i * (self.spec.n_shards - 1) // (LOOKED_AT - 1) for i in range(LOOKED_AT)})
        return chain.from_iterable(reader.strange(shards) for reader in self._readers.values())

    def to_xarray(self) -> "xarray.Dataset":
        """The store as a lazy Dataset: one array per layer, one chunk per clip and view, clip ids beside.

        Where frames are stored once a chunk is a frame, and `data.tokens_12[data.frames[clip, 0]]` a clip.

        An int8 store has two arrays per layer: `data.tokens_12 * data.scales_12` are its tokens, lazily too,
        in float32 (NaN where a clip was skipped). `FeatureStore.read` rounds them to float16.
        """
        import xarray

        dataset = xarray.open_zarr(as_zarr_store(self.path), chunks={}, consolidated=True)
        return cast("xarray.Dataset", dataset.assign_coords(id=("clip", self.clips["id"].to_pylist())))

    def describe(self, clip: int) -> str:
        """A clip as messages name it: `clip 12 (mouse/007.mp4)`."""
        return f"clip {clip} ({self.clip_table.id(clip)})"

    def describe_row(self, row: int) -> str:
        """A row of the arrays as messages name it: a clip, or a frame by a clip in which it occurs."""
        return self.rows.describe(row, self.describe)

    def _read(
        self,
        layer: Layer,
        chunks: Int64[np.ndarray, " B"],
        destination: Callable[[], Destination],
        verify: bool,
        threads: int,
    ) -> None:
        try:
            self._readers[layer].read(chunks, destination, verify=verify, threads=threads, pool=self._threads)
        except UnreadableChunk as found:
            raise StoreError(self._unreadable(layer, found)) from found.__cause__

    def _float16_rows(self, out: Float16[np.ndarray, "B T H W C"]) -> Callable[[], Destination]:
        if self.spec.dtype == "float16":
            return lambda: AsStored(out)
        # Here, for it takes torch, and a look at stores does without.
        from featcache.store.dtypes import Dequantised

        return lambda: Dequantised(out)

    def _unreadable(self, layer: Layer, found: UnreadableChunk) -> str:
        row, view = divmod(found.chunk, found.array.rows.chunks_per_row)
        path = self.path / shard_key(found.array, row // self.spec.clips_per_shard)
        what = f"{self.describe_row(row)}, view {view}, layer {layer.name}"
        if found.problem is not None:
            return f"{path} {found.problem}; {what} was being read. {found.way_out}"
        reason = "was never written: run the same `scivid extract` again"
        if (why := self.header.skipped_rows.get(row)) is not None:
            reason = f"was skipped at extraction ({why}): skip it, `skipped_clips` lists them"
        return f"{path} has no chunk for {what}: it {reason}."

    @property
    def _layer_names(self) -> str:
        return ", ".join(layer.name for layer in self.spec.layers)

    def _chunks(self, clips: Any, views: Any) -> Int64[np.ndarray, " n"]:
        """The chunks that make up a batch, once its clips and views are known to exist."""
        numbers = np.asarray(clips, np.int64)
        view_of = np.full(numbers.shape, views, np.int64)
        for name, values, end in (("clip", numbers, self.spec.n_clips), ("view", view_of, self.spec.n_views)):
            outside = values[(values < 0) | (values >= end)]
            if outside.size:
                raise CallError(f"{self.path} has no {name} {outside[0]}: there are {end}, counted from 0.")
        return self.rows.chunks_of(numbers, view_of)

    def _layer(self, layer: Layer | None) -> Layer:
        layers = self.spec.layers
        if layer is None and len(layers) > 1:
            raise CallError(f"{self.path} holds layers {self._layer_names}: say which.")
        chosen = layer or layers[0]
        if chosen not in layers:
            raise CallError(
                f"{self.path} holds layers {self._layer_names}: "
                f"extract {chosen.name} with --layers {chosen.name}."
            )
        return chosen


def open_features(
    path: Path | str,
    *,
    fingerprint: str | None = None,
    parts: Mapping[str, Any] | None = None,
    allow_incomplete: bool = False,
) -> FeatureStore:
    """Open a feature store that is finished, whole, and the one that was meant.

    Args:
        path: of the store.
        fingerprint: refuse another one.
        parts: refuse a store whose fingerprint is not theirs, and say what differs.
        allow_incomplete: open what there is, as it is.

    Raises:
        StoreError: not a store, not finished, another fingerprint, or a shard file is missing or truncated.
    """
    path = place(path)
    header = read_header(path)
    refuse_other(path, header, fingerprint=fingerprint, parts=parts)
    store = FeatureStore(path, header)
    return store if allow_incomplete else finished(store)


def finished(store: FeatureStore) -> FeatureStore:
    """The store as it is, if it is finished and whole.

    Raises:
        StoreError: it is not finished, or a shard file is missing or truncated.
    """
    spec = store.spec
    if not store.complete:
        raise StoreError(unfinished(store.path, store.header))
    # First, for its length bounds what else is looked at.
    refuse_other_clip_table(store.path, store.header)
    problems = chain.from_iterable(misshapen(store.path, one, store.skipped_rows) for one in spec.all_arrays)
    if broken := list(islice(problems, MOST_BROKEN + 1)) or list(store.strange_shards()):
        n = len(broken) - 1
        more = f" (and {n if n < MOST_BROKEN else f'{n} or'} more)" if n else ""
        raise StoreError(
            f"{broken[0]}{more}, though {store.path} was finished. Run the same `scivid extract` again: "
            "it makes only these shards anew. `scivid validate` finds all damage."
        )
    return store


def store_paths(cache_dir: Path | str, task: str = "*", split: str = "*", backbone: str = "*") -> list[Path]:
    """What is named as a store in a cache, readable or not; of all backbones, `targets` are among them."""
    names = (name if name == "*" else escape(name) for name in (task, split, backbone))
    return sorted(place(cache_dir).glob("{}/{}/{}-".format(*names) + "?" * SHORT + ".zarr"))


def find_stores(
    cache_dir: Path | str, task: str = "*", split: str = "*", backbone: str = "*"
) -> tuple[FeatureStore, ...]:
    """The stores in a cache by path, finished or not; what cannot be read as a store is skipped."""
    return tuple(readable_stores(cache_dir, task, split, backbone)[0])


def readable_stores(cache_dir: Path | str, *names: str) -> tuple[list[FeatureStore], list[str]]:
    """As `find_stores`, by task, split and backbone; and what is wrong with those that it skips."""
    stores, problems = list[FeatureStore](), list[str]()
    for path in store_paths(cache_dir, *names):
        try:
            stores.append(FeatureStore(path, read_header(path)))
        except StoreError as problem:
            if not path.name.startswith("targets-"):
                problems.append(str(problem))
    return stores, problems
