"""Extraction of a single split, for tests."""

from featcache.extract.job import Extraction
from featcache.extract.run import Machine, extract_all
from featcache.store.feature_store import FeatureStore


def extract(job: Extraction, machine: Machine, **options: object) -> FeatureStore:
    """The finished store of one job; options as `extract_all`."""
    (store,) = extract_all([job], machine, **options)  # type: ignore[arg-type]
    return store
