"""Curves for TensorBoard: the recorded histories of runs, written once more as event files.

Training itself logs to one JSON file a run, which needs no library; who works with TensorBoard converts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featcache.errors import CallError, DamagedFileError
from readouts.results.run_folder import RunFolder, read_curve
from readouts.results.table import readable_results


def write_events(out: Path, *, results_dir: Path) -> tuple[int, list[str]]:
    """Write the curve of every row below `out/task/backbone-run/readout`.

    Returns how many there were, and the messages of files that cannot be read.

    A folder that has events is left alone, so that a second call adds the new runs only.

    Raises:
        CallError: tensorboard is not installed, or there is no run with a curve.
    """
    make_writer = _writer()
    rows, damaged = readable_results(results_dir)
    n_written, problems = 0, [str(problem) for problem in damaged]
    for row in rows:
        folder = RunFolder.of(results_dir, row)
        try:
            points = [p for p in read_curve(folder.curve) if p.get("readout") == row["readout"]]
        except DamagedFileError as problem:
            problems.append(str(problem))
            continue
        if points:
            _write(out / folder.path.relative_to(results_dir) / str(row["readout"]), points, make_writer)
            n_written += 1
    if not n_written:
        raise CallError(f"no curves in {results_dir}: train something first (`scivid train-readout`).")
    return n_written, list(dict.fromkeys(problems))


def _write(folder: Path, points: Sequence[Mapping[str, Any]], make_writer: Any) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        return
    writer = make_writer(str(folder))
    for point in points:
        for name, value in point.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                # Names of scores have slashes, which TensorBoard takes as groups: the first part is ours.
                group = "" if name == "train_loss" or name.startswith("val/") else "minival/"
                writer.add_scalar(f"{group}{name}", value, point["step"])
    writer.close()


def _writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise CallError("event files need the tensorboard package: pip install tensorboard.") from None
    return SummaryWriter
