"""The results as files for other programs and for papers: every row as CSV, tables a task as Markdown.

Published rows stand beside ours by what was trained of the model (`readouts.results.published`): a group is a
table of its own in Markdown, and named in a column of the CSV.
"""

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
from readouts.results.comparability import kind_of
from readouts.results.configurations import Configuration, grouped, of_kind
from readouts.results.formatting import configuration_cells, counted, format_interval, format_score
from readouts.results.published import KINDS, Figure, by_kind, figure_of
from readouts.results.table import SCHEMA
from readouts.results.task_results import TaskResults

BOUNDS = tuple(f"{role}_{end}" for role in ("val", "test") for end in ("low", "high"))
"""Columns beside those of the results table: ends of the 95 % intervals, empty where there are none."""


PUBLISHED = ("kind", "published", "published_split", "published_in", "published_protocol")
"""Further columns: what was trained, of every row; of published ones the number and its origin."""

WHERE = "published in"
"""The last column of Markdown's tables."""


NOT_SUCH_A_FILE = {
    errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG,
    errno.EACCES, errno.EPERM, errno.EROFS,
}  # fmt: skip
"""What the operating system says where another name would do."""


def comparison_of(results: TaskResults, *, intervals_of: str | None = None) -> list[dict[str, object]]:
    """Our configurations, published rows and baselines of one task: rows of one table, column -> value.

    They come in groups of what was trained, which `group` names: no two groups make one ranking. With
    intervals of the mean score on `intervals_of`, where there are any.
    """
    found = by_kind(results.published)
    rows: list[dict[str, object]] = []
    for kind, title in KINDS.items():
        ours = [_our_cells(results, one, intervals_of) for one in of_kind(kind, results.configurations)]
        published = [_cells(figure_of(row, results.published)) for row in found.get(kind, ())]
        rows += [{"group": title, **cells} for cells in (*ours, *published)]
    return rows + [
        {
            "group": "without a model",
            "backbone": f"baseline: {name}",
            **{role: format_score(score) for role, score in of.items()},
        }
        for name, of in results.baseline_scores().items()
    ]


def _our_cells(results: TaskResults, one: Configuration, role: str | None) -> dict[str, object]:
    cells = dict(configuration_cells(one))
    interval = "" if role is None else format_interval(results.interval(one.rows, role), one.mean(role))
    return {**cells, f"95 % of {role}": interval} if interval else cells


def _cells(figure: Figure) -> dict[str, object]:
    row = figure.row
    column = "split not said" if row.split == "unsaid" else row.split
    return {
        "backbone": f"{row.backbone} (published)",
        "readout": row.readout or None,
        column: figure.value,
        WHERE: figure.about,
    }


def csv_of(tasks: Sequence[TaskResults]) -> str:
    """Every row of every task: all columns of the results table, the ends of its intervals, its group.

    Published rows follow those of their task. Their numbers are in columns of their own, so that whoever
    averages a column of scores has runs in it only.
    """
    text = StringIO()
    writer = csv.DictWriter(
        text, [*SCHEMA.names, *BOUNDS, *PUBLISHED], extrasaction="raise", lineterminator="\n"
    )
    writer.writeheader()
    for task in tasks:
        for row in sorted(task.rows, key=lambda row: (row["finished"], row["run"], row["readout"])):
            writer.writerow({**row, **_bounds(task, row), "kind": kind_of(row)})
        for published in task.published.rows:
            writer.writerow(
                {
                    "task": task.name,
                    "backbone": published.backbone,
                    "readout": published.readout,
                    "metric": task.metric,
                    "higher_is_better": task.higher_is_better,
                    "kind": published.kind,
                    "published": published.value,
                    "published_split": published.split,
                    "published_in": published.source or task.published.source,
                    "published_protocol": published.protocol,
                }
            )
    return text.getvalue()


def markdown_of(tasks: Sequence[TaskResults]) -> str:
    """A table a task and group: configurations with their intervals, published rows, baselines."""
    parts = ["# scivid results\n"]
    for task in tasks:
        role = task.role
        rows = comparison_of(task, intervals_of=role)
        note = (
            f"{task.metric_title}, {task.better}; {counted(len(task.rows), 'row')} tried. "
            "Mean ± standard deviation over seeds."
        )
        notes = "".join(f"{line}\n\n" for line in filter(None, (note, *task.notes, task.published.note)))
        tables = [
            f"### {title[0].upper()}{title[1:]}\n\n{_markdown_table(of_group)}"
            for title, of_group in grouped(rows, lambda row: str(row.pop("group"))).items()
        ]
        parts.append(f"## {task.title}\n\n{notes}" + "\n".join(tables))
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
    columns.sort(key=lambda name: name == WHERE)
    lines = [columns, ["---"] * len(columns)]
    lines += [[_escaped(row.get(name)) for name in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|")
