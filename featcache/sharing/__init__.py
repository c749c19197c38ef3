"""Stores that travel: bundles that another lab imports, and trains from, without data and weights."""
