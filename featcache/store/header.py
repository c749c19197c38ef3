"""What a store says of itself: the attributes of its `zarr.json`, as one frozen value.

`complete` is the promise everything else rests on: it is written last, after every shard was found on disk.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from featcache.errors import CallError, StoreError
from featcache.spec import Layer, TokenGrid
from featcache.store.frame_table import table_metadata
from featcache.store.spec import FeatureSpec
from featcache.store.zarr_format import array_metadata, group_metadata, json_bytes

STORE_VERSION = 1
"""Version of the layout on disk; raised when older code could misread it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetsReference:
    """Which targets belong to a store."""

    path: str
    """Relative to the store's own folder, so that the cache can be moved."""
    fingerprint: str


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
        spec = {name: value for name, value in spec.items() if value is not None}
        named = {"kind": "features", "store_version": STORE_VERSION, "spec": spec}
        own = {
            f.name: value
            for f in fields(self)
            if f.name not in ("spec", "attrs", "targets") and (value := getattr(self, f.name)) is not None
        }
        targets = None if self.targets is None else asdict(self.targets)
        return group_metadata({"scivid": {**self.attrs, **named, **own, "targets": targets}}, self.arrays)

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
        if attrs.pop("store_version") != STORE_VERSION:
            raise ValueError(
                "it was written by another version of scivid; install that one, or extract again"
            )
        spec = dict(attrs.pop("spec"))
        grid, layers = TokenGrid(**spec.pop("grid")), tuple(map(Layer.parse, spec.pop("layers")))
        targets = attrs.pop("targets")
        own = {name: attrs.pop(name) for name in _RESERVED & attrs.keys()}
        return cls(
            spec=FeatureSpec(grid=grid, layers=layers, **spec),
            targets=None if targets is None else TargetsReference(**targets),
            attrs=attrs,
            **own,
        )


_RESERVED = {f.name for f in fields(StoreHeader)} - {"attrs", "targets"} | {"kind", "store_version"}


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
    if known is not None and root.read_bytes() == json_bytes(known.metadata()):
        return known
    return read_header(path)


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
        document = json.loads((path / "zarr.json").read_bytes())
        return StoreHeader.from_metadata(document), document
    except FileNotFoundError:
        raise StoreError(
            f"{path} is not a feature store: it has no zarr.json. `scivid list stores` shows those there are."
        ) from None
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise StoreError(
            f"{path} is not a feature store that this version reads: its zarr.json gives {problem!r}. "
            "`scivid list stores` shows those there are; a damaged one has to be deleted and extracted again."
        ) from problem
