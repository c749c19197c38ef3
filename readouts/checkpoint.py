"""What a run leaves on disk: its state in safetensors, its curve in JSON lines.

Everything is written under a temporary name and renamed, so a killed run finds either the old state or
the new one, and goes on bit for bit as if it had not been killed.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from featcache.errors import StoreError


def save_state(path: Path, tensors: Mapping[str, Tensor], **about: Any) -> None:
    """Write tensors and a few JSON values about them, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        temporary,
        {"about": json.dumps(about)},
    )
    temporary.replace(path)


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint (on the CPU) and what was said about them.

    Raises:
        StoreError: the file is not a checkpoint or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except Exception as problem:  # safetensors raises its own, undocumented kinds
        raise StoreError(f"{path} cannot be read ({problem}): delete it to train anew.") from None


class History:
    """The curve of a run: one JSON object a line, cut back to the checkpoint when a run is resumed."""

    def __init__(self, path: Path, upto_step: int) -> None:
        self.path = path
        self.rows = [row for row in read_history(path) if row["step"] <= upto_step]
        self._rewrite()

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows, each with its `step`."""
        self.rows.extend(rows)
        self._rewrite()

    def _rewrite(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.partial")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        temporary.replace(self.path)


def read_history(path: Path) -> list[dict[str, Any]]:
    """All rows of a run's curve; empty where there is none."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
