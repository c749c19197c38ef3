"""Write a bundle: some stores, or parts of them, with all that another lab needs to train from them.

Chunks are copied, each held against its checksum; headers, clip tables and what else tells of the stores is
written anew where it names a part or this machine. The bundle appears whole, under its name, or not at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from featcache.errors import StoreError, few
from featcache.sharing.bundle import CERTIFICATE, INDEX, Bundle, Golden, SharedFile, SharedFolder, one_line
from featcache.sharing.cut import copy_shard
from featcache.sharing.golden import golden_of
from featcache.sharing.parts import Part
from featcache.sharing.private import places, without_places
from featcache.sharing.sources import copy_file
from featcache.sharing.terms import terms_of
from featcache.store.clip_table import CLIPS, PREVIEWS, preview_bytes
from featcache.store.feature_store import open_features
from featcache.store.frame_table import write_frame_table
from featcache.store.zarr_format import json_bytes
from featcache.system.console import Progress
from featcache.system.fetch import sha256_of
from featcache.system.files import (
    make_directory,
    read_regular,
    remove,
    remove_leftovers,
    require_room,
    sync_directory,
    temporary_beside,
    write_file,
)
from featcache.system.sealed import json_sealed, json_unsealed
from featcache.system.versions import version_of

SOFTWARE = ("scivid", "numpy", "pyarrow")
"""Packages whose versions a bundle keeps."""

_MOST_CERTIFICATE_BYTES = 2**28


def export(parts: Sequence[Part], out: Path, *, command: str, progress: Progress) -> tuple[Bundle, list[str]]:
    """Write the bundle `out` of these parts; its index, and what to know about it, a line each.

    Args:
        parts: as `parts_of` gives them.
        out: a folder that is not there yet.
        command: that repeats the export.
        progress: told of bytes in MB.

    Raises:
        StoreError: something is at `out`, the disk would not hold it, or a chunk is damaged.
        OSError: what the operating system refuses; nothing is left at `out`.
    """
    if out.exists() or out.is_symlink():
        raise StoreError(f"{out} is there: give the bundle another name, or remove what is there.")
    n_bytes = sum(part.n_bytes for part in parts)
    require_room(
        out.parent, n_bytes, what=f"the bundle {out}", way_out="ask for less with --layers or --split"
    )
    make_directory(out.parent)
    remove_leftovers(out.parent)
    folder = temporary_beside(out)
    try:
        notes, told = list[str](), _Told(progress, n_bytes)
        folders = [*_write_targets(parts, folder)]
        folders += [_write_store(part, parts, folder, told, notes) for part in parts]
        bundle = Bundle(
            folders=tuple(folders),
            terms=tuple(dict.fromkeys(one for part in parts for one in terms_of(part.header))),
            software={name: version_of(name) for name in SOFTWARE},
            command=one_line(str(without_places(command))),
            made=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_file(folder / INDEX, [bundle.to_bytes()])
        for below in [path for path in folder.rglob("*") if path.is_dir()]:
            sync_directory(below)
        folder.rename(out)
        sync_directory(out.parent)
    finally:
        remove(folder)
    return bundle, notes


class _Told:
    """How many of all bytes are written."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def more(self, n_bytes: int) -> None:
        self.done += n_bytes
        self.progress("exporting, MB", self.done // 10**6, self.total // 10**6)


def _write_targets(parts: Sequence[Part], out: Path) -> Iterator[SharedFolder]:
    """The groups of targets of all parts, each once."""
    groups = {part.targets_path: part.targets for part in parts if part.targets is not None}
    for path, targets in groups.items():
        assert path is not None
        for array in targets.metadata:
            targets.chunk_sums(array)  # refuses a damaged one
        for name in targets.files:
            copy_file(targets.path / name, out / path / name)
        yield SharedFolder(path=path, files=_files(out / path))


def _write_store(part: Part, parts: Sequence[Part], out: Path, told: _Told, notes: list[str]) -> SharedFolder:
    store, header, to = part.store, part.header, out / part.path
    for name, metadata in header.arrays.items():
        write_file(to / name / "zarr.json", [json_bytes(metadata)])
    write_frame_table(to, store.rows.table)
    _ = store.clips  # refuses another's
    copy_file(store.path / CLIPS, to / CLIPS)
    if previews := store.previews():
        write_file(to / PREVIEWS, [preview_bytes(header, previews.items())])
    if (certificate := _certificate(part, parts, notes)) is not None:
        write_file(to / CERTIFICATE, [json_sealed(certificate, sort_keys=False, allow_nan=True, indent=1)])
    digests = dict[str, list[str]]()
    for shard in range(header.spec.n_shards):
        for layer in header.spec.layers:
            for name, digest in copy_shard(store, header, layer, shard, to).items():
                digests.setdefault(name, []).append(digest)
        told.more(part.n_bytes // header.spec.n_shards)
    header = replace(header, shard_digests={name: "".join(of) for name, of in digests.items()})
    write_file(to / "zarr.json", [header.to_bytes()])
    of_targets = {} if part.targets is None else part.targets.parts
    names = [store.clips[column].unique().to_pylist() for column in ("id", "source")]
    if told_anyway := places([header.parts, header.attrs, of_targets, *names]):
        notes.append(
            f"{part.path} names {few(sorted(set(told_anyway)), 2)} in what its fingerprint or its clips "
            "are made of, so that stays."
        )
    return SharedFolder(path=part.path, files=_files(to), golden=_golden(to))


def _golden(path: Path) -> tuple[Golden, ...]:
    """Those of the store as it was written, so that what is compared later was read back once."""
    return golden_of(open_features(path))


def _files(folder: Path) -> tuple[SharedFile, ...]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(
        SharedFile(
            path=path.relative_to(folder).as_posix(), n_bytes=path.stat().st_size, sha256=sha256_of(path)
        )
        for path in paths
    )


def _certificate(part: Part, parts: Sequence[Part], notes: list[str]) -> dict[str, Any] | None:
    """What is certified of the layers that go along; None where nothing is."""
    path = part.store.path / CERTIFICATE
    found: Mapping[str, Any] = {}
    with suppress(FileNotFoundError):
        try:
            found, _ = json_unsealed(read_regular(path, limit=_MOST_CERTIFICATE_BYTES))
        except ValueError as problem:
            raise StoreError(f"{path} cannot be read ({problem}): delete it and certify again.") from problem
    if found and part.header.spec.n_views != part.store.spec.n_views:
        notes.append(
            f"{part.path}: its certificate is of {part.store.spec.n_views} views, so it stays behind."
        )
        return None
    kept = {
        name: without_places(found[name])
        for layer in part.header.spec.layers
        if (name := layer.name) in found
    }
    now = {other.store.fingerprint: other.header.fingerprint for other in parts}
    for entry in kept.values():
        for key in ("train_fingerprint", "val_fingerprint"):
            if key in entry:
                entry[key] = now.get(entry[key], entry[key])
    return kept or None
