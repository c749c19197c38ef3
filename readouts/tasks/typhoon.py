"""Typhoon: the central pressure of the next hours, from infrared images alone (PROTOCOL: typhoon)."""

from featcache.manifest import Manifest
from readouts.tasks.regression import Regression

MEAN_PRESSURE = 983.9111856685796
"""hPa, over all steps of the training split: what predictions are relative to."""


def task(manifest: Manifest) -> Regression:
    """The benchmark's settings: relative to the mean pressure, the finished update clipped to norm 1."""
    return Regression.of(manifest, "typhoon", offset=MEAN_PRESSURE)
