"""Mouse behaviour: four social behaviours of a pair (PROTOCOL: mouse)."""

from featcache.manifest import Manifest
from readouts.tasks.base import Recipe
from readouts.tasks.classification import Classification


def task(manifest: Manifest) -> Classification:
    """The benchmark's settings, which are also the defaults of a classification."""
    return Classification.of(
        manifest, "calms21", recipe=Recipe(), attention={"width": 1024, "heads": 16, "dropout": 0.5}
    )
