"""Is a store what it claims to be? Every byte is read and every claim computed again.

Checked are completeness, sizes, checksums of indexes and chunks, finite numbers, the clip table, the
fingerprint, skipped clips, the frame table and the targets.
A problem is one line that names layer, shard file, clip and view; an empty list is the answer one wants.
Shards are read chunk by chunk, a few threads side by side, so memory stays flat.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from featcache.errors import DataError, StoreError, few
from featcache.spec import Layer
from featcache.store.clip_table import CLIPS, PREVIEWS
from featcache.store.dtypes import FLOAT16_MAX, FLOAT16_MAX_BITS, LEVELS, largest_bits
from featcache.store.feature_store import FeatureStore
from featcache.store.frame_table import read_frame_table
from featcache.store.header import MOST_HEADER_BYTES, read_root
from featcache.store.matching import refuse_misplaced, refuse_other, unfinished
from featcache.store.shards import ABSENT, DAMAGED, DamagedShard, Tail, checksum, examine, read_chunk_into
from featcache.store.spec import ArraySpec
from featcache.store.validation.report import Progress, Report
from featcache.store.validation.targets import array_problems
from featcache.store.zarr_format import shard_key
from featcache.system.files import open_file
from featcache.system.json_files import read_json

THREADS = 4


def validate(path: Path, progress: Progress | None = None, *, threads: int = THREADS) -> Report:
    """Check everything about the store at `path`; raises nothing about its content.

    Args:
        path: of the store, finished or not.
        progress: called after each shard.
        threads: shards read at the same time.
    """
    try:
        header, root = read_root(path)
    except StoreError as problem:
        return _report(path, [str(problem)], [], [])
    store = FeatureStore(path, header)
    problems = list(_problems_beside_shards(store, root))
    audits = _audit_all(store, progress or (lambda done, total: None), threads)
    problems += _completeness_problems(store, audits)
    for audit in audits:
        problems += audit.problems
        problems += _skip_problems(store, audit)
    return _report(path, problems, [*_magnitudes(store, audits), *_notes(store)], audits)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Audit:
    """What one shard file is like."""

    layer: Layer
    path: Path
    shard: int
    problems: tuple[str, ...] = ()
    present: Bool[np.ndarray, "B V"] | None = None
    """Which chunks it holds; None where the file or its index could not be read."""
    missing: bool = False
    damaged: bool = False
    """Whether it is to be made anew; not where the system could not read it this time."""
    n_good: int = 0
    n_bytes: int = 0
    largest: float = 0.0
    """Largest magnitude among its tokens, without NaN; that of int8 tokens is in the file of their scales."""


def _report(path: Path, problems: list[str], notes: list[str], audits: list[_Audit]) -> Report:
    return Report(
        path=path,
        problems=tuple(problems),
        notes=tuple(notes),
        damaged=tuple(audit.path for audit in audits if audit.damaged),
        n_shards=sum(not audit.missing for audit in audits),
        n_chunks=sum(audit.n_good for audit in audits),
        n_bytes=sum(audit.n_bytes for audit in audits),
    )


def _audit_all(store: FeatureStore, progress: Progress, threads: int) -> list[_Audit]:
    pool = ThreadPoolExecutor(threads, "validate")
    try:
        futures = [
            pool.submit(_audit, store, layer, array, shard)
            for layer, array in _arrays(store)
            for shard in range(store.spec.n_shards)
        ]
        for done, _ in enumerate(as_completed(futures), start=1):
            progress(done, len(futures))
    except BaseException:
        # Ctrl-C: without this, every shard that was queued would still be read.
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    return [future.result() for future in futures]


def _arrays(store: FeatureStore) -> list[tuple[Layer, ArraySpec]]:
    return [(layer, array) for layer in store.spec.layers for array in store.spec.arrays(layer)]


def _audit(store: FeatureStore, layer: Layer, array: ArraySpec, shard: int) -> _Audit:
    path = store.path / shard_key(array, shard)
    found_so = partial(_Audit, layer=layer, path=path, shard=shard)
    try:
        present, tail = examine(path, array, shard, sums=store.header.is_sealed)
        with open_file(path) as file:
            found = list(_chunk_findings(array, file.fileno(), present, tail))
    except FileNotFoundError:
        return found_so(missing=True)
    except (DamagedShard, OSError) as problem:
        damaged = isinstance(problem, DamagedShard)
        rows = store.spec.rows_of_shard(shard)
        who = f"{_who(store, rows.start)} to {_who(store, rows.stop - 1)}"
        what = problem if isinstance(problem, DamagedShard) else f"cannot be read ({problem.strerror})"
        line = f"layer {layer.name}, {path} {what}: none of {who} can be read."
        return found_so(problems=(line,), damaged=damaged)
    first = store.spec.rows_of_shard(shard).start
    problems = (
        *_strange(layer, path, tail, store.header.digest_of(array, shard)),
        *(
            f"layer {layer.name}, {path} {what}: {_who(store, first + row)}, view {view}."
            for row, view, what, _ in found
            if what
        ),
    )
    return found_so(
        problems=problems,
        damaged=bool(problems),
        present=present,
        n_good=sum(largest is not None for *_, largest in found),
        n_bytes=path.stat().st_size,
        largest=max((largest for *_, largest in found if largest is not None), default=0.0),
    )


def _strange(layer: Layer, path: Path, tail: Tail, digest: str | None) -> Iterator[str]:
    try:
        tail.refuse_other(digest)
    except DamagedShard as problem:
        yield f"layer {layer.name}, {path} {problem}."


def _chunk_findings(
    array: ArraySpec, fd: int, present: Bool[np.ndarray, "B V"], tail: Tail
) -> Iterator[tuple[int, int, str, float | None]]:
    """Every chunk there is: position, view, what is wrong, largest magnitude if its checksum is right."""
    chunk = np.empty(array.of_a_chunk, array.dtype)
    for slot, (position, view) in zip(
        np.flatnonzero(tail.index[:, 0] != ABSENT).tolist(), np.argwhere(present).tolist(), strict=True
    ):
        offset = int(tail.index[slot, 0])
        try:
            read_chunk_into(fd, offset, chunk)
        except DamagedShard as problem:
            yield position, view, str(problem), None
            continue
        if tail.sums is not None and int.from_bytes(checksum(chunk), "little") != tail.sums[slot]:
            yield position, view, f"has another chunk at byte {offset} than was written there", None
            continue
        yield position, view, *_numbers(chunk)


def _numbers(chunk: np.ndarray) -> tuple[str, float]:
    """What is wrong with the numbers of a chunk; else the largest magnitude of a token that they tell of."""
    if chunk.dtype == np.int8:
        return "", 0.0
    if chunk.dtype == np.float16:
        bits = largest_bits(chunk)
        if bits > FLOAT16_MAX_BITS:
            return "holds NaN or infinity", 0.0
        return "", float(np.uint16(bits).view(np.float16))
    # Of scales; of float16's largest number the scale may be rounded up.
    if not ((chunk >= 0) & (chunk * LEVELS < FLOAT16_MAX + 1)).all():
        return "holds a scale that is negative, not finite or beyond float16", 0.0
    return "", float(chunk.max()) * LEVELS


def _problems_beside_shards(store: FeatureStore, root: Mapping[str, Any]) -> Iterator[str]:
    for check in (_metadata_problems, _clip_problems, _frame_problems, _target_problems, _preview_problems):
        try:
            yield from check(store, root)
        except StoreError as problem:
            yield str(problem)


def _metadata_problems(store: FeatureStore, root: Mapping[str, Any]) -> Iterator[str]:
    document = json.loads(store.header.to_bytes())
    for name, wanted in document["consolidated_metadata"]["metadata"].items():
        path = store.path / name / "zarr.json"
        try:
            found = read_json(path, limit=MOST_HEADER_BYTES)
            if not isinstance(found, dict):
                raise ValueError("it is not a JSON object")
        except (OSError, ValueError) as problem:
            yield f"{path} cannot be read: {problem}. Other Zarr clients need it."
            continue
        if unlike := sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)):
            yield f"{path} was edited: {', '.join(unlike)} do not describe this store."
    if root != document:
        yield f"{store.path / 'zarr.json'} was edited: its inline metadata do not describe this store."
    refuse_other(store.path, store.header, fingerprint=None, parts=None)
    refuse_misplaced(store.path, store.header)


def _clip_problems(store: FeatureStore, _: Mapping[str, Any]) -> Iterator[str]:
    path, table = store.path / CLIPS, store.clip_table
    try:
        digest = table.index().digest
        mislocated = next(_mislocated(store), None)
    except (KeyError, pa.ArrowException, DataError) as problem:
        yield f"{path} cannot be read as the clip table: {problem}."
        return
    if mislocated is not None:
        yield f"{path} puts {_who(store, mislocated)} in another shard or position than the one it is in."
    if digest != store.header.clips_digest:
        yield f"{path} was edited: its rows have the digest {digest}, not {store.header.clips_digest}."


def _mislocated(store: FeatureStore) -> Iterator[int]:
    """Clips that the table has in another shard or position than the one they are in."""
    rows, start = store.spec.rows, 0
    for block in store.clip_table.blocks(*rows.location_columns(1, range(0))):
        clips = range(start, start + len(block))
        wrong = np.zeros(len(block), np.bool_)
        for name, wanted in rows.location_columns(store.spec.clips_per_shard, clips).items():
            wrong |= block[name].to_numpy() != wanted
        yield from (start + np.flatnonzero(wrong)).tolist()
        start = clips.stop


def _frame_problems(store: FeatureStore, _: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the table by which clips are put together from frames, if there is one."""
    table = read_frame_table(store.path, store.spec, store.header.frame_table)
    if table is not None and table.n_frames != store.spec.n_frames:
        yield f"{store.path}: its table has {table.n_frames} frames, its arrays {store.spec.n_frames}."


