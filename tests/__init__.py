"""Tests, as a package: others in site-packages are called `tests` too, and would be found first."""

from tests import checked_calls

checked_calls.install()
