"""The stores of a cache, by their folders' names."""

from glob import escape
from pathlib import Path

from featcache.errors import StoreError
from featcache.fingerprint import SHORT
from featcache.store.feature_store import FeatureStore
from featcache.store.header import read_header


def store_paths(cache_dir: Path | str, task: str = "*", split: str = "*", backbone: str = "*") -> list[Path]:
    """What is named as a store in a cache, readable or not; of all backbones, `targets` are among them."""
    names = (name if name == "*" else escape(name) for name in (task, split, backbone))
    return sorted(Path(cache_dir).glob("{}/{}/{}-".format(*names) + "?" * SHORT + ".zarr"))


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
