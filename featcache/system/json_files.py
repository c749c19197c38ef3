"""JSON of a file that anybody may have changed: its size and depth are bounded."""

import json
from pathlib import Path
from typing import Any

from featcache.system.files import read_regular

MOST_BYTES = 1 << 24
"""Of a small file, unless said otherwise; the index of a model of 7 billion parameters takes a hundredth."""


def read_json(path: Path, *, limit: int = MOST_BYTES) -> Any:
    """What a file says.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
        OSError: it cannot be read, is no regular file, or is larger than `limit` bytes.
    """
    return parse_json(read_regular(path, limit=limit))


def parse_json(content: bytes) -> Any:
    """What a file of this content says.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
