"""Which stores are exported, and what of each: looked at and refused before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import CallError, StoreError, did_you_mean, few
from featcache.sharing.bundle import refuse_path
from featcache.sharing.cut import Cut, header_of
from featcache.store.feature_store import FeatureStore, open_features, store_paths
from featcache.store.header import StoreHeader
from featcache.store.matching import ROLES, store_name
from featcache.store.shards import shard_bytes
from featcache.store.targets import Targets
from featcache.store.validation.caches import named


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What is exported of one store."""

    store: FeatureStore
    header: StoreHeader
    targets: Targets | None

    @property
    def path(self) -> str:
        """Where it is, below the bundle and in a cache."""
        return f"{self._folder}/{store_name(self.header.attrs['backbone'], self.header.fingerprint)}"

    @property
    def targets_path(self) -> str | None:
        """Where its targets are, likewise."""
        return None if self.targets is None else f"{self._folder}/{self.targets.path.name}"

    @property
    def n_bytes(self) -> int:
        """Bytes of its shards."""
        spec, skipped = self.header.spec, self.store.skipped_rows
        rows = (set(spec.rows_of_shard(shard)) - skipped for shard in range(spec.n_shards))
        n_chunks = [len(each) * spec.rows.chunks_per_row for each in rows]
        return len(spec.layers) * sum(shard_bytes(spec, n) for n in n_chunks)

    @property
    def _folder(self) -> str:
        return f"{self.header.attrs['task']}/{self.header.attrs['role']}"


def stores_of(
    named_paths: Sequence[Path], *, cache_dir: Path, backbone: str | None, task: str | None
) -> list[Path]:
    """The stores that are meant: paths, or folders of stores; or what a cache has of a backbone and a task.

    Raises:
        CallError: both are named, or neither; or there is no such store.
    """
    if bool(named_paths) == bool(backbone or task):
        raise CallError("name the stores and last the new folder; or --backbone, --task, and the new folder.")
    meant = few(named_paths) if named_paths else f"{cache_dir}/{task or '*'}/*/{backbone or '*'}-*.zarr"
    found = named(named_paths) if named_paths else store_paths(cache_dir, task or "*", "*", backbone or "*")
    stores = [path for path in found if not path.name.startswith("targets-")]
    if not stores:
        raise CallError(f"no store is at {meant}: `scivid list stores` shows those there are.")
    return stores


def parse_roles(text: str) -> tuple[str, ...]:
    """The splits that `all`, or a list with commas, names.

    Raises:
        CallError: one is none.
    """
    roles = ROLES if text == "all" else tuple(role.strip() for role in text.split(","))
    if strange := [role for role in roles if role not in ROLES]:
        raise CallError(
            f"--split {few(strange)}: splits are {', '.join(ROLES)}.{did_you_mean(strange[0], ROLES)}"
        )
    return roles


def parts_of(paths: Sequence[Path], *, cut: Cut, roles: Sequence[str] = ROLES) -> list[Part]:
    """What is to be exported, every store of it looked at; opens no shard but a few.

    Args:
        paths: of stores.
        cut: the layers and views to take.
        roles: splits to take; stores of others are left out.

    Raises:
        CallError: nothing is left, or a store lacks what is asked for.
        StoreError: a store is unfinished, damaged or of version 1, or two are the same after the cut.
    """
    stores = [store for store in map(open_features, paths) if store.attrs.get("role") in roles]
    if not stores:
        raise CallError(f"nothing to export: no store of {', '.join(roles)} was named.")
    parts = [_part(store, cut) for store in stores]
    if twice := {part.path for part in parts if sum(part.path == other.path for other in parts) > 1}:
        raise StoreError(
            f"{few(twice)}: two of the stores hold the same, or differ only in what is left out. "
            "Name one of them."
        )
    if len({part.targets_path for part in parts}) != len(
        {(part.targets_path, _values(part)) for part in parts}
    ):
        raise StoreError(
            "the stores are of several caches, whose targets have one name and other values: "
            "export one cache at a time."
        )
    return parts


def _part(store: FeatureStore, cut: Cut) -> Part:
    lacking = [name for name in ("task", "role", "backbone") if not isinstance(store.attrs.get(name), str)]
    if lacking:
        raise StoreError(
            f"{store.path} does not say of which {lacking[0]} it is: no other cache has a place for it."
        )
    targets = store.targets
    for path, sealed in ((store.path, store.header.is_sealed), (targets and targets.path, _sealed(targets))):
        if not sealed:
            raise StoreError(
                f"{path} is of version 1, which cannot tell damage: add its digests first, with "
                f"`scivid validate --seal {path}`."
            )
    part = Part(store=store, header=header_of(store, cut), targets=targets)
    refuse_path(part.path, depths=(3,))
    return part


def _values(part: Part) -> str | None:
    return None if part.targets is None else part.targets.digest


def _sealed(targets: Targets | None) -> bool:
    return targets is None or targets.sums is not None
