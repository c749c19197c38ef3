"""JSON that is too large, too deep, or no file."""

import os
from pathlib import Path

import pytest

from featcache.system.json_files import MOST_BYTES, read_json


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a": [1]}')
    assert read_json(path) == {"a": [1]}
    path.write_text("[" * 200_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match="utf-8"):
        read_json(path)
    os.truncate(path, MOST_BYTES + 1)
    with pytest.raises(OSError, match="longer than the 16,777,216 bytes"):
        read_json(path)
    path.unlink()
    for make in (os.mkfifo, lambda place: place.symlink_to("/dev/zero")):
        make(path)
        with pytest.raises(OSError, match="not a regular file"):
            read_json(path)
        path.unlink()
