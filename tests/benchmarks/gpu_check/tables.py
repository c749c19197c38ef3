"""What a check found, as Markdown: the ratios first, then a section a step."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmarks.bench import table
from tests.benchmarks.side_by_side import Claim


def markdown(claims: Sequence[Claim], found: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole table."""
    head = "| step | ratio | found | asked | detail |\n|---|---|---|---|---|"
    return "\n\n".join([f"{head}\n{table(claims)}", *(_section(*step) for step in found.items())])


def _section(step: str, found: Mapping[str, Any]) -> str:
    """Single facts as a list, facts of several columns as tables, a table for each set of columns."""
    lines = [f"## {step}"]
    rows = {name: value for name, value in found.items() if isinstance(value, Mapping)}
    lines += [f"- {name}: {value}" for name, value in found.items() if name not in rows]
    columns: dict[tuple[str, ...], list[str]] = {}
    for name, row in rows.items():
        cells = " | ".join(_cell(value) for value in row.values())
        columns.setdefault(tuple(row), []).append(f"| {name} | {cells} |")
    for names, body in columns.items():
        head = f"| | {' | '.join(names)} |\n|{'---|' * (1 + len(names))}"
        lines.append(f"\n{head}\n" + "\n".join(body))
    return "\n".join(lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "/").replace("\n", " ")
