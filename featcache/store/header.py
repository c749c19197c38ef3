"""What a store says of itself: the attributes of its `zarr.json`, as one frozen value.

`complete` is the promise everything else rests on: it is written last, after every shard was found on disk.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from featcache.errors import CallError, StoreError
from featcache.spec import Layer, TokenGrid
from featcache.store.frame_table import table_metadata
from featcache.store.shards import DIGEST_DIGITS
from featcache.store.spec import ALIGNMENT, ArraySpec, FeatureSpec, TokenDtype
from featcache.store.zarr_format import array_metadata, group_metadata, json_bytes
from featcache.system.files import publish_first, read_regular
from featcache.system.json_files import parse_json
from featcache.system.sealed import KEY, UNSEALED, BrokenSealError, check_seal, seal

STORE_VERSION = 2
"""Version of the layout on disk; raised when older code could misread it.

1: chunks follow one another; nothing but payloads and indexes is covered by checksums. 2: a seal on the
header, digests of the shards in it, chunks at multiples of `ALIGNMENT` (unless it was written as 1 and sealed
later, by `scivid validate --seal`).
"""

MOST_HEADER_BYTES = 2**28
"""A `zarr.json` is read whole; one of a million shards takes a tenth of it."""

_MOST = 2**31 - 1
"""No axis of a store is longer: clip numbers are int32 on disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetsReference:
    """Which targets belong to a store."""

    path: str
    """Relative to the store's own folder, so that the cache can be moved."""
    fingerprint: str
    digest: str | None = None
    """Of their values; None of targets, or for a store, of version 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreHeader:
    """A store's shape, origin and state."""

    spec: FeatureSpec
    fingerprint: str
    parts: Mapping[str, Any]
    """Everything that changes a feature: what the fingerprint is the digest of."""
    frames_digest: str
    """Digest of the clip index without its labels: whose features these are."""
    clips_digest: str
    """Digest of the clip index, whose rows are in clips.parquet."""
    frame_table: str | None = None
    """Digest of the table of distinct frames, where these are stored once."""
    targets: TargetsReference | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """How the store came about (software, skipped clips): nothing here changes a feature."""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """What else the extraction says of itself: task, backbone, exactness, ..."""
    complete: bool = False
    shard_digests: Mapping[str, str] | None = None
    """Name of each array -> the digests of its shards in order, `DIGEST_DIGITS` each, without a gap.

    None while the store is unfinished, and of version 1.
    """
    store_version: int = STORE_VERSION

    def __post_init__(self) -> None:
        if taken := self.attrs.keys() & _RESERVED:
            raise CallError(f"store attributes {sorted(taken)} are the store's own: choose other names.")
        assert (self.frame_table is None) == (self.spec.n_frames is None)
        tokens = self.parts.get("tokens")
        stated = tokens.get("dtype") if isinstance(tokens, Mapping) else None
        if self.spec.dtype != "float16" and stated != self.spec.dtype:
            raise CallError(
                f"tokens are to be stored as {self.spec.dtype}, the fingerprint's parts say {stated} "
                "(tokens.dtype): give both alike, so that no other store passes for this one."
            )

    def metadata(self) -> dict[str, Any]:
        """The root `zarr.json` of the store."""
        spec = asdict(self.spec) | {"layers": [layer.name for layer in self.spec.layers]}
        # What is as it always was is not said: stores of before there was a choice stay the same to the byte.
        if self.spec.dtype == "float16":
            del spec["dtype"]
        if self.spec.alignment == 1:
            del spec["alignment"]
        named: dict[str, Any] = {"kind": "features", "spec": _said(spec), "targets": None}
        if self.targets is not None:
            named["targets"] = _said(asdict(self.targets))
        if self.is_sealed:
            named[KEY] = UNSEALED
        others = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("spec", "attrs", "targets")
        }
        return group_metadata({"scivid": {**self.attrs, **named, **_said(others)}}, self.arrays)

    def to_bytes(self) -> bytes:
        """The root `zarr.json` as it is on disk."""
        content = json_bytes(self.metadata())
        return seal(content) if self.is_sealed else content

    @property
    def is_sealed(self) -> bool:
        """Whether the header carries a digest of itself, and those of the shards once it is complete."""
        return self.store_version >= 2

    def digest_of(self, array: ArraySpec, shard: int) -> str | None:
        """The digest that a shard of `array` has; None where none is known."""
        if self.shard_digests is None:
            return None
        return self.shard_digests[array.name][DIGEST_DIGITS * shard : DIGEST_DIGITS * (shard + 1)]

    @property
    def arrays(self) -> dict[str, dict[str, Any]]:
        """Name of each array -> its `zarr.json`."""
        tokens = {array.name: array_metadata(array) for array in self.spec.all_arrays}
        return tokens | table_metadata(self.spec)

    @property
    def skipped_rows(self) -> dict[int, str]:
        """Row of the arrays (clip, or distinct frame) -> why it was not written."""
        return self.spec.rows.skipped_in(self.provenance)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "StoreHeader":
        """Read back what `metadata` made.

        Raises:
            KeyError, TypeError, ValueError: it is not the `zarr.json` of a feature store.
        """
        attrs = dict(metadata["attributes"]["scivid"])
        if attrs.pop("kind") != "features":
            raise ValueError("it does not hold features")
        if (version := attrs["store_version"]) not in (1, STORE_VERSION):
            raise ValueError(
                f"its version is {version!r}: it was written by another version of scivid; install that one, "
                "or extract again"
            )
        if (version >= 2) != (attrs.pop(KEY, None) is not None):
            raise ValueError(f"a store of version {version} has {'no' if version >= 2 else 'a'} seal")
        spec, targets = _spec_from(attrs.pop("spec")), attrs.pop("targets")
        own = {name: attrs.pop(name) for name in _RESERVED & attrs.keys()}
        header = cls(
            spec=spec,
            targets=None if targets is None else TargetsReference(**targets),
            attrs=attrs,
            **own,
        )
        _check_types(header)
        return header


