"""A small JSON file that came with weights, a config or an index: its size and depth are bounded."""

import json
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 24
"""The index of a model of 7 billion parameters takes a hundredth of that."""


def read_json(path: Path) -> Any:
    """What a file beside weights says.

    Raises:
        ValueError: it is no JSON in UTF-8, or too large or too deep to be what it should.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise ValueError("it is not a regular file")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has {path.stat().st_size:,} bytes, more than any such file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
