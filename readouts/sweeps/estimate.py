"""How long passes will take, by what runs of their kind took that are in the results table."""

from collections.abc import Sequence
from statistics import median

from readouts.results.comparability import Row, seconds_of, tuning_of
from readouts.results.configurations import grouped
from readouts.training.run import Run


def estimate(passes: Sequence[Sequence[Run]], rows: Sequence[Row]) -> tuple[float, int]:
    """Seconds of the passes whose every run has its like in the table, and the number of the others.

    Alike are runs of one task, backbone and readout, with as much of the backbone tuned.
    """
    timed = [row for row in rows if row["seconds"] is not None]
    per_step = {
        key: median(seconds_of(row) / max(1, row["steps"]) for row in alike)
        for key, alike in grouped(timed, _of_row).items()
    }
    seconds, n_unknown = 0.0, 0
    for one in passes:
        known = [per_step.get(_of_run(run)) for run in one]
        if None in known:
            n_unknown += 1
        else:
            seconds += sum(filter(None, known)) * max(1, one[0].n_steps)
    return seconds, n_unknown


def _of_row(row: Row) -> tuple[str, ...]:
    return row["task"], row["backbone"], row["readout"], str(tuning_of(row).get("tune"))


def _of_run(run: Run) -> tuple[str, ...]:
    tune = None if run.tuning is None else run.tuning.decisions["blocks"]
    return run.task.name, run.training.store.attrs["backbone"], "+".join(run.readouts), str(tune)
