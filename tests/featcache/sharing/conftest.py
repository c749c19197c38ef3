"""Small caches, and their bundle."""

import os
from pathlib import Path

import pytest

from featcache.sharing.bundle import Bundle
from featcache.sharing.cut import Cut
from featcache.sharing.export import export
from featcache.sharing.parts import parts_of, stores_of
from featcache.store.feature_store import FeatureStore
from featcache.system.console import silent
from tests.featcache.sharing.small_cache import make_cache
from tests.featcache.system.site import site as site


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, FeatureStore]:
    """Role -> a store of the cache `tmp_path / "features"`."""
    # Durability cannot be seen without pulling the plug, and costs most of the time.
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    return make_cache(tmp_path / "features")


@pytest.fixture
def bundle(stores: dict[str, FeatureStore], tmp_path: Path) -> Path:
    """The bundle of both, whole."""
    write(tmp_path / "features", tmp_path / "bundle")
    return tmp_path / "bundle"


def write(cache: Path, out: Path, cut: Cut | None = None, **options: object) -> tuple[Bundle, list[str]]:
    """Export all stores of a cache."""
    found = stores_of([cache], cache_dir=cache, backbone=None, task=None)
    parts = parts_of(found, cut=cut or Cut(), **options)  # type: ignore[arg-type]
    return export(parts, out, command="scivid export features bundle", progress=silent)
