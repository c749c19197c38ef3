"""`scivid report`: one self-contained page, read from file:// without a network.

It shows what is in the results table and in the stores beside it: scores next to control rows and the
published numbers, curves, clips with predicted and true labels, tokens as colours, and the command that
repeats each row. What cannot be shown is named on the page in one line, and the rest is shown.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape

from featcache.errors import CallError, ScividError
from featcache.manifest import Manifest
from featcache.store import FeatureStore, find_stores, open_features
from readouts import pictures
from readouts.checkpoint import read_history, read_predictions
from readouts.controls import ControlRow, control_rows
from readouts.gallery import Picture, Scene, pictures_of, predictions_of
from readouts.results import load_results
from readouts.tasks import load_task
from readouts.tasks.base import Task

CLIPS_SHOWN = 6
STRIPS_SHOWN, STRIPS_OF = 3, "val"


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSection:
    """What the page shows of one task."""

    title: str
    metric: str
    rows: Sequence[Mapping[str, Any]]
    controls: Mapping[str, Mapping[str, str | None]]
    """Name of each control row -> its score a role."""
    published: Sequence[Mapping[str, Any]]
    published_source: str
    runs: Sequence[Mapping[str, Any]]
    """A run: its name, curve picture and command."""
    clips: Sequence[Mapping[str, Any]]
    """A clip: its strip, true labels, and predictions of a run's heads."""
    clips_of: str
    pictures: Sequence[Picture]
    """Of the best run."""
    problem: str | None = None
    """Why only the rows are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreSection:
    """What the page shows of one store."""

    name: str
    facts: Mapping[str, str]
    strips: Sequence[Mapping[str, str]]
    skipped: Sequence[str]


def write_report(out: Path, *, results_dir: Path, cache_dir: Path, manifest: Manifest) -> None:
    """Write the page to `out`.

    Raises:
        CallError: there is nothing to report yet.
    """
    rows = load_results(results_dir)
    stores, problems = _finished_stores(cache_dir)
    if not rows and not stores and not problems:
        raise CallError(
            f"no results in {results_dir} and no finished stores in {cache_dir}: run `scivid demo`."
        )
    tasks = [
        _task_section(name, ours, stores, results_dir, manifest) for name, ours in _by_task(rows).items()
    ]
    sections, unreadable = _store_sections(stores)
    page = (
        _environment()
        .get_template("report_page.html")
        .render(
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            tasks=tasks,
            stores=sections,
            problems=[*problems, *unreadable],
        )
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")


def comparison(
    results_dir: Path, cache_dir: Path, manifest: Manifest
) -> list[tuple[str, list[dict[str, object]]]]:
    """For each task its title, and our rows, control rows and published rows in one list."""
    stores, _ = _finished_stores(cache_dir)
    tables = []
    for name, rows in _by_task(load_results(results_dir)).items():
        entry, metric = manifest.tasks.get(name), rows[-1]["metric"]
        ours = [_cells(row) for row in rows]
        controls: list[dict[str, object]] = []
        # A table of scores does without control rows; the page says why there are none.
        with suppress(ScividError):
            controls = [
                {"backbone": f"control: {name}", **{role: _score(value) for role, value in of.items()}}
                for name, of in _scores_of(
                    _controls(_task_of(rows, manifest), _stores_of(_ranked(rows)[0], stores), results_dir),
                    metric,
                ).items()
            ]
        published: list[dict[str, object]] = [
            {"backbone": f"{r.backbone} (published)", "readout": r.readout, "test": _score(r.value)}
            for r in (entry.published.rows if entry else ())
        ]
        tables.append((f"{entry.title if entry else name}: {metric}", [*ours, *controls, *published]))
    return tables


def _by_task(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    names = dict.fromkeys(row["task"] for row in rows)
    return {name: [row for row in rows if row["task"] == name] for name in names}


def _task_of(rows: Sequence[Mapping[str, Any]], manifest: Manifest) -> Task:
    """The task of some rows, as the newest was given it: a name, or a file."""
    return load_task(rows[-1]["task_spec"] or rows[-1]["task"], manifest)


def _cells(row: Mapping[str, Any]) -> dict[str, object]:
    shown = {key: row[key] for key in ("backbone", "layer", "readout", "seed", "exactness")}
    return {**shown, "val": _score(row["val"]), "test": _score(row["test"])}


def _score(value: float | None) -> str | None:
    """Three digits after the point, or for what is counted in tens and hundreds one."""
    if value is None:
        return None
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _ranked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Best on val first."""
    return sorted(rows, key=lambda row: row["val"], reverse=rows[-1]["higher_is_better"] is not False)


