"""The curve of a run in JSON lines: an object per evaluated step and readout, with its loss and scores."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from featcache.errors import StoreError
from featcache.system.files import publish


class Curve:
    """The curve of a run in training, cut back to the checkpoint when the run is resumed."""

    def __init__(self, path: Path, upto_step: int) -> None:
        self.path = path
        self.points = [point for point in read_curve(path) if point["step"] <= upto_step]
        self._rewrite()

    def add(self, points: Iterable[dict[str, Any]]) -> None:
        """Append points, each with its `step`."""
        self.points.extend(points)
        self._rewrite()

    def _rewrite(self) -> None:
        # As a whole, so that a killed process leaves no torn line.
        publish(self.path, "".join(json.dumps(point) + "\n" for point in self.points).encode())


def read_curve(path: Path) -> list[dict[str, Any]]:
    """All points of a run's curve; none where there is no file, as of a probe.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    except ValueError as problem:
        raise StoreError(f"{path} cannot be read as a curve ({problem}): train with --again.") from problem
