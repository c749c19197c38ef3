"""The readers by name: those the manifest allows, importable, and none loaded before it is asked for."""

import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

from featcache.data.readers import READERS, open_reader
from featcache.data.readers.base import ReaderType
from featcache.errors import CallError
from featcache.manifest import loading as manifest


def test_every_reader_of_the_manifest_is_there() -> None:
    assert set(READERS) == set(manifest.READERS)
    for path in READERS.values():
        module, _, name = path.partition(":")
        assert isinstance(getattr(import_module(module), name), ReaderType)


def test_listing_readers_loads_none() -> None:
    code = "import featcache.data.readers, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"av", "array_record", "simplejpeg", "PIL", "xarray"} & set(loaded)


def test_an_unknown_split_is_a_wrong_call(shards: Any) -> None:
    with pytest.raises(CallError, match="no split of mice is called 'vall'"):
        open_reader(shards.dataset(), "vall", shards.folder)
