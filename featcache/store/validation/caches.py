"""Whatever a user names to be validated: a store, a group of targets, a split's folder, a whole cache."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from featcache.store.header import MOST_HEADER_BYTES
from featcache.store.validation.report import Progress, Report
from featcache.store.validation.sealing import seal_store, seal_targets
from featcache.store.validation.stores import validate
from featcache.store.validation.targets import validate_targets
from featcache.system.json_files import read_json


def named(paths: Sequence[Path]) -> list[Path]:
    """The stores and groups of targets that are meant: a folder of them stands for all below it."""
    found: list[Path] = []
    for path in paths:
        below = [] if (path / "zarr.json").exists() or not path.is_dir() else sorted(path.rglob("*.zarr"))
        # A folder without any is named as it is, and refused by who looks into it.
        found += [one for one in below or [path] if not one.name.startswith(".")]
    return list(dict.fromkeys(found))


def validate_any(path: Path, progress: Progress | None = None) -> Report:
    """Check everything about the store or group at `path`; raises nothing about its content."""
    return validate_targets(path, progress) if _holds_targets(path) else validate(path, progress)


def seal_any(path: Path, progress: Progress | None = None) -> tuple[Report, bool]:
    """Check all of a store or group, then give it its digests, if it has none; and whether it had none.

    Raises:
        StoreError: as `seal_store`. Of what is not right the report says so, and nothing is written.
    """
    report = validate_any(path, progress)
    if not report.ok:
        return report, False
    return report, (seal_targets if _holds_targets(path) else seal_store)(path)


def _holds_targets(path: Path) -> bool:
    """By its metadata; by its name where these cannot be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        root = read_json(path / "zarr.json", limit=MOST_HEADER_BYTES)
        return bool(root["attributes"]["scivid"]["kind"] == "targets")
    return path.name.startswith("targets-")
