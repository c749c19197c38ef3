"""Stage one: run a frozen video model once and keep its tokens.

    import featcache

    store = featcache.open_features("features/calms21/val/videomae_b-0123abcd.zarr")
    store.read([0, 5, 7])      # float16 [clip, step, row, column, channel]
    store.to_xarray()          # the same, lazy, with labelled axes

What stands here is imported when it is asked for: `import featcache` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featcache.manifest import load_manifest
    from featcache.store.feature_store import FeatureStore, find_stores, open_features

__all__ = ["FeatureStore", "find_stores", "load_manifest", "open_features"]

_HOMES = {"load_manifest": "manifest"}
"""Name -> module, where it is not `store.feature_store`."""


def __getattr__(name: str) -> Any:
    """One of `__all__`, from the module that has it."""
    if name not in __all__:
        raise AttributeError(f"featcache has no {name}: it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(f"featcache.{_HOMES.get(name, 'store.feature_store')}"), name)


def __dir__() -> list[str]:
    """What completion offers."""
    return list(__all__)