def _stores_of(row: Mapping[str, Any], stores: Sequence[FeatureStore]) -> dict[str, FeatureStore]:
    """Role -> the very store that a row's numbers come from, where it is still there."""
    found = {}
    for role in ("train", "val", "test"):
        for store in stores:
            if store.fingerprint == row.get(f"{role}_fingerprint") and store.attrs["task"] == row["task"]:
                found[role] = store
    return found


def _controls(
    task: Task, splits: Mapping[str, FeatureStore], results_dir: Path
) -> dict[str, list[ControlRow]]:
    """Role -> the control rows, on the clips that the readouts are scored on."""
    targets = {role: store.targets for role, store in splits.items()}
    rows = {}
    for role in ("val", "test"):
        train, evaluated = targets.get("train"), targets.get(role)
        if train is not None and evaluated is not None:
            clips = np.setdiff1d(np.arange(splits[role].spec.n_clips), list(splits[role].skipped_clips))
            rows[role] = control_rows(task, train, evaluated, clips, results_dir)
    return rows


def _scores_of(controls: Mapping[str, Sequence[ControlRow]], metric: str) -> dict[str, dict[str, float]]:
    """Name of each control -> its score a role."""
    names = dict.fromkeys(row.name for rows in controls.values() for row in rows)
    return {
        name: {
            role: row.scores[metric] for role, rows in controls.items() for row in rows if row.name == name
        }
        for name in names
    }


def _task_section(
    name: str,
    rows: Sequence[dict[str, Any]],
    stores: Sequence[FeatureStore],
    results_dir: Path,
    manifest: Manifest,
) -> TaskSection:
    entry, newest = manifest.tasks.get(name), rows[-1]
    ranked = _ranked(rows)
    best = ranked[0]
    controls: Mapping[str, Sequence[ControlRow]] = {}
    figures: Sequence[Picture] = []
    clips: Sequence[Mapping[str, Any]] = []
    problem = None
    try:
        task = _task_of(rows, manifest)
        splits = _stores_of(best, stores)
        controls = _controls(task, splits, results_dir)
        figures = _figures(best, rows, task, splits.get("val"), controls, results_dir)
        clips = _clip_section(best, task, splits.get("val"), results_dir)
    except ScividError as refusal:
        problem = str(refusal)
    runs = {row["run"]: row for row in rows}.values()
    scores = _scores_of(controls, newest["metric"])
    return TaskSection(
        title=entry.title if entry else name,
        metric=newest["metric"],
        rows=ranked,
        controls={name: {r: _score(v) for r, v in of.items()} for name, of in scores.items()},
        published=[
            {"backbone": r.backbone, "readout": r.readout, "value": r.value} for r in entry.published.rows
        ]
        if entry
        else [],
        published_source=entry.published.source if entry else "",
        runs=[_run_section(row, scores, results_dir) for row in runs],
        pictures=figures,
        clips=clips,
        clips_of=f"{best['backbone_title']}, layer {best['layer']}",
        problem=problem,
    )


def _run_section(
    row: Mapping[str, Any], controls: Mapping[str, Mapping[str, float]], results_dir: Path
) -> dict[str, Any]:
    folder = results_dir / row["task"] / f"{row['backbone']}-{row['run']}"
    lines = {name: scores["val"] for name, scores in controls.items() if "val" in scores}
    history: list[dict[str, Any]] = []
    with suppress(ScividError):  # a run without its curve is still a row and a command
        history = read_history(folder / "history.jsonl")
    return {
        "name": f"{row['backbone_title']}, layer {row['layer']}, seed {row['seed']}",
        "curve": pictures.curves(history, row["metric"], lines) if history else None,
        "command": row["command"],
        "seconds": f"{row['seconds']:.0f}",
    }


