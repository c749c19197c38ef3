"""Every path of one run's folder, who may write there, how it is emptied; and the curve in it.

    RESULTS/TASK/BACKBONE-RUN/
      last.safetensors            weights and moments that a killed run goes on from
      history.jsonl               the curve: a JSON object per evaluated step and readout
      predictions_ROLE.parquet    clip, id and the outputs of every readout, for the clips that the task keeps
      evidence_ROLE.npz           per-clip statistics, which scores follow from: a row per clip
      .lock                       held by the process that trains the run

The run's rows of the results table lie beside these folders (`readouts.results.table`).
"""

import fcntl
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.errors import StoreError
from featcache.system.files import make_directory, publish
from featcache.system.locks import Lock

_LOCK = ".lock"
_WRITTEN_BY_A_RUN = (
    "last.safetensors", "history.jsonl", "predictions_*.parquet", "evidence_*.npz",
    "best_*.safetensors",  # by versions that kept the best weights as well; nothing ever read them
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run; nothing of it need exist yet."""

    path: Path

    @classmethod
    def of(cls, results_dir: Path, row: Mapping[str, Any]) -> "RunFolder":
        """The folder of the run of a results row, of which `task`, `backbone` and `run` are read."""
        return cls(results_dir / str(row["task"]) / f"{row['backbone']}-{row['run']}")

    @property
    def state(self) -> Path:
        """The checkpoint that a killed run goes on from (`readouts.training.trainer`)."""
        return self.path / "last.safetensors"

    @property
    def curve(self) -> Path:
        """The points of the curve, in JSON lines."""
        return self.path / "history.jsonl"

    def predictions(self, role: str) -> Path:
        """The outputs on the split `role` (`readouts.results.per_clip`)."""
        return self.path / f"predictions_{role}.parquet"

    def per_clip(self, role: str) -> Path:
        """The statistics of every clip of the split `role` (`readouts.results.per_clip`)."""
        # They were called evidence when the first of these files were written.
        return self.path / f"evidence_{role}.npz"

    def hold(self) -> Lock:
        """Make the folder this process's own until the lock is released.

        Raises:
            StoreError: another process has it.
        """
        make_directory(self.path)
        busy = f"{self.path} is being trained by another process: wait for it, or stop it and run this again."
        return Lock(self.path / _LOCK, wait=False, busy=busy)

    def is_held(self) -> bool:
        """Whether another process trains the run; asking does not disturb it."""
        try:
            with (self.path / _LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            # No lock, or a file system that has none: nobody holds it.
            return False
        return False

    def forget(self) -> None:
        """Remove all that the run wrote, so that it starts anew."""
        for pattern in _WRITTEN_BY_A_RUN:
            for file in self.path.glob(pattern):
                file.unlink()


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