_RESERVED = {f.name for f in fields(StoreHeader)} - {"attrs", "targets"} | {"kind", KEY}


def _said(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if value is not None}


def _spec_from(entries: Mapping[str, Any]) -> FeatureSpec:
    """The shape that a header states, once its numbers are numbers: readers allocate by them."""
    spec = {"alignment": 1, **entries}
    grid, layers = spec.pop("grid"), spec.pop("layers")
    dtype = spec.pop("dtype", "float16")
    for name, value in (*grid.items(), *spec.items()):
        if type(value) is not int or not 1 <= value <= _MOST:
            raise ValueError(f"{name} is {value!r}")
    if dtype not in get_args(TokenDtype) or spec["alignment"] not in (1, ALIGNMENT):
        raise ValueError(f"tokens of {dtype!r} at multiples of {spec['alignment']} bytes")
    return FeatureSpec(grid=TokenGrid(**grid), layers=tuple(map(Layer.parse, layers)), dtype=dtype, **spec)


def _check_types(header: StoreHeader) -> None:
    """Raise ValueError or TypeError where an entry is not of the kind that readers take it for."""
    texts = [header.fingerprint, header.frames_digest, header.clips_digest, header.frame_table or ""]
    if header.targets is not None:
        texts += [header.targets.path, header.targets.fingerprint, header.targets.digest or ""]
    if not all(isinstance(text, str) for text in texts) or type(header.complete) is not bool:
        raise TypeError(f"one of {texts} is no text, or complete={header.complete!r} neither true nor false")
    if not isinstance(header.parts, dict) or not isinstance(header.provenance, dict):
        raise TypeError("parts and provenance are not objects")
    skipped = [(row, why, header.spec.rows.n_rows) for row, why in header.skipped_rows.items()]
    clips = header.provenance.get("skipped_clips", ())
    skipped += [(entry["clip"], entry["reason"], header.spec.n_clips) for entry in clips]
    for row, why, n_rows in skipped:
        if type(row) is not int or not 0 <= row < n_rows or not isinstance(why, str):
            raise ValueError(f"{row!r} of {n_rows} was skipped, because {why!r}")
    digits = None if header.shard_digests is None else DIGEST_DIGITS * header.spec.n_shards
    expected = {array.name: digits for array in header.spec.all_arrays}
    found = header.shard_digests or dict.fromkeys(expected, "")
    if digits is not None and {name: len(each) for name, each in found.items()} != expected:
        raise ValueError("other digests than one a shard")
    if header.is_sealed and header.complete != (digits is not None):
        raise ValueError(
            f"complete={header.complete} with {'no' if digits is None else 'the'} digests of shards"
        )


def read_header(path: Path) -> StoreHeader:
    """The header of the store at `path`, finished or not.

    Raises:
        StoreError: there is no store, or its `zarr.json` cannot be read as one.
    """
    return read_root(path)[0]


def header_if_begun(path: Path, known: StoreHeader | None = None) -> StoreHeader | None:
    """As `read_header`; None where no store has been begun at `path`.

    Where the file still holds the header that is `known`, byte for byte, it is not parsed again.
    """
    root = path / "zarr.json"
    if not root.exists():
        return None
    if known is not None and root.read_bytes() == known.to_bytes():
        return known
    return read_header(path)


def begin(path: Path, wanted: StoreHeader) -> StoreHeader:
    """Write the root, so that a folder with anything in it is known as ours; the header that it has then.

    Another process may be first: then the store is as it said.
    """
    publish_first(path / "zarr.json", wanted.to_bytes())
    return header_if_begun(path, wanted) or wanted


def read_root(path: Path) -> tuple[StoreHeader, Mapping[str, Any]]:
    """The header of the store at `path`, and all of its `zarr.json`.

    Raises:
        StoreError: as `read_header`.
    """
    if not path.is_dir():
        raise StoreError(
            f"{path} is not there: `scivid list stores` shows what is, `scivid extract` makes one."
        )
    try:
        content = read_regular(path / "zarr.json", limit=MOST_HEADER_BYTES)
        check_seal(content)
        document = parse_json(content)
        return StoreHeader.from_metadata(document), document
    except FileNotFoundError:
        raise StoreError(
            f"{path} is not a feature store: it has no zarr.json. `scivid list stores` shows those there are."
        ) from None
    except BrokenSealError as problem:
        raise StoreError(
            f"{path}/zarr.json {problem}. Put back the file as it was, or delete the store and extract again."
        ) from None
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as problem:
        raise StoreError(
            f"{path} is not a feature store that this version reads: its zarr.json gives {problem!r}. "
            "`scivid list stores` shows those there are; a damaged one has to be deleted and extracted again."
        ) from problem
