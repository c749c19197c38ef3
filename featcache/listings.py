"""What there is, as rows of text: backbones, tasks, stores, data on disk.

Nothing heavy is imported and no weights or clips are opened, so `scivid list` and `scivid data status`
answer at once.
"""

from pathlib import Path

from featcache.backbones import backbone_table
from featcache.manifest import Manifest, Task
from featcache.readers import data_status
from featcache.store import find_stores

Row = dict[str, object]


def backbone_rows(weights_dir: Path | None) -> list[Row]:
    """Every backbone: what it is, what it costs, what its licence allows, whether its weights are here."""
    return [
        {
            "backbone": row.info.name,
            "what": row.info.title,
            "params M": f"{row.info.params_m:,.1f}",
            "GFLOP/clip": None if row.info.gflop is None else f"{row.info.gflop:,.0f}",
            "grid t,h,w,c": " ".join(map(str, row.info.grid.shape)),
            "MB/clip": f"{row.mb_per_clip:.2f}",
            "layer": " ".join(layer.name for layer in row.info.default_layers),
            "licence": row.info.licence + ("" if row.info.commercial else " (non-commercial)"),
            "public": "yes" if row.info.public else "no",
            "weights": row.weights,
        }
        for row in backbone_table(weights_dir)
    ]


def task_rows(manifest: Manifest) -> list[Row]:
    """Every task and the data that its splits come from."""
    return [
        {"task": task.name, "title": task.title, "kind": task.kind, **_sources(task)}
        for task in manifest.tasks.values()
    ]


def store_rows(cache_dir: Path) -> list[Row]:
    """Every store of a cache, finished or not."""
    return [
        {
            "store": store.path,
            "complete": "yes" if store.complete else "no: run the same extract again",
            "clips": store.spec.n_clips,
            "views": store.spec.n_views,
            "layers": " ".join(layer.name for layer in store.spec.layers),
            "MB": f"{store.spec.payload_bytes / 1e6:,.1f}",
        }
        for store in find_stores(cache_dir)
    ]


def data_rows(manifest: Manifest, data_dir: Path) -> list[Row]:
    """Every split: how many of its files are there, and what to do about those that are not."""
    return [
        {
            "data": f"{dataset.name}/{split}",
            "files": f"{status.n_found}" + (f" of {status.n_expected}" if status.n_expected else ""),
            "clips": status.n_clips,
            "MB": f"{status.n_bytes / 1e6:,.1f}",
            "frames": None if dataset.frame_size is None else "{}x{}".format(*dataset.frame_size),
            "state": "; ".join((*status.problems, *status.notes)) or "complete",
        }
        for dataset in manifest.datasets.values()
        for split, status in data_status(dataset, data_dir).items()
    ]


def _sources(task: Task) -> Row:
    return {role: "/".join(source) for role, source in task.splits.items()}