def _target_problems(store: FeatureStore, _: Mapping[str, Any]) -> Iterator[str]:
    if (targets := store.targets) is None:
        return
    for name in targets.metadata:
        n_rows, first_axis = targets.shape(name)[0], targets.metadata[name]["dimension_names"][0]
        if first_axis == "clip" and n_rows != store.spec.n_clips:
            yield f"targets {name!r} have {n_rows} rows, the store has {store.spec.n_clips} clips."
        yield from array_problems(targets, name)


def _preview_problems(store: FeatureStore, _: Mapping[str, Any]) -> Iterator[str]:
    strangers = [clip for clip in store.previews() if not 0 <= clip < store.spec.n_clips]
    if strangers:
        yield f"{store.path / PREVIEWS} has previews of clips {few(strangers)}, which the store has not."


def _completeness_problems(store: FeatureStore, audits: Iterable[_Audit]) -> Iterator[str]:
    if not store.complete:
        yield unfinished(store.path, store.header)
        return
    for audit in filter(attrgetter("missing"), audits):
        yield (
            f"layer {audit.layer.name}, {audit.path} is missing. "
            "Run the same `scivid extract` again: it makes only this shard anew."
        )


def _skip_problems(store: FeatureStore, audit: _Audit) -> Iterator[str]:
    """Chunks that are absent though nothing says so, or there though their clip is said to be skipped."""
    if audit.present is None or not store.complete:
        return
    for row, present in zip(store.spec.rows_of_shard(audit.shard), audit.present, strict=True):
        skipped = row in store.skipped_rows
        listed = f"holds a chunk of a {store.spec.rows.axis} listed as skipped"
        what = listed if skipped else "lacks a chunk without a reason"
        for view in np.flatnonzero(present == skipped):
            yield f"layer {audit.layer.name}, {audit.path} {what}: {_who(store, row)}, view {view}."


