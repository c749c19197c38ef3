"""Is what lies on disk the store that is meant? All that refuses, resumes or compares, by headers alone.

What the store that is meant says of itself, whose a folder is, whether a store holds the features that were
asked for, how an extraction goes on with a store that it finds, and whether a readout that learned from one
store can be evaluated on another.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from featcache.buckets.path import absolute
from featcache.clips import ClipIndex
from featcache.errors import CallError, StoreError, few, listed
from featcache.fingerprint import SHORT, differences
from featcache.fingerprint import fingerprint as digest_of
from featcache.store.header import StoreHeader, TargetsReference
from featcache.store.rows import FrameTable
from featcache.store.shards import DAMAGED
from featcache.store.spec import FeatureSpec
from featcache.store.targets import open_targets
from featcache.store.zarr_format import json_bytes
from featcache.system.files import PARTIAL
from featcache.system.locks import Lock

LOCK = ".lock"

OF_THE_SCAN = ("skipped_records", "notes", "clip_list")
"""Provenance that tells of the source files and their labels, so that the last scan is right about it."""

ROLES = ("train", "val", "test")
"""Folders of a cache below a task's."""

OF_THE_SPLIT = frozenset({"clips", "views"})
"""Fingerprint parts in which a training and a validation store may differ."""


def header_for(
    path: Path,
    spec: FeatureSpec,
    parts: Mapping[str, Any],
    clips: ClipIndex,
    provenance: Mapping[str, Any],
    attrs: Mapping[str, Any],
    frames: FrameTable | None,
) -> StoreHeader:
    """The header of a store that is begun, or whose labels are taken over; arguments as `create_or_resume`.

    Raises:
        CallError: clips or frames are not as many as the shape says.
        StoreError: the targets are not there.
    """
    if len(clips) != spec.n_clips:
        raise CallError(f"a store of {spec.n_clips} clips was asked for, the index has {len(clips)}.")
    if spec.n_frames != (None if frames is None else frames.n_frames):
        raise CallError(f"a store with n_frames={spec.n_frames} needs the table of as many distinct frames.")
    own, targets = dict(attrs), None
    if (name := own.pop("targets", None)) is not None:
        found = open_targets(path.parent / name)
        targets = TargetsReference(path=f"../{name}", fingerprint=found.fingerprint, digest=found.digest)
    # Through JSON, in which a tuple becomes a list: as it will be read from disk.
    return StoreHeader(
        spec=spec,
        fingerprint=digest_of(parts),
        frames_digest=clips.frames_digest,
        clips_digest=clips.digest,
        frame_table=None if frames is None else frames.digest,
        targets=targets,
        **json.loads(json_bytes({"parts": parts, "provenance": provenance, "attrs": own})),
    )


def refuse_foreign(path: Path) -> None:
    """Refuse a folder with anything in it that is not ours.

    Raises:
        StoreError: names what is there.
    """
    if path.exists() and not (path / "zarr.json").exists():
        found = [path.name] if not path.is_dir() else sorted(entry.name for entry in path.iterdir())
        strange = [name for name in found if name != LOCK and not name.endswith(PARTIAL)]
        if strange:
            raise StoreError(
                f"{path} is there and is not a feature store (it has {few(strange)}): "
                "move it away, or choose another cache folder."
            )


def hold(path: Path, *, with_others: bool = False) -> Lock:
    """Make the store at `path` this process's own, or shared `with_others`, until the lock is released.

    Raises:
        StoreError: another process has it, and not so.
    """
    busy = f"{path} is being written by another process: wait for it, or end it and run this command again."
    return Lock(path / LOCK, wait=False, busy=busy, shared=with_others)


def refuse_other(
    path: Path, header: StoreHeader, *, fingerprint: str | None, parts: Mapping[str, Any] | None
) -> None:
    """Refuse a store that was edited, or is not the one meant (None: whichever it is).

    Raises:
        StoreError: says in what it differs.
    """
    if (own := digest_of(header.parts)) != header.fingerprint:
        raise StoreError(
            f"{path}/zarr.json was edited: its parts have the fingerprint {own}, it states "
            f"{header.fingerprint}. Put the file back, or delete the store and extract again."
        )
    if parts is not None and (unlike := differences(header.parts, parts)):
        raise StoreError(
            f"{path} holds other features than those asked for:\n{listed(unlike)}\n"
            "Ask for what is here, or run `scivid extract` with the options you want: it makes its own store."
        )
    if fingerprint is not None and fingerprint != header.fingerprint:
        raise StoreError(
            f"{path} holds the features {header.fingerprint}, you asked for {fingerprint}: "
            "the backbone, preprocessing or clips changed. `scivid extract` makes a new store beside it."
        )


def unfinished(path: Path, header: StoreHeader) -> str:
    """What to say of a store that is not finished: how much of it is there, and how to go on."""
    return (
        f"{path} is unfinished: {n_shards_there(path, header)} of {header.spec.n_shards} shards are there. "
        "Run the same `scivid extract` again: it goes on where it stopped."
    )


def n_shards_there(path: Path, header: StoreHeader) -> int:
    """Shards of which every array has a file, by listing them: whether these are whole is not told."""
    return len(set.intersection(*(_shards_there(path / array.name) for array in header.spec.all_arrays)))


def store_name(backbone: object, fingerprint: str) -> str:
    """The folder of a backbone's store in the cache; that of targets is named alike."""
    return f"{backbone}-{fingerprint[:SHORT]}.zarr"


