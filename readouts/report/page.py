"""`scivid report`: one self-contained page, read from file:// without a network, and tables of the same rows.

The page shows what is in the results table and in the stores beside it: backbones by tasks beside the
published numbers, every configuration with its interval, sweeps as curves, costs, figures of each task,
what tokens look like, certificates, and the command that repeats each row. What cannot be shown is named in
one line, and the rest is shown.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from featcache.errors import CallError
from featcache.manifest import Manifest
from featcache.store.feature_store import FeatureStore
from readouts.report.costs import cost_figures
from readouts.report.figures import PageFigure
from readouts.report.gaps import Gaps
from readouts.report.overview import overview
from readouts.report.stores import store_sections
from readouts.report.sweeps.sections import SweepSection, sweep_sections
from readouts.report.tables import WHERE, comparison_of, csv_of, markdown_of, put_in_place
from readouts.report.task import TaskSection, task_section
from readouts.results.configurations import grouped
from readouts.results.formatting import format_score
from readouts.results.task_results import TaskResults, finished_stores, load_task_results


def write_report(
    out: Path,
    *,
    results_dir: Path,
    cache_dir: Path,
    manifest: Manifest,
    csv: Path | None = None,
    markdown: Path | None = None,
) -> list[str]:
    """Write the page to `out`, and the same rows as tables where asked; returns what is missing, and why.

    Args:
        out: the page.
        results_dir: of the results table, which must be there; intervals and token figures are kept there.
        cache_dir: of the feature stores.
        manifest: which tasks there are, and what was published.
        csv: every row, all columns.
        markdown: a table a task.

    Raises:
        CallError: there is nothing to report yet, or no such results folder; a file that cannot be written.
    """
    if not results_dir.is_dir():
        raise CallError(
            f"there is no results folder {results_dir}: name yours (--results-dir, SCIVID_RESULTS_DIR), or "
            "train a readout first."
        )
    stores, problems = finished_stores(cache_dir)
    tasks, damaged = load_task_results(results_dir, stores, manifest)
    if not any((tasks, stores, problems, damaged)):
        raise CallError(
            f"no results in {results_dir} and no finished stores in {cache_dir}: run `scivid demo`."
        )
    page, missing = _page(tasks, stores, [*damaged, *problems], results_dir)
    put_in_place(out, page)
    if csv is not None:
        put_in_place(csv, csv_of(tasks))
    if markdown is not None:
        put_in_place(markdown, markdown_of(tasks))
    for task in tasks:
        if task.intervals is not None:
            task.intervals.keep()
    return missing


def comparison(
    results_dir: Path, cache_dir: Path, manifest: Manifest, only: str | None = None
) -> list[tuple[str, list[dict[str, object]]]]:
    """For each task and group its title and rows: our configurations and published ones, then baselines.

    Where a number was published is in the other tables. `only` names the one task that is shown.
    """
    stores, _ = finished_stores(cache_dir)
    tasks, _ = load_task_results(results_dir, stores, manifest)
    return [
        (
            f"{task.title}: {task.metric_title}, {group}",
            [{name: cell for name, cell in row.items() if name not in ("group", WHERE)} for row in rows],
        )
        for task in tasks
        if only in (None, task.name)
        for group, rows in grouped(comparison_of(task), lambda row: str(row["group"])).items()
    ]


def _page(
    tasks: Sequence[TaskResults],
    stores: Sequence[FeatureStore],
    problems: Sequence[str],
    results_dir: Path,
) -> tuple[str, list[str]]:
    """The page, and all that is missing on it."""
    gaps = Gaps()
    of_tasks = list[TaskSection]()
    for task in tasks:
        with gaps.around(f"task {task.name}"):
            of_tasks.append(task_section(task, results_dir))
    sweeps, costs = list[SweepSection](), list[PageFigure]()
    with gaps.around("sweeps"):
        sweeps = sweep_sections(tasks, results_dir, gaps)
    with gaps.around("costs"):
        costs = cost_figures(tasks)
    of_stores, unreadable = store_sections(stores, results_dir)
    beside = [message for one in of_tasks for message in one.missing]
    beside += [message for one in of_stores for message in one.missing]
    unmade = [*(one.results.problem for one in of_tasks if one.results.problem), *gaps.messages, *unreadable]
    missing = dict.fromkeys([*problems, *unmade, *beside])
    environment = Environment(
        loader=PackageLoader("readouts.report", "."), autoescape=select_autoescape(["html"])
    )
    environment.filters |= {"score": format_score}
    page = environment.get_template("page.html").render(
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        overview=overview([one.results for one in of_tasks]),
        tasks=of_tasks,
        sweeps=sweeps,
        costs=costs,
        stores=of_stores,
        missing=list(missing),
    )
    return page, list(missing)
