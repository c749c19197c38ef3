"""Create a store, write it shard by shard, resume it, mark it complete.

A shard is staged under a temporary name for every layer and then published, so what is done is what is on
disk and passes its index checksum; there is no ledger to corrupt. The reasons of skipped clips are a file per
shard, published before it. `complete` comes last. A finished store is a pure function of its inputs: one
that was killed and resumed is the same, byte for byte (runs.jsonl, the log of the runs, excepted).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from featcache.clips import ClipIndex
from featcache.errors import CallError, StoreError, few
from featcache.spec import Layer
from featcache.store.clip_table import PREVIEWS, preview_bytes, write_clip_table
from featcache.store.dtypes import FLOAT16_MAX, Quantised, UnstorableError, as_stored
from featcache.store.feature_store import FeatureStore
from featcache.store.frame_table import write_frame_table
from featcache.store.header import MOST_HEADER_BYTES, StoreHeader, begin, header_if_begun
from featcache.store.matching import continued, header_for, hold, refuse_foreign
from featcache.store.rows import FrameTable
from featcache.store.shards import DAMAGED, DamagedShard, examine, shard_bytes, write_chunks
from featcache.store.spec import ArraySpec, FeatureSpec
from featcache.store.target_writer import write_targets as write_targets
from featcache.store.zarr_format import json_bytes, shard_key
from featcache.system.files import (
    Staged,
    append_line,
    failures_explained,
    make_directory,
    publish,
    read_regular,
    remove_leftovers,
)
from featcache.system.locks import Lock
from featcache.system.sealed import json_sealed, json_unsealed

SKIPPED = "skipped"
"""Folder of the reasons why clips were skipped, one file per shard, until the store is finished."""

NOTHING: Mapping[Any, Any] = MappingProxyType({})

Tokens = Float[np.ndarray, "B V T H W C"] | Quantised
"""Of all rows of a shard at one layer."""


def create_or_resume(
    path: Path,
    *,
    spec: FeatureSpec,
    parts: Mapping[str, Any],
    clips: ClipIndex,
    provenance: Mapping[str, Any],
    attrs: Mapping[str, Any],
    frames: FrameTable | None = None,
    found: StoreHeader | None = None,
    with_others: bool = False,
) -> "StoreWriter":
    """Start a store, or go on with the one at `path`, and hold its lock.

    Damaged shard files are set aside (`StoreWriter.damaged`) and are to be written again. Labels, attributes
    and targets are taken as given, of a complete store too: they change no feature. Shards stay as they are.

    Args:
        path: of the store.
        spec: its shape; a store that is there keeps its own `clips_per_shard` (`StoreWriter.spec`).
        parts: what the fingerprint is made of.
        clips: the clip index.
        provenance: how the store came about; of a resumed store the first run's stays, and what differs
            goes to `resumed_with`.
        attrs: further attributes. `targets` is the name of the targets group beside the store, or None.
        frames: which distinct frame each clip has at each step, where `spec` says that these are stored once.
        found: the header of the store that is there, where the caller has read it.
        with_others: several processes write it, each its own shards (`StoreWriter.take`; none until then).
            The store is as the first of them began it.

    Raises:
        StoreError: something else is at `path`, or another process is writing there.
    """
    wanted = header_for(path, spec, parts, clips, provenance, attrs, frames)
    refuse_foreign(path)
    with failures_explained(path, left=lambda: spec.payload_bytes):
        make_directory(path)
        lock = hold(path, with_others=with_others)
        try:
            # Only now, for whoever held the lock before may have written it.
            found = header_if_begun(path, found)
            if found is None:
                found = begin(path, wanted)
            header = wanted
            if found is not wanted:
                header = continued(path, found, wanted, with_others=with_others)
            _lay_out(path, header, clips, frames, root=not with_others or header != found)
            return StoreWriter(path, header, clips, lock, frames, all_shards=not with_others)
        except BaseException:
            lock.release()
            raise


class StoreWriter:
    """Writes one store; made by `create_or_resume`, used in a `with` statement or closed."""

    def __init__(
        self,
        path: Path,
        header: StoreHeader,
        clips: ClipIndex,
        lock: Lock,
        frames: FrameTable | None,
        *,
        all_shards: bool = True,
    ) -> None:
        self.path = path
        self.header = header
        self.damaged: tuple[str, ...] = ()
        """What was set aside when the store was opened, with the reasons."""
        self._clips = clips
        self._rows = replace(header.spec.rows, table=frames)
        self._lock = lock
        self._absent_of: dict[int, tuple[int, ...]] = {}
        """Shard that was found or written -> its rows that were skipped."""
        self._digest_of: dict[tuple[str, int], str] = {}
        self._sweep()
        self.take(range(header.spec.n_shards if all_shards else 0))

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def spec(self) -> FeatureSpec:
        """Shape of the store."""
        return self.header.spec

    @property
    def absent_rows(self) -> frozenset[int]:
        """Rows that were skipped in the shards that are on disk, as far as they were looked at."""
        return frozenset(row for rows in self._absent_of.values() for row in rows)

    def take(self, shards: Sequence[int]) -> None:
        """Be concerned with these shards from here on: find out on disk which of them are done."""
        self._ours = shards
        self._look(shards)
        if self.catch_up():
            self._look(shards)

    def todo(self) -> list[int]:
        """The shards still to be written, in order."""
        return [shard for shard in self._ours if shard not in self._absent_of]

    def is_done(self, shard: int) -> bool:
        """Whether a shard is on disk by now: another process may have written it."""
        self._look([shard])
        # Or have finished the store: then the reasons of skipped rows are in its header.
        if shard not in self._absent_of and self.catch_up():
            self._look([shard])
        return shard in self._absent_of

    def write_shard(
        self,
        shard: int,
        tokens: Mapping[Layer, Tokens],
        skipped: Mapping[int, str] = NOTHING,
    ) -> None:
        """Write one shard of every layer through to the disk, or nothing of it.

        Several threads may each write one at the same time.

        Args:
            shard: its number.
            tokens: float16 or float32 of all rows of the shard (clips, or distinct frames: one view and one
                step each), for each layer; stored in the store's dtype. Or int8 that was quantised before.
            skipped: number of a row -> why it has no tokens; they are not looked at.

        Raises:
            CallError: layers or shapes are not the store's, or a skipped row is not of this shard.
            StoreError: a value does not fit float16, or the disk is full. What was written before stays.
        """
        self._check_call(shard, tokens, skipped)
        needed = self._bytes_of([shard])
        with failures_explained(self.path, needed=needed, left=self._bytes_left), ExitStack() as staged:
            if skipped:
                reasons = {str(row): reason for row, reason in skipped.items()}
                publish(self.path / SKIPPED / f"{shard}.json", json_sealed(reasons))
            files = []
            for layer in self.spec.layers:
                arrays = self.spec.arrays(layer)
                of_layer = [staged.enter_context(Staged(self.path / shard_key(a, shard))) for a in arrays]
                chunks = self._chunks(shard, layer, tokens[layer], skipped)
                write_chunks([file.fd for file in of_layer], chunks, arrays)
                files += of_layer
            for file in files:
                file.publish()
        self._absent_of[shard] = tuple(sorted(skipped))

    def write_previews(self, rows: Iterable[tuple[int, bytes]]) -> None:
        """Keep JPEG strips of a few clips: (clip number, JPEG)."""
        content = preview_bytes(self.header, rows)
        with failures_explained(self.path, needed=len(content), left=self._bytes_left):
            publish(self.path / PREVIEWS, content)

    def log_run(self, **facts: object) -> None:
        """Append what this run did (clips, seconds, device) to runs.jsonl, which no digest covers."""
        when = datetime.now(UTC).isoformat(timespec="seconds")
        line = json_sealed({"logged": when, **facts}, sort_keys=False)
        append_line(self.path / "runs.jsonl", line.decode().rstrip())

    def finish(self, accept: Callable[[int], None] = lambda n_absent: None) -> FeatureStore:
        """Find every shard on disk, mark the store complete, let go of the lock, open the store.

        `accept` is told before how many rows were skipped, and may raise.

        Raises:
            StoreError: shards are missing or damaged.
        """
        with failures_explained(self.path):
            self._sweep()
            self.take(range(self.spec.n_shards))
            if left := self.todo():
                there, n = self.spec.n_shards - len(left), self.spec.n_shards
                raise StoreError(
                    f"{self.path} has {there} of {n} shards; missing or damaged: {few(left)}. "
                    "Run the same `scivid extract` again: it writes what is left."
                )
            if not self.header.complete:
                accept(len(self.absent_rows))
                self._complete()
            self._forget_reasons()
        self.close()
        return FeatureStore(self.path, self.header)

    def close(self) -> None:
        """Let go of the lock; what was written stays and can be resumed."""
        self._lock.release()

    def catch_up(self) -> bool:
        """Take over the header on disk if it changed, for another process may write too; whether it did."""
        if self.header.complete:
            return False
        before, self.header = self.header, header_if_begun(self.path, self.header) or self.header
        return self.header is not before

    def _complete(self) -> None:
        absent = {
            row: self._known[row] for shard in sorted(self._absent_of) for row in self._absent_of[shard]
        }
        skipped = self._rows.skipped(absent, lambda clip: self._clips.clip(clip).id)
        # The reasons are in the header before their files go, and the files are gone before the mark is set.
        self._publish_header(replace(self.header, provenance={**self.header.provenance, **skipped}))
        self._forget_reasons()
        digests = None
        if self.header.is_sealed:
            digests = {
                array.name: "".join(self._digest_of[array.name, shard] for shard in range(self.spec.n_shards))
                for array in self.spec.all_arrays
            }
        self._publish_header(replace(self.header, complete=True, shard_digests=digests))

    def _forget_reasons(self) -> None:
        """Remove their files, and the folder unless another process is writing there."""
        for path in (self.path / SKIPPED).glob("*.json"):
            path.unlink(missing_ok=True)
        remove_leftovers(self.path / SKIPPED)
        with suppress(OSError):
            (self.path / SKIPPED).rmdir()

    def _publish_header(self, header: StoreHeader) -> None:
        publish(self.path / "zarr.json", header.to_bytes())
        self.header = header

    def _sweep(self) -> None:
        for array in self.spec.all_arrays:
            remove_leftovers(self.path / array.name)

    def _look(self, shards: Sequence[int]) -> None:
        """Find out on disk which shards are done, and clear away what is broken."""
        reasons = self._known = self._reasons()
        for shard in shards:
            absent = self._absent_rows(shard)
            if absent is not None and reasons.keys() >= set(absent):
                self._absent_of[shard] = absent
            else:
                self._absent_of.pop(shard, None)
        if self.header.complete and any(shard not in self._absent_of for shard in shards):
            self._publish_header(replace(self.header, complete=False, shard_digests=None))

    def _absent_rows(self, shard: int) -> tuple[int, ...] | None:
        """The rows that a shard on disk does not hold, in any array or view; None if it is not done."""
        held = [self._presence(array, shard) for array in self.spec.all_arrays]
        first = held[0]
        if first is None or any(other is None or (other != first[:, :1]).any() for other in held):
            return None
        start = self.spec.rows_of_shard(shard).start
        return tuple((start + np.flatnonzero(~first[:, 0])).tolist())

    def _presence(self, array: ArraySpec, shard: int) -> Bool[np.ndarray, "B V"] | None:
        path, wanted = self.path / shard_key(array, shard), self.header.digest_of(array, shard)
        try:
            present, tail = examine(path, array, shard, sums=self.header.is_sealed)
            if self.header.is_sealed:
                self._digest_of[array.name, shard] = tail.digest
                tail.refuse_other(wanted)
            return present
        except FileNotFoundError:
            return None
        except DamagedShard as problem:
            with suppress(FileNotFoundError):  # another process set it aside
                path.replace(path.with_name(path.name + DAMAGED))
            self.damaged = (*self.damaged, f"{path} {problem}: set aside as {path.name}{DAMAGED}")
            return None

    def _reasons(self) -> dict[int, str]:
        """Why rows were skipped, of all shards; of rows that are there after all as well."""
        reasons = self.header.skipped_rows
        for path in sorted((self.path / SKIPPED).glob("*.json")):
            # Of a damaged file nothing is known: its shard is made anew, and then the file is as well.
            with suppress(OSError, ValueError):
                found, _ = json_unsealed(read_regular(path, limit=MOST_HEADER_BYTES))
                reasons |= {int(row): str(reason) for row, reason in found.items()}
        return reasons

    def _bytes_left(self) -> int:
        return self._bytes_of(self.todo())

    def _bytes_of(self, shards: Iterable[int]) -> int:
        n_chunks = (len(self.spec.rows_of_shard(shard)) * self._rows.chunks_per_row for shard in shards)
        return sum(len(self.spec.layers) * shard_bytes(self.spec, n) for n in n_chunks)

    def _check_call(self, shard: int, tokens: Mapping[Layer, Tokens], skipped: Mapping[int, str]) -> None:
        spec = self.spec
        if not 0 <= shard < spec.n_shards:
            raise CallError(f"{self.path} has no shard {shard}: there are {spec.n_shards}, counted from 0.")
        if tokens.keys() != set(spec.layers):
            came, has = ([layer.name for layer in layers] for layers in (tokens, spec.layers))
            raise CallError(f"shard {shard} came with layers {came}: {self.path} has {has}.")
        rows = spec.rows_of_shard(shard)
        wanted = (len(rows), *self._rows.row_shape)
        for layer, given in tokens.items():
            values = given.levels if isinstance(given, Quantised) else given
            dtypes = ["float16", "float32"] if values is given else ["int8"] * (spec.dtype == "int8")
            if values.shape != wanted or values.dtype.name not in dtypes:
                found = f"layer {layer.name}: {values.dtype}{list(values.shape)}"
                raise CallError(f"shard {shard}, {found} is not float16/32 {list(wanted)}.")
        if strangers := sorted(set(skipped) - set(rows)):
            raise CallError(f"skipped {strangers}: shard {shard} has {rows.start} to {rows.stop - 1}.")

    def _chunks(
        self, shard: int, layer: Layer, tokens: Tokens, skipped: Mapping[int, str]
    ) -> Iterator[tuple[np.ndarray, ...] | None]:
        """The chunks of a shard in C order of (row, view), as stored; one buffer serves all of them."""
        n_views, *of_a_view = self._rows.row_shape
        buffer = np.empty(of_a_view, np.float16)
        for number, row in enumerate(self.spec.rows_of_shard(shard)):
            for view in range(n_views):
                if row in skipped:
                    yield None
                    continue
                at = number, view
                of_chunk = (
                    Quantised(*(a[at] for a in tokens)) if isinstance(tokens, Quantised) else tokens[at]
                )
                try:
                    yield as_stored(of_chunk, self.spec.dtype, buffer)
                except UnstorableError as problem:
                    raise StoreError(self._overflow(row, view, layer, problem)) from None

    def _overflow(self, row: int, view: int, layer: Layer, problem: UnstorableError) -> str:
        what = self._rows.describe(row, lambda clip: f"clip {clip} ({self._clips.clip(clip).id})")
        return (
            f"{what}, view {view}, layer {layer.name}: the value {problem.value} "
            f"at (step, row, column, channel) {problem.index} does not fit float16, which ends at "
            f"{FLOAT16_MAX:.0f}. Extract another layer (--layers; final-normed tokens stay small), or run "
            "the model in float32. The shards written before are kept."
        )


def _lay_out(
    path: Path, header: StoreHeader, clips: ClipIndex, frames: FrameTable | None, *, root: bool
) -> None:
    """Write everything but the shards; the `root`, if it is to be, last.

    For its digest vouches for the clip table: a kill in between shows, and the next run mends it.
    """
    for name, metadata in header.arrays.items():
        publish(path / name / "zarr.json", json_bytes(metadata))
    write_frame_table(path, frames)
    write_clip_table(path, header, clips)
    if root:  # unless it is as it was found: another process may have marked it complete since
        publish(path / "zarr.json", header.to_bytes())
    remove_leftovers(path)
