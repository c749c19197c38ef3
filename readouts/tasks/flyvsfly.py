"""Fly behaviour: seven social behaviours of a pair (PROTOCOL: fly)."""

from featcache.manifest import Manifest
from readouts.tasks.base import Recipe
from readouts.tasks.classification import Classification


def task(manifest: Manifest) -> Classification:
    """The benchmark's settings: no weight decay, and a narrow attention head (width 128)."""
    return Classification.of(
        manifest,
        "flyvsfly",
        recipe=Recipe(weight_decay=0.0),
        attention={"width": 128, "heads": 16, "dropout": 0.5},
    )
