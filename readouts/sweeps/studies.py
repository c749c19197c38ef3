"""The paper's questions as named sweeps: what to vary, along which axis to look, and the paper's own rows.

A study is a grid and nothing else, so it is planned, trained, killed, resumed and drawn as any sweep is; the
benchmark's recipe stands unless the user's own `--grid` lays other values over it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from featcache.errors import CallError
from featcache.manifest import Manifest, PublishedResult
from featcache.spec import SHUFFLED
from readouts.features.splits import EVERY_LAYER
from readouts.heads import LAYER_HEADS
from readouts.sweeps.grid import Grid
from readouts.tasks import load_task
from readouts.tasks.base import Task
from readouts.training.settings import readouts_of

ROBUSTNESS = "robustness"
"""The study whose readouts are scored on corrupted clips as well (`readouts.sweeps.robustness`)."""

SEEDS = ("0", "1", "2")
"""Three, for a spread: one seed is no result."""

_SIZE = re.compile(r"_(s|b|l|h|g|e|hplus|b_dist_e)\d*$")
"""How names end that say a size: dinov2_l, vjepa_h384, 4ds_b_dist_e."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """One question, and how to ask it."""

    title: str
    question: str
    along: str
    """The axis of its curve: a name of the grid, or one that is no matter of training."""
    values: Callable[[Task, str, Sequence[str]], tuple[str, ...]]
    """(task, backbone, known backbones) -> the values along that axis; none of what is not trained."""
    beside: Callable[[PublishedResult, str, Sequence[PublishedResult]], bool]
    """Which of the task's published rows belong beside it, given ours and all of them."""


def _same_backbone(row: PublishedResult, backbone: str, rows: Sequence[PublishedResult]) -> bool:
    return _plain(row.backbone) == _plain(backbone.removesuffix(SHUFFLED))


def _same_family(row: PublishedResult, backbone: str, rows: Sequence[PublishedResult]) -> bool:
    return _plain(row.backbone) in {_plain(stem + size) for stem in (_stem(backbone),) for size in _ENDINGS}


def _several_readouts(row: PublishedResult, backbone: str, rows: Sequence[PublishedResult]) -> bool:
    """Whatever the backbone: what a readout adds was published for one of them."""
    return len({other.readout for other in rows if other.backbone == row.backbone}) > 1


_ENDINGS = ("s", "b", "l", "h", "g", "e", "hplus", "h384", "g384", "bdiste")

STUDIES: Mapping[str, Study] = {
    "readout": Study(
        title="Readout architecture",
        question="How much of what a backbone knows does each kind of readout find?",
        along="readout",
        values=lambda task, backbone, known: tuple(r for r in readouts_of(task) if r not in LAYER_HEADS),
        beside=_several_readouts,
    ),
    "depth": Study(
        title="Depth",
        question="At which layer is what the task needs easiest to read, and do all together say more?",
        along="layer",
        values=lambda task, backbone, known: (EVERY_LAYER,),
        beside=_same_backbone,
    ),
    "order": Study(
        title="Temporal order",
        question="Does it matter to the backbone in which order the frames come?",
        along="backbone",
        values=lambda task, backbone, known: (plain := backbone.removesuffix(SHUFFLED), plain + SHUFFLED),
        beside=_same_backbone,
    ),
    "data": Study(
        title="Data fraction",
        question="How much labelled data does a readout need?",
        along="train_fraction",
        values=lambda task, backbone, known: ("0.01", "0.05", "0.25", "1"),
        beside=_same_backbone,
    ),
    "scale": Study(
        title="Scale within a family",
        question="Is the larger backbone of a family the better one?",
        along="backbone",
        values=lambda task, backbone, known: family(backbone, known),
        beside=_same_family,
    ),
    "views": Study(
        title="Cached views",
        question="How many frozen views stand in for augmentation drawn anew every time?",
        along="train_views",
        values=lambda task, backbone, known: ("1", "2", "4", "8"),
        beside=_same_backbone,
    ),
    ROBUSTNESS: Study(
        title="Robustness",
        question="What is left of a score where the scored clips, not those of the training, are corrupted?",
        along="severity",
        values=lambda task, backbone, known: (),
        beside=_same_backbone,
    ),
}
"""Every study by the name that `scivid sweep --study` has for it."""


def study_of(name: str) -> Study:
    """The study that `--study` has this name for.

    Raises:
        CallError: there is none; says which there are.
    """
    if name not in STUDIES:
        raise CallError(f"--study {name}: there are {', '.join(STUDIES)}.")
    return STUDIES[name]


def study_grids(
    name: str,
    *,
    task: str,
    backbone: str,
    manifest: Manifest,
    known: Sequence[str],
    over: Sequence[Grid] = (),
) -> list[Grid]:
    """The grids of a study of one task and backbone.

    Args:
        name: of the study.
        task: as `--task` is given.
        backbone: whose stores to read.
        manifest: where tasks come from.
        known: all backbones there are, the smaller of a family first.
        over: the user's own values, laid over the study's name by name: a grid each, none is one.

    Raises:
        CallError: no such study or task, a family of one, or views of a task that has one.
    """
    study, entry = study_of(name), manifest.tasks.get(task)
    if name == "views" and entry and entry.starts is None and entry.augmentation.is_identity:
        raise CallError(
            f"--study views: the training clips of {task} are never augmented, so one view is all."
        )
    values = study.values(load_task(task, manifest), backbone, known)
    if len(values) == 1 and name == "scale":
        raise CallError(f"--study {name}: {backbone} has no relatives, known are {', '.join(known)}.")
    own: Grid = {"task": (task,), "backbone": (backbone,), "seed": SEEDS}
    own = {**own, study.along: values} if values else own
    grids: list[Grid] = [{**own, **grid} for grid in over or ({},)]
    return grids + _of_all_layers(grids, load_task(task, manifest)) if name == "depth" else grids


def _of_all_layers(grids: Sequence[Grid], task: Task) -> list[Grid]:
    """Grids of the readout that reads all layers at once, one more row; none where readouts were chosen."""
    first = next((kind for kind, head in LAYER_HEADS.items() if head.gives == task.takes), None)
    return [
        {**grid, "readout": (first,)}
        for grid in grids
        if first is not None and "readout" not in grid and grid["layer"] == (EVERY_LAYER,)
    ]


def family(backbone: str, known: Sequence[str]) -> tuple[str, ...]:
    """The backbones whose names differ from this one's in their size only, in the order of `known`."""
    return tuple(name for name in known if _stem(name) == _stem(backbone)) or (backbone,)


def published_beside(name: str, *, task: str, backbone: str, manifest: Manifest) -> list[dict[str, object]]:
    """The published rows that belong beside a study, as lines of `readouts.sweeps.run.summary`.

    Those of readouts of frozen backbones, as a study's are, whose split is known.
    """
    entry = manifest.tasks.get(task)
    every = entry.published.rows if entry else ()
    rows = [row for row in every if row.kind == "frozen" and row.split != "unsaid"]
    return [
        {
            "task": task, "backbone": f"{row.backbone} (published)", "readout": row.readout,
            row.split: f"{row.value:g}",
        }
        for row in rows
        if study_of(name).beside(row, backbone, rows)
    ]  # fmt: skip


def _stem(name: str) -> str:
    return _SIZE.sub("", name)


def _plain(name: str) -> str:
    """A name as the paper and the registry both would have it, were there no marks between words."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