def misplaced(path: Path, header: StoreHeader) -> str | None:
    """What is wrong with where a store lies: a cache has it at TASK/ROLE/BACKBONE-DIGITS.zarr.

    A store that was copied, linked or renamed is still what its header says, not what its place does. None
    where both agree, or where the store lies outside a cache, whose folders say nothing.
    """
    here = absolute(path)  # unresolved: a link is taken for what its place says
    named = re.fullmatch(rf"(.+)-([0-9a-f]{{{SHORT}}})\.zarr", here.name)
    task, role, backbone = (header.attrs.get(name) for name in ("task", "role", "backbone"))
    if named is None or None in (task, role, backbone):
        return None
    own = here.with_name(store_name(backbone, header.fingerprint))
    if here.parent.name in ROLES:
        own = here.parents[2] / str(task) / str(role) / own.name
    if own == here:
        return None
    linked = [at for at in (here, here.parent, here.parents[1]) if at.is_symlink()]
    if linked:
        way_out = ["rm", str(linked[0])]
    else:
        way_out = ["rm", "-r", str(path)] if own.exists() else ["mv", str(path), str(own)]
    return (
        f"{path} says of itself that it is the {role} store of {backbone} for {task}, with the digits "
        f"{header.fingerprint[:SHORT]}: it was copied, linked or renamed to where another belongs. "
        f"Put that right: {shlex.join(way_out)}"
    )


def refuse_misplaced(path: Path, header: StoreHeader) -> None:
    """Refuse a store that lies where another one belongs.

    Raises:
        StoreError: says what it is, and the command that puts it right.
    """
    if (problem := misplaced(path, header)) is not None:
        raise StoreError(
            f"{problem}\nThen `scivid extract` makes the store that belongs there, where it is missing."
        )


def continued(
    path: Path, found: StoreHeader, wanted: StoreHeader, *, with_others: bool = False
) -> StoreHeader:
    """The header to go on with, if the store found is of the same features.

    Its shards stay as they are laid out; what is said of them (labels, targets, attributes) becomes what is
    wanted now. A complete store of which nothing else is said keeps its header, whatever software looks; one
    that is written `with_others` too, for each of them would have another.

    Raises:
        StoreError: it is not; says in what.
    """
    refuse_other(path, found, fingerprint=wanted.fingerprint, parts=wanted.parts)
    if unlike := differences(_shape(found), _shape(wanted)):
        raise StoreError(
            f"{path} holds these features in another shape:\n{listed(unlike)}\n"
            "Ask for the shape that is here, or delete the store."
        )
    of_the_scan = {name: wanted.provenance[name] for name in OF_THE_SCAN if name in wanted.provenance}
    targets = wanted.targets
    if targets is not None and not found.is_sealed:
        targets = replace(targets, digest=None)
    now = replace(
        found,
        attrs=wanted.attrs,
        targets=targets,
        clips_digest=wanted.clips_digest,
        provenance={**found.provenance, **of_the_scan},
    )
    if now == found and (found.complete or with_others):
        return found
    if with_others:
        return now
    return replace(now, provenance=_resumed(now, wanted))


def refuse_incompatible(path: Path, header: StoreHeader, *, train_path: Path, train: StoreHeader) -> None:
    """Refuse a store of features of another kind than those trained on; clips and views may differ.

    Raises:
        StoreError: backbone, preprocessing, layers or tokens differ; lists in what.
    """
    ours, theirs = _kind_of_features(header), _kind_of_features(train)
    if _dataset_of(train) != _dataset_of(header):
        # How files of another data set are decoded is part of which clips they are.
        ours.pop("decoding", None)
        theirs.pop("decoding", None)
    if unlike := differences(ours, theirs):
        raise StoreError(
            f"{path} cannot be evaluated with a readout trained on {train_path}:\n{listed(unlike)}\n"
            "(here: the validation store; asked for: as in training). Extract both with the same options."
        )


def _shards_there(array: Path) -> set[str]:
    """The names of an array's shard files; by listing them, for a header may state more than there can be."""
    return {path.name for path in array.glob("c.*") if path.suffix != DAMAGED} if array.is_dir() else set()


def _shape(header: StoreHeader) -> dict[str, Any]:
    # How many clips share a file, and where they begin in it, is the business of whoever began the store.
    laid_out = ("clips_per_shard", "alignment")
    spec = {name: value for name, value in asdict(header.spec).items() if name not in laid_out}
    return {"spec": spec, "frames": header.frames_digest, "frame table": header.frame_table}


def _resumed(found: StoreHeader, wanted: StoreHeader) -> dict[str, Any]:
    """The first run's provenance, and what of later ones differs from it."""
    first = dict(found.provenance)
    news = {name: value for name, value in wanted.provenance.items() if first.get(name) != value}
    if news and news not in first.get("resumed_with", []):
        first["resumed_with"] = [*first.get("resumed_with", []), news]
    return first


def _dataset_of(header: StoreHeader) -> Any:
    clips = header.parts.get("clips")
    return clips.get("dataset") if isinstance(clips, Mapping) else None


def _kind_of_features(header: StoreHeader) -> dict[str, Any]:
    shape = {"grid": asdict(header.spec.grid), "layers": [layer.name for layer in header.spec.layers]}
    return {name: part for name, part in header.parts.items() if name not in OF_THE_SPLIT} | {"store": shape}
