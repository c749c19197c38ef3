"""Tissue tracking: where marked points of a surgical video end up (PROTOCOL: tissue)."""

from featcache.manifest import Manifest
from readouts.tasks.tracking import Tracking


def task(manifest: Manifest) -> Tracking:
    """The benchmark's settings, which are those of any tracking."""
    return Tracking.of(manifest, "stir")
