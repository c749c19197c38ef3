"""What there is, as rows of text: backbones, tasks, stores, data on disk.

Nothing heavy is imported and no weights or clips are opened, so `scivid list` and `scivid data status`
answer at once.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from featcache.backbones import backbone_table
from featcache.data.readers import data_status
from featcache.errors import StoreError
from featcache.fingerprint import SHORT, differences
from featcache.manifest import Manifest
from featcache.store.feature_store import FeatureStore, open_features, store_paths
from featcache.store.matching import misplaced

Row = dict[str, object]

PAPER = "SciVid, ICCV 2025"
"""How the manifest cites the benchmark's paper, whose backbones are marked."""


def backbone_rows(weights_dir: Path | None, manifest: Manifest) -> list[Row]:
    """Every backbone: what it is and costs, what was measured, its licence, whether its weights are here."""
    in_paper = {
        _plain(row.backbone)
        for task in manifest.tasks.values()
        for row in task.published.rows
        if PAPER in (row.source or task.published.source)
    }
    return [
        {
            "backbone": row.info.name,
            "weights": row.weights,
            "params M": f"{row.info.params_m:,.1f}",
            "MB/clip": f"{row.info.grid.nbytes / 1e6:.2f}",
            "grid t,h,w,c": " ".join(map(str, row.info.grid.shape)),
            "paper": "yes" if _plain(row.info.name) in in_paper else None,
            "layer": " ".join(layer.name for layer in row.info.default_layers),
            "GFLOP/clip": None if row.info.gflop is None else f"{row.info.gflop:,.0f}",
            "bfloat16 off": None if row.bfloat16_off is None else f"{row.bfloat16_off:.1%}",
            "clips/s, 2 cores": None if row.clips_a_second is None else f"{row.clips_a_second:.2f}",
            "licence": row.info.licence + ("" if row.info.commercial else " (non-commercial)"),
            "public": "yes" if row.info.public else "no",
            "what": row.info.title,
        }
        for row in backbone_table(weights_dir)
    ]


def _plain(name: str) -> str:
    """A name as the paper and the registry both have it, were there no marks between words."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def task_rows(manifest: Manifest) -> list[Row]:
    """Every task and the data that its splits come from."""
    return [
        {
            "task": task.name,
            "title": task.title,
            "kind": task.kind,
            **{role: "/".join(source) for role, source in task.splits.items()},
        }
        for task in manifest.tasks.values()
    ]


def store_rows(cache_dir: Path, task: str | None = None) -> list[Row]:
    """Every store of a cache, or of a task: finished, unfinished or damaged.

    Those of one split and backbone stand together, the newest first, and the others say in what they differ.
    """
    of_a_kind: dict[str, list[Path]] = {}
    for path in store_paths(cache_dir, task or "*"):
        if not path.name.startswith("targets-"):
            of_a_kind.setdefault(str(path)[: -len(".zarr") - SHORT], []).append(path)
    return [row for paths in of_a_kind.values() for row in _rows_of_a_kind(paths)]


def _rows_of_a_kind(paths: Sequence[Path]) -> list[Row]:
    rows, newest = list[Row](), None
    for path in sorted(paths, key=_written, reverse=True):
        try:
            store = open_features(path, allow_incomplete=True)
        except StoreError:
            rows.append({"store": path, "complete": "damaged: `scivid validate` says how"})
            continue
        newest = newest or store
        rows.append(_store_row(store, differences(store.parts, newest.parts)))
    return rows


def _written(path: Path) -> float:
    """When the header was written last; 0 where it is missing."""
    try:
        return (path / "zarr.json").stat().st_mtime
    except OSError:
        return 0.0


def data_rows(manifest: Manifest, data_dir: Path, task: str | None = None) -> tuple[list[Row], list[str]]:
    """Every split, or those of a task: how many of its files are there; and a line for each that needs doing.

    Raises:
        CallError: there is no such task.
    """
    rows: list[Row] = []
    lines: list[str] = []
    wanted = None if task is None else {name for name, _ in manifest.task(task).splits.values()}
    for dataset in manifest.datasets.values():
        if wanted is not None and dataset.name not in wanted:
            continue
        for split, status in data_status(dataset, data_dir).items():
            rows.append(
                {
                    "data": f"{dataset.name}/{split}",
                    "files": f"{status.n_found}" + (f" of {status.n_expected}" if status.n_expected else ""),
                    "clips": status.n_clips,
                    "MB": f"{status.n_bytes / 1e6:,.1f}",
                    "frames": None if dataset.frame_size is None else "{}x{}".format(*dataset.frame_size),
                    "state": "complete" if status.complete else "see below" if status.n_found else "missing",
                }
            )
            lines += [_below(f"{dataset.name}/{split}", line) for line in (*status.problems, *status.notes)]
    return rows, lines


def _below(split: str, message: str) -> str:
    """What a split's reader says, the command that it may end with on a line of its own."""
    named = message if message.startswith(split) else f"{split}: {message}"
    return named.replace(" Get it: ", " Get it:\n  ")


def _store_row(store: FeatureStore, unlike: Sequence[str]) -> Row:
    path = store.path
    return {
        "store": path,
        "complete": "yes" if store.complete else "no: run the same extract again",
        "what is wrong": misplaced(path, store.header) and "misplaced: `scivid validate` says how",
        "clips": store.spec.n_clips,
        "MB": f"{store.spec.payload_bytes / 1e6:,.1f}",
        "written": datetime.fromtimestamp(_written(path)).astimezone().strftime("%Y-%m-%d %H:%M"),
        "unlike the newest": "; ".join(unlike) or None,
        "views": store.spec.n_views,
        "layers": " ".join(layer.name for layer in store.spec.layers),
        "tokens": store.spec.dtype,
        "computed in": store.parts["backbone"].get("precision"),
    }
