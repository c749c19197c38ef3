"""The results as files for other programs and for papers: every row as CSV, a table a task as Markdown."""

import csv
import errno
import os
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from featcache.errors import CallError
from featcache.system.console import is_standard_output, print_bytes
from featcache.system.files import name_file, publish
from readouts.results.formatting import (
    configuration_cells,
    counted,
    format_interval,
    format_published,
    format_score,
)
from readouts.results.table import SCHEMA
from readouts.results.task_results import TaskResults

BOUNDS = tuple(f"{role}_{end}" for role in ("val", "test") for end in ("low", "high"))
"""Columns beside those of the results table: ends of the 95 % intervals, empty where there are none."""


NOT_SUCH_A_FILE = {
    errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG,
    errno.EACCES, errno.EPERM, errno.EROFS,
}  # fmt: skip
"""What the operating system says where another name would do."""


def comparison_of(results: TaskResults) -> list[dict[str, object]]:
    """Our configurations, baselines and published rows of one task: rows of one table, column -> value."""
    ours = [configuration_cells(one) for one in results.configurations]
    baselines: list[dict[str, object]] = [
        {"backbone": f"baseline: {name}", **{role: format_score(score) for role, score in of.items()}}
        for name, of in results.baseline_scores().items()
    ]
    published: list[dict[str, object]] = [
        {
            "backbone": f"{row.backbone} (published)",
            "readout": row.readout,
            "test": format_published(row.value),
        }
        for row in results.published.rows
    ]
    return [*ours, *baselines, *published]


def csv_of(tasks: Sequence[TaskResults]) -> str:
    """Every row of every task, all columns of the results table and the ends of its intervals."""
    text = StringIO()
    writer = csv.DictWriter(text, [*SCHEMA.names, *BOUNDS], extrasaction="raise", lineterminator="\n")
    writer.writeheader()
    for task in tasks:
        for row in sorted(task.rows, key=lambda row: (row["finished"], row["run"], row["readout"])):
            writer.writerow({**row, **_bounds(task, row)})
    return text.getvalue()


def markdown_of(tasks: Sequence[TaskResults]) -> str:
    """A table a task: configurations with their intervals, baselines, published rows."""
    parts = ["# scivid results\n"]
    for task in tasks:
        role = task.role
        intervals = [
            format_interval(task.interval(one.rows, role), one.mean(role)) for one in task.configurations
        ]
        rows = comparison_of(task)
        if any(intervals):
            for row, interval in zip(rows, intervals, strict=False):
                row[f"95 % of {role}"] = interval or None
        note = (
            f"{task.metric_title}, {task.better}; {counted(len(task.rows), 'row')} tried. "
            "Mean ± standard deviation over seeds."
        )
        notes = "".join(f"{line}\n\n" for line in (note, *task.notes))
        parts.append(f"## {task.title}\n\n{notes}{_markdown_table(rows)}")
    return "\n".join(parts)


def put_in_place(path: Path, text: str) -> None:
    """Write a table, or the page, whole: what cannot be written leaves the older one as it is.

    A link leads to the file that is written; a pipe or a device, standard output among them, is written to.

    Raises:
        CallError: there is a folder of that name, none above it that can be made, or it is not ours to write.
        OSError: the disk is full, or fails.
    """
    content = text.encode("utf-8", "backslashreplace")  # names of files may be no text
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_standard_output(path):
            print_bytes(content)
        elif path.exists() and not path.is_file() and not path.is_dir():
            path.write_bytes(content)
        else:
            publish(Path(os.path.realpath(path)), content)
    except OSError as problem:
        if problem.errno not in NOT_SUCH_A_FILE:
            if not is_standard_output(path):
                name_file(problem, path)
            raise
        raise CallError(f"{path} cannot be written ({problem.strerror}): name another file.") from problem


def _bounds(task: TaskResults, row: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for role in ("val", "test"):
        if (interval := task.interval([row], role)) is not None:
            found |= {f"{role}_low": interval.low, f"{role}_high": interval.high}
    return found


def _markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    columns = [
        name
        for name in dict.fromkeys(name for row in rows for name in row)
        if any(row.get(name) is not None for row in rows)
    ]
    lines = [columns, ["---"] * len(columns)]
    lines += [[_escaped(row.get(name)) for name in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|")
