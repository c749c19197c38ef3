"""`data_manifest.yaml`, and a user's own laid over it, as frozen values checked when they are read."""

from featcache.manifest.loading import load_manifest, shipped_manifest
from featcache.manifest.values import (
    KINDS,
    OWN_VIDEOS,
    READERS,
    Augmentation,
    Dataset,
    Manifest,
    Pixels,
    Published,
    PublishedResult,
    Split,
    Task,
    TokenSteps,
    Windows,
)

__all__ = [
    "KINDS",
    "OWN_VIDEOS",
    "READERS",
    "Augmentation",
    "Dataset",
    "Manifest",
    "Pixels",
    "Published",
    "PublishedResult",
    "Split",
    "Task",
    "TokenSteps",
    "Windows",
    "load_manifest",
    "shipped_manifest",
]
