"""Which versions of packages a result was made with, from an installation or a checkout that is none."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def version_of(package: str) -> str:
    """The version of an installed package; of scivid itself also where it runs from a checkout.

    Of a package that is not there it is `not installed`, for no result is worth less without it.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        if package != "scivid" or not _PROJECT.is_file():
            return "not installed"
    number = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["version"]
    return f"{number}, a checkout"
