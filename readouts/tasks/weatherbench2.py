"""Weather: Z500, T850 and Q700 of the next eight days from those of the last eight (PROTOCOL: weather)."""

from featcache.manifest import Manifest
from readouts.tasks.forecast import Forecast


def task(manifest: Manifest) -> Forecast:
    """The benchmark's settings: 10,000 steps at batch 16, the finished update clipped to norm 1."""
    return Forecast.of(manifest, "weatherbench2")