def _magnitudes(store: FeatureStore, audits: Iterable[_Audit]) -> Iterator[str]:
    for layer in store.spec.layers:
        largest = max(audit.largest for audit in audits if audit.layer == layer)
        if largest > FLOAT16_MAX / 4:
            yield f"layer {layer.name}: largest magnitude {largest:.5g}, float16 ends at {FLOAT16_MAX:.0f}."


def _notes(store: FeatureStore) -> list[str]:
    aside = [
        f"{path} was set aside as damaged ({path.stat().st_size} bytes): delete it when nobody needs it."
        for array in store.spec.all_arrays
        for path in (store.path / array.name).glob(f"*{DAMAGED}")
    ]
    unsealed = [] if store.header.is_sealed else [_UNSEALED.format(store.path)]
    skipped = [f"{_who(store, row)} was skipped: {why}" for row, why in store.header.skipped_rows.items()]
    left_out = [
        f"record {entry['record']} of {entry['source']} was skipped by the scan: {entry['reason']}"
        for entry in store.provenance.get("skipped_records", ())
    ]
    return [*unsealed, *sorted(aside), *skipped, *left_out, *store.provenance.get("notes", ())]


_UNSEALED = (
    "{0} is of version 1: a shard of another store would not be noticed. "
    "`scivid validate --seal {0}` adds the digests that tell."
)


def _who(store: FeatureStore, row: int) -> str:
    """`clip 12 (its id)`, or a frame, also where the clip table itself is broken."""
    try:
        return store.describe_row(row)
    except (OSError, KeyError, IndexError, pa.ArrowException, StoreError):
        return f"{store.spec.rows.axis} {row}"
