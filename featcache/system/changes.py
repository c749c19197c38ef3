"""Has a file changed since it was read? Asked by size and time first, then by content."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any


def state_of(path: Path) -> dict[str, Any]:
    """What is written down of a small file, to ask `changed_since` later.

    Raises:
        OSError: it cannot be read.
    """
    about = path.stat()
    digest = sha256(path.read_bytes()).hexdigest()
    return {"path": str(path), "bytes": about.st_size, "mtime_ns": about.st_mtime_ns, "sha256": digest}


def changed_since(state: Mapping[str, Any]) -> Path | None:
    """The file, where another content lies there now; None where it is the same, or out of reach."""
    path = Path(str(state["path"]))
    try:
        about = path.stat()
        if not path.is_file() or (about.st_size, about.st_mtime_ns) == (state["bytes"], state["mtime_ns"]):
            return None
        return path if sha256(path.read_bytes()).hexdigest() != state["sha256"] else None
    except OSError:
        return None
