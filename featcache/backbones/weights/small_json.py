"""A small JSON file that came with weights, a config or an index: its size and depth are bounded."""

import json
from pathlib import Path
from typing import Any

from featcache.system.files import read_regular

MOST_BYTES = 1 << 24
"""The index of a model of 7 billion parameters takes a hundredth of that."""


def read_json(path: Path) -> Any:
    """What a file beside weights says.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
        OSError: it cannot be read, is no regular file, or is larger than any such file.
    """
    content = read_regular(path, limit=MOST_BYTES)
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
