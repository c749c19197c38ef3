"""Every path of one run's folder, who may write there, and how it is emptied.

    RESULTS/TASK/BACKBONE-RUN/
      last.safetensors            weights and moments that a killed run goes on from
      history.jsonl               the curve: a JSON object per evaluated step and readout
      predictions_ROLE.parquet    clip, id and the outputs of every readout, for the clips that the task keeps
      evidence_ROLE.npz           per-clip statistics, which scores follow from: a row per clip
      .lock                       held by the process that trains the run

The run's rows of the results table lie beside these folders (`readouts.results.table`).
"""

import fcntl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.system.files import Lock, make_directory

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
        """The checkpoint that a killed run goes on from (`readouts.training.checkpoint`)."""
        return self.path / "last.safetensors"

    @property
    def curve(self) -> Path:
        """The points of the curve (`readouts.results.curve`)."""
        return self.path / "history.jsonl"

    def predictions(self, role: str) -> Path:
        """The outputs on the split `role` (`readouts.results.predictions`)."""
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
        return Lock(self._lock, wait=False, busy=busy)

    def is_held(self) -> bool:
        """Whether another process trains the run; asking does not disturb it."""
        try:
            with self._lock.open("rb") as file:
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

    @property
    def _lock(self) -> Path:
        return self.path / ".lock"
