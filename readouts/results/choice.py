"""Runs by what people say of them: a name, or words that name one configuration of a task.

`nipig` is a run; `resize linear` and `backbone=resize readout=linear lr=0.01` are all runs of which that is
true, and of several configurations the best on val is meant, as it is on the page.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.errors import CallError, did_you_mean
from readouts.results.comparability import Row, is_fitted, settings_of
from readouts.results.configurations import Configuration, configurations
from readouts.results.formatting import counted, format_tuned, format_value
from readouts.results.run_folder import RunFolder
from readouts.results.table import is_named, readable_results, short_name_of

WORDS = ("task", "backbone", "layer", "readout", "sweep", "tuned")
"""Columns whose values may be given without the column's name."""

COLUMNS = (*WORDS, "run", "seed", "exactness")
"""Columns that `name=value` may ask for, beside settings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What some words mean."""

    configuration: Configuration
    n_others: int
    """How many more configurations the words fit, all of them worse on val."""

    def __str__(self) -> str:
        row, seeds = self.configuration.best, self.configuration.rows
        words = (row["backbone"], f"layer {row['layer']}", row["readout"], format_tuned(row))
        what = ", ".join(filter(None, words))
        if len(seeds) == 1:
            return f"{what}, seed {row['seed']} ({short_name_of(row['run'])})"
        best = f", the best on val of {self.n_others + 1}" if self.n_others else ""
        return f"{what}, {counted(len(seeds), 'seed')}{best}"


def choose(rows: Sequence[Row], words: str, task: str | None = None) -> Choice:
    """The configuration that `words` name among the rows of a table.

    Args:
        rows: all of the table.
        words: see the top of the file; split at blanks and commas.
        task: whose rows are meant; None: the words fit rows of one task only.

    Raises:
        CallError: no row fits, rows of several tasks do, or a word begins the names of several runs; says
            what there is.
    """
    fitting = [row for row in rows if task in (None, row["task"])]
    if task is not None and not fitting:
        known = sorted({str(row["task"]) for row in rows})
        raise CallError(f"no run is of task {task}: there are some of {_listed(known)}.")
    of_task = fitting
    for word in words.replace(",", " ").split():
        found = [row for row in fitting if _fits(row, word)]
        if not found:
            raise CallError(_nothing(fitting, words, word))
        fitting = _of_one_run(found, word)
    if not fitting:
        raise CallError("there are no runs yet: `scivid train-readout` makes some.")
    tasks = sorted({str(row["task"]) for row in fitting})
    if len(tasks) > 1:
        raise CallError(f"{words!r} fits runs of {_listed(tasks)}: say which with --task.")
    every = configurations(fitting, among=[row for row in of_task if row["task"] == tasks[0]])
    return Choice(configuration=every[0], n_others=len(every) - 1)


def find_run(results_dir: Path, words: str) -> tuple[RunFolder, str]:
    """The folder of the run that `words` mean, or that they are the path of, and its readout ("" of a path).

    Raises:
        CallError: see `choose`; probes are fitted anew each time, and are not meant.
    """
    trained = [row for row in readable_results(results_dir)[0] if not is_fitted(row)]
    try:
        best = choose(trained, words).configuration.best
    except CallError:
        # Last: the folder of videos often has the task's name.
        if Path(words).is_dir():
            return RunFolder(Path(words)), ""
        raise
    return RunFolder.of(results_dir, best), str(best["readout"])


def apart(first: Configuration, second: Configuration) -> list[str]:
    """In what two configurations differ, a line each: `readout: linear, attention`."""
    both = [_described(one.best) for one in (first, second)]
    names = [name for name in both[0] if name in both[1]]  # what one readout alone has follows from it
    values = {name: [format_value(one[name]) for one in both] for name in names}
    return [f"{name}: {a}, {b}" for name, (a, b) in values.items() if a != b]


def _described(row: Row) -> dict[str, Any]:
    shown = {name: row[name] for name in ("backbone", "layer", "readout", "exactness")}
    return shown | {name: value for name, value in settings_of(row).items() if value is not None}


def _fits(row: Row, word: str) -> bool:
    name, given, value = word.partition("=")
    if not given:
        run, _, readout = word.partition("/")
        named = is_named(str(row["run"]), run) and readout in ("", row["readout"])
        return named or any(str(row[column]) == word for column in WORDS)
    if name == "run":
        return is_named(str(row["run"]), value)
    found = row[name] if name in COLUMNS else settings_of(row).get(name)
    return str(found) == value or _as_number(found) == _as_number(value) is not None


def _of_one_run(found: list[Row], word: str) -> list[Row]:
    """Of rows that fit a word those of the run that is so called, where it is a run's name or begins one.

    Raises:
        CallError: it begins the names of several.
    """
    name, given, value = word.partition("=")
    begun = value if given else word.partition("/")[0]
    if name != "run" and (given or any(str(row[column]) == word for row in found for column in WORDS)):
        return found
    runs = {str(row["run"]): short_name_of(str(row["run"])) for row in found}
    if begun in runs:
        return [row for row in found if row["run"] == begun]
    if len(runs) > 1:
        raise CallError(
            f"{begun!r} begins the names of several runs: write one of {_listed([*runs.values()])}."
        )
    return found


def _as_number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


def _nothing(rows: Sequence[Row], words: str, word: str) -> str:
    """Why no row fits: what there is of the kind of thing that was asked for."""
    name, given, value = word.partition("=")
    others = " ".join(other for other in words.split() if other != word)
    among = f" among those of {others!r}" if others else ""
    if given:
        settings = {key for row in rows for key in settings_of(row)}
        if name not in COLUMNS and name not in settings:
            known = [*COLUMNS, *sorted(settings)]
            return f"no run has {name!r}: known are {', '.join(known)}.{did_you_mean(name, known)}"
        there = [short_name_of(str(row["run"])) if name == "run" else _said(row, name) for row in rows]
        return f"no run{among} has {name}={value}: there are {_listed(sorted({*there}))}."
    known = sorted({str(row[column]) for row in rows for column in WORDS if row[column] is not None})
    return (
        f"no run{among} is, or is of, {word!r}: words may be names of runs (`scivid list runs`), "
        f"name=value, or one of {_listed(known)}.{did_you_mean(word, known)}"
    )


def _said(row: Row, name: str) -> str:
    return format_value(row[name] if name in COLUMNS else settings_of(row).get(name))


def _listed(known: Sequence[str], most: int = 20) -> str:
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more


def listed_runs(rows: Sequence[Row], task: str | None = None) -> list[dict[str, object]]:
    """A row a run and readout for `scivid list runs`, the newest first: name, scores, what it stands on."""
    shown = [row for row in rows if task in (None, row["task"])]
    return [
        {
            "run": short_name_of(str(row["run"])),
            "task": row["task"],
            "readout": row["readout"],
            "val": f"{row['val']:.4f}",
            "test": None if row["test"] is None else f"{row['test']:.4f}",
            "backbone": row["backbone"],
            "layer": row["layer"],
            "seed": row["seed"],
            "finished": f"{row['finished']:%Y-%m-%d %H:%M}",
            "steps": row["steps"],
            "tuned": None if row["tuned"] in (None, "frozen") else row["tuned"],
            "train, val clips": f"{row['n_train']:,}, {row['n_val']:,}",
            "labels": _labels(row),
            "sweep": row["sweep"],
        }
        for row in reversed(shown)
    ]


def _labels(row: Row) -> str:
    """The first digits of the labels of val: scores compare where these are the same."""
    return str(json.loads(row["targets"] or "{}").get("val") or "")[:4]
