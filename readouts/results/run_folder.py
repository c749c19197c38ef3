"""Every path of one run's folder, who may write there, how it is emptied; and the curve in it.

    RESULTS/TASK/BACKBONE-RUN/
      last.safetensors            weights, and moments until the run has ended, to go on from
      history.jsonl               the curve: a JSON object a point and readout, the first with the seal
      predictions_ROLE.parquet    clip, id and the outputs of every readout, for the clips that the task keeps
      evidence_ROLE.npz           per-clip statistics, which scores follow from: a row per clip
      .lock                       held by the process that trains the run

The run's rows of the results table lie beside these folders (`readouts.results.table`). All but the lock are
sealed (`featcache.system.sealed`) and say inside whose they are.
"""

import fcntl
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.errors import DamagedFileError, StoreError, few
from featcache.system.files import make_directory, open_regular, publish, read_regular
from featcache.system.locks import Lock
from featcache.system.sealed import KEY, UNSEALED, check_seal, drop_seal, seal

_LOCK = ".lock"
_CURVE_LIMIT = 2**30
"""Bytes; a point is a few hundred."""
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
    def run(self) -> str:
        """The run whose folder it is."""
        return self.path.name.rpartition("-")[2]

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
            with open(self.path / _LOCK, "rb", opener=open_regular) as file:
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

    def __init__(self, path: Path, steps: Sequence[int]) -> None:
        """Take over what an earlier process wrote.

        Args:
            path: of the file.
            steps: those up to the checkpoint at which the run was evaluated; none of a run that begins.

        Raises:
            StoreError: the file is damaged, or lacks one of the steps.
        """
        self.path = path
        # Of a run that begins nothing is taken over: then nothing that is there can be in the way.
        points = read_curve(path) if steps else []
        kept = set(steps)
        self.points = [point for point in points if point["step"] in kept]
        if missing := sorted(kept - {point["step"] for point in self.points}):
            raise StoreError(
                f"{path} lacks the points of steps {few(missing)}, and the checkpoint beside it is of step "
                f"{steps[-1]}. {_DELETE_BOTH}"
            )
        self._rewrite()

    def add(self, points: Iterable[dict[str, Any]]) -> None:
        """Append points, each with its `step`."""
        self.points.extend(points)
        self._rewrite()

    def _rewrite(self) -> None:
        # As a whole, so that a killed process leaves no torn line.
        publish(self.path, _to_bytes(self.points, RunFolder(self.path.parent).run))


_DELETE_BOTH = (
    "Delete both and give the same command again (train-readout: add --again), which trains the run anew."
)


def read_curve(path: Path) -> list[dict[str, Any]]:
    """All points of a run's curve; none where there is no file, as of a probe.

    Raises:
        DamagedFileError: the file is damaged, or of another run.
    """
    try:
        return _points(read_regular(path, limit=_CURVE_LIMIT), RunFolder(path.parent).run)
    except FileNotFoundError:
        return []
    except (ValueError, OSError, RecursionError) as problem:
        raise DamagedFileError(
            f"{path} cannot be read as a curve ({problem}). The run is trained anew, curve and all, when it "
            f"and last.safetensors beside it are deleted and the run's command is given again."
        ) from problem


def read_whole_curve(path: Path, steps: int) -> list[dict[str, Any]]:
    """The curve of a run that ended after so many steps.

    Raises:
        DamagedFileError: as `read_curve`, or it is missing, or cut short.
    """
    points = read_curve(path)
    if not points or points[-1]["step"] != steps:
        raise DamagedFileError(f"{path} does not reach the last step, {steps}: train with --again.")
    return points


def _to_bytes(points: Sequence[Mapping[str, Any]], run: str) -> bytes:
    """A line a point; the first has run and seal as well, so that every line is a point to any program."""
    if not points:
        return b""
    lines = [{**points[0], "run": run, KEY: UNSEALED}, *points[1:]]
    return seal("".join(json.dumps(line) + "\n" for line in lines).encode())


def _points(content: bytes, run: str) -> list[dict[str, Any]]:
    """What `_to_bytes` was given.

    Raises:
        ValueError, RecursionError: it is nothing that it gave.
    """
    sealed = check_seal(content)
    points = [json.loads(line) for line in content.decode().splitlines()]
    for point in points:
        if not isinstance(point, dict) or not isinstance(point.get("step"), int):
            raise ValueError(f"{str(point)[:60]} is no point of a curve")
        drop_seal(point, sealed=sealed)
        if point.pop("run", run) != run:
            raise ValueError("is of another run")
    return points