def _clip_section(
    best: Mapping[str, Any], task: Task, store: FeatureStore | None, results_dir: Path
) -> list[dict[str, Any]]:
    file = predictions_of(best, results_dir)
    if store is None or not file.exists():
        return []
    targets = store.targets
    if targets is None or "labels" not in targets or targets.shape("labels")[1:] != (len(task.output_names),):
        return []  # not a task of one yes or no an output: there is nothing to draw as bars
    table, predicted = read_predictions(file)
    place = {clip: i for i, clip in enumerate(table.column("clip").to_pylist())}
    shown: list[dict[str, Any]] = []
    for number, strip in store.previews().items():
        if number in place and len(shown) < CLIPS_SHOWN:
            outputs = {kind: values[place[number]] for kind, values in predicted.items()}
            labels = targets.rows("labels", np.array([number]))[0]
            shown.append(
                {
                    "strip": pictures.jpeg(strip),
                    "id": table.column("id")[place[number]].as_py(),
                    "classes": [
                        {
                            "name": name,
                            "true": bool(labels[i]),
                            "scores": {
                                kind: float(1 / (1 + np.exp(-out[i]))) for kind, out in outputs.items()
                            },
                        }
                        for i, name in enumerate(task.output_names)
                    ],
                }
            )
    return shown


def _figures(
    best: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    task: Task,
    store: FeatureStore | None,
    controls: Mapping[str, Sequence[ControlRow]],
    results_dir: Path,
) -> list[Picture]:
    targets = None if store is None else store.targets
    if store is None or targets is None:
        return []
    run = [row for row in rows if row["run"] == best["run"]]
    if not predictions_of(best, results_dir).exists():
        return []
    return pictures_of(task, Scene.of(run, store, targets, controls.get("val", ()), results_dir))


def _store_sections(stores: Sequence[FeatureStore]) -> tuple[list[StoreSection], list[str]]:
    """A section of each store, and the messages of those that cannot be read."""
    sections, problems = [], []
    for store in stores:
        try:
            sections.append(_store_section(store))
        except ScividError as problem:
            problems.append(str(problem))
    return sections, problems


def _store_section(store: FeatureStore) -> StoreSection:
    spec, previews = store.spec, store.previews()
    clips = [number for number in previews if number not in store.skipped_clips][
        :: max(1, len(previews) // STRIPS_SHOWN)
    ]
    # One split shows what a backbone sees; the others would say the same, three times as long.
    shown = clips[:STRIPS_SHOWN] if store.attrs["role"] == STRIPS_OF else []
    tokens = pictures.token_strips(store, shown) if shown else {}
    return StoreSection(
        name=f"{store.attrs['task']} / {store.attrs['role']} / {store.path.name}",
        facts={
            "backbone": str(store.attrs["backbone_title"]),
            "layers": ", ".join(layer.name for layer in spec.layers),
            "clips x views": f"{spec.n_clips:,} x {spec.n_views}",
            "token grid": " x ".join(map(str, spec.grid.shape)),
            "on disk": f"{spec.payload_bytes / 1e6:,.1f} MB in {spec.n_shards} shards a layer",
            "training views": str(store.attrs["exactness"]),
            "fingerprint": store.fingerprint[:16],
            "licence of the weights": str(store.attrs["licence"]),
        },
        strips=[
            {"frames": pictures.jpeg(previews[number]), "tokens": strip} for number, strip in tokens.items()
        ],
        skipped=[json.dumps(entry) for entry in store.provenance.get("skipped_clips", [])],
    )


def _finished_stores(cache_dir: Path) -> tuple[list[FeatureStore], list[str]]:
    """The stores that say they are finished, and the messages of those that are broken all the same."""
    stores, problems = [], []
    for store in find_stores(cache_dir):
        if store.complete:
            try:
                stores.append(open_features(store.path))
            except ScividError as problem:
                problems.append(str(problem))
    return stores, problems


def _environment() -> Environment:
    environment = Environment(loader=PackageLoader("readouts", "."), autoescape=select_autoescape(["html"]))
    environment.filters["score"] = _score
    return environment
