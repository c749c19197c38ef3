"""Tests, as a package: others in site-packages are called `tests` too, and would be found first."""
