"""Versions of what is installed, of a checkout that is not, and of what is missing."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from featcache.system import versions
from featcache.system.versions import version_of


def test_a_checkout_that_is_not_installed_has_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert version_of("numpy") == version("numpy")
    assert version_of("no-such-package") == "not installed"

    def nowhere(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(versions, "version", nowhere)
    assert version_of("scivid") == "0.1.0, a checkout"
    monkeypatch.setattr(versions, "_PROJECT", tmp_path / "pyproject.toml")
    assert version_of("scivid") == "not installed"
