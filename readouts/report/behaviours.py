"""What people who study behaviour ask of a readout: F1, what is taken for what, bouts, and its worst clips.

Thresholds are chosen on val, so the scores of val flatter and those of test do not.
"""

import csv
import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from featcache.store.feature_store import FeatureStore
from readouts.metrics.decisions import Decisions, best_thresholds, confusion, macro_f1
from readouts.report import figures
from readouts.report.figures import PageFigure
from readouts.report.gaps import Gaps, pictures_of
from readouts.results.comparability import Row
from readouts.results.decided import Evaluated, evaluated, found_bouts, weighted_macro_f1
from readouts.results.formatting import format_interval
from readouts.results.run_folder import RunFolder
from readouts.results.task_results import TaskResults, stores_of
from readouts.tasks.classification import Classification

WORST_SHOWN, WORST_LISTED = 6, 200
NONE = "(none)"
"""What a clip is called that has no class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Behaviours:
    """What the page shows of one run that says which classes are there."""

    run: str
    roles: Sequence[str]
    """Those that it was scored on."""
    counts: Sequence[Mapping[str, Any]]
    """Class -> clips of each split."""
    classes: Sequence[Mapping[str, Any]]
    """For each class its threshold, and by role the cells of `_cells`."""
    macro: Mapping[str, str]
    """Role -> mean F1 with its interval."""
    has_bouts: bool
    confusion: PageFigure | None
    worst: Sequence[Mapping[str, Any]]
    """Clips with a picture where there is one."""
    table: str
    """All that are listed, a `data:` address of CSV."""
    n_listed: int


def behaviours_of(results: TaskResults, results_dir: Path, gaps: Gaps) -> Behaviours | None:
    """Of the best run that kept what it said of every clip; None of a task of other kind."""
    task = results.task
    if not isinstance(task, Classification):
        return None
    for row in results.rows:
        stores = stores_of(row, results.stores)
        folder = RunFolder.of(results_dir, row)
        roles = [
            role for role in ("val", "test") if role in stores and row[role] is not None
            and folder.predictions(role).exists() and folder.per_clip(role).exists()
        ]  # fmt: skip
        if "val" not in roles:
            continue
        with gaps.around(f"decisions of {row['backbone']}, {row['readout']}"):
            found: dict[str, Evaluated] = {
                role: evaluated(folder, str(row["readout"]), role) for role in roles
            }
            return _of_run(results, task, row, stores, found, gaps)
    return None


def _of_run(
    results: TaskResults,
    task: Classification,
    row: Row,
    stores: Mapping[str, FeatureStore],
    found: Mapping[str, Evaluated],
    gaps: Gaps,
) -> Behaviours:
    names, background = task.output_names, task.dataset.background
    left_out = [number for number, name in enumerate(names) if name == background]
    thresholds = best_thresholds(found["val"].scores, found["val"].labels)
    decided = {role: Decisions.of(of.said(thresholds), of.labels) for role, of in found.items()}
    bouts = {role: found_bouts(of, thresholds, stores[role]) for role, of in found.items()}
    macro = {}
    for role, of in found.items():
        value, within = macro_f1(decided[role].f1, left_out), None
        if results.intervals is not None:
            score = partial(_macro, of, thresholds, left_out)
            within = results.intervals.of_score(row, role, "macro_F1", score, of.clips)
        macro[role] = f"{value:.3f} {format_interval(within, value)}".strip()
    worst = [one for role, of in found.items() for one in _worst(of, role, thresholds, stores[role], task)]
    return Behaviours(
        run=f"{row['backbone']}, layer {row['layer']}, {row['readout']}, seed {row['seed']}",
        roles=list(found),
        counts=_counts(names, stores),
        classes=[
            {
                "name": name,
                "threshold": "never" if np.isnan(thresholds[k]) else f"{thresholds[k]:.2f}",
                "is_background": k in left_out,
                "roles": [_cells(decided[role], bouts[role], k) for role in found],
            }
            for k, name in enumerate(names)
        ],
        macro=macro,
        has_bouts=any(of is not None for of in bouts.values()),
        confusion=_confusion(found, thresholds, names),
        worst=_pictured(worst, stores, gaps),
        table=_csv(worst),
        n_listed=len(worst),
    )


def _macro(of: Evaluated, thresholds: Float64[np.ndarray, " O"], left_out: list[int], clusters: Any) -> Any:
    return weighted_macro_f1(of, thresholds, clusters, left_out)


def _counts(names: Sequence[str], stores: Mapping[str, FeatureStore]) -> list[dict[str, Any]]:
    """Clips with each class, and with none, in each split."""
    rows: list[dict[str, Any]] = [{"name": name} for name in (*names, NONE, "all clips")]
    for role, store in stores.items():
        targets = store.targets
        if targets is None or "labels" not in targets:
            continue
        with_class, n_none, n = np.zeros(len(names), np.int64), 0, 0
        for block in targets.blocks("labels"):
            with_class += (block > 0).sum(axis=0)
            n_none += int((~(block > 0).any(axis=1)).sum())
            n += len(block)
        for cells, count in zip(rows, (*with_class.tolist(), n_none, n), strict=True):
            cells[role] = f"{count:,}"
    return rows


def _cells(decided: Decisions, bouts: Decisions | None, k: int) -> dict[str, str]:
    found = {
        "hits": f"{decided.hits[k]:,.0f}", "false_alarms": f"{decided.false_alarms[k]:,.0f}",
        "misses": f"{decided.misses[k]:,.0f}", "precision": _share(decided.precision[k]),
        "recall": _share(decided.recall[k]), "f1": _share(decided.f1[k]), "bouts": "",
    }  # fmt: skip
    if bouts is not None:
        n_true = bouts.hits[k] + bouts.misses[k]
        found["bouts"] = f"{_share(bouts.f1[k])} ({bouts.hits[k]:.0f} of {n_true:.0f} found)"
    return found


def _share(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"


def _confusion(
    found: Mapping[str, Evaluated], thresholds: Float64[np.ndarray, " O"], names: Sequence[str]
) -> PageFigure | None:
    """Of clips with one label at the most; none where these are fewer than half."""
    role = "test" if "test" in found else "val"
    of = found[role]
    single = (of.labels > 0).sum(axis=1) <= 1
    if 2 * single.sum() < len(single):
        return None
    true = _only(of.labels[single] > 0, of.scores[single])
    said = _only(of.said(thresholds)[single], of.scores[single])
    shown, counts = [*names, NONE], confusion(said, true, len(names) + 1)
    if not counts[-1].sum() and not counts[:, -1].sum():
        shown, counts = shown[:-1], counts[:-1, :-1]
    which = (
        "All clips" if single.all() else f"The {single.sum()} of {len(single)} clips with one label at most"
    )
    return PageFigure(
        title="What is taken for what",
        caption=f"{which} of {role}, in numbers; of several classes said, the one of the highest score.",
        image=figures.confusion_matrix(counts, shown),
    )


def _only(there: Bool[np.ndarray, "n O"], scores: Float[np.ndarray, "n O"]) -> Any:
    """The class of each clip, of several that of the highest score; one more than there are where none is."""
    best = np.where(there, scores, -1.0).argmax(axis=1)
    return np.where(there.any(axis=1), best, there.shape[1])


def _worst(
    of: Evaluated,
    role: str,
    thresholds: Float64[np.ndarray, " O"],
    store: FeatureStore,
    task: Classification,
) -> list[dict[str, Any]]:
    """The clips that are wrong in some class, those of the highest loss first."""
    wrong = np.flatnonzero((of.said(thresholds) != (of.labels > 0)).any(axis=1))
    order = wrong[np.argsort(-of.losses[wrong], kind="stable")][:WORST_LISTED]
    about = store.clip_table.take(of.clips[order], "source", "record").to_pylist()
    said, names, rate = of.said(thresholds)[order], task.output_names, task.dataset.rate
    rows = []
    for at, (index, where) in enumerate(zip(order.tolist(), about, strict=True)):
        true = [name for name, there in zip(names, of.labels[index] > 0, strict=True) if there]
        taken = [name for name, there in zip(names, said[at], strict=True) if there]
        mistaken = [name for name in names if (name in true) != (name in taken)]
        scores = dict(zip(names, of.scores[index].tolist(), strict=True))
        rows.append(
            {
                "split": role,
                "video": where["source"],
                "first frame": where["record"],
                "time": "" if rate is None else _clock(where["record"] / rate),
                "true": "; ".join(true) or NONE,
                "said": "; ".join(taken) or NONE,
                "scores": "; ".join(f"{name} {scores[name]:.2f}" for name in mistaken),
                "loss": round(float(of.losses[index]), 3),
                "clip": int(of.clips[index]),
            }
        )
    return rows


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:05.2f}"


def _pictured(
    worst: Sequence[Mapping[str, Any]], stores: Mapping[str, FeatureStore], gaps: Gaps
) -> list[dict[str, Any]]:
    shown = []
    for role in dict.fromkeys(str(one["split"]) for one in worst):
        pictures = pictures_of(stores[role], gaps)
        for one in [one for one in worst if one["split"] == role][:WORST_SHOWN]:
            picture = pictures.get(int(one["clip"]))
            shown.append({**one, "picture": None if picture is None else figures.jpeg(picture)})
    return shown


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, [name for name in rows[0] if name != "clip"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return f"data:text/csv;base64,{b64encode(text.getvalue().encode()).decode()}"
