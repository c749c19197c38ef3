"""Published numbers as figures of models: grouped by what was trained, one model's several figures apart.

Numbers of different kinds never stand in one ranking: a model that was made for one task, or trained whole on
it, says nothing of how good the features of a frozen backbone are. Nor do val and test, nor the tables of two
protocols: of one model every table and split is a figure of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from featcache.manifest import ModelKind, Published, PublishedResult
from readouts.results.configurations import grouped
from readouts.results.formatting import format_published

KINDS: dict[ModelKind, str] = {
    "frozen": "readouts of frozen backbones",
    "fine-tuned": "backbones trained on the task",
    "domain": "models of the domain",
}
"""What a group of rows is called, in the order of the tables."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """What one table says of one model on one split: of several readouts the best."""

    row: PublishedResult
    source: str
    """The table."""
    is_elsewhere: bool
    """Whether that is another table than the task's."""

    @property
    def value(self) -> str:
        """The number with the digits of its paper."""
        return format_published(self.row.value)

    @property
    def split(self) -> str:
        """What it was scored on, in words."""
        return "split not said" if self.row.split == "unsaid" else self.row.split

    @property
    def about(self) -> str:
        """Its table, and whose protocol it follows where that is not the benchmark's."""
        others = {"": "", "unsaid": ", protocol not said"}
        return self.source + others.get(self.row.protocol, f", protocol: {self.row.protocol}")


def by_kind(published: Published) -> dict[ModelKind, list[PublishedResult]]:
    """Every kind that has rows -> its rows, in the order of `KINDS` and of the manifest."""
    return {kind: rows for kind in KINDS if (rows := [row for row in published.rows if row.kind == kind])}


def figure_of(row: PublishedResult, published: Published) -> Figure:
    """One published row, and where it stands."""
    return Figure(row=row, source=row.source or published.source, is_elsewhere=bool(row.source))


def figures_of(
    model: str, kind: ModelKind, published: Published, *, role: str, higher_is_better: bool
) -> list[Figure]:
    """What was published of a model as one kind: a figure for each table and split, those of `role` first."""
    rows = [row for row in published.rows if (row.backbone, row.kind) == (model, kind)]
    best = max if higher_is_better else min
    found = [
        figure_of(best(of_one, key=lambda row: row.value), published)
        for of_one in grouped(rows, lambda row: (row.split, row.source)).values()
    ]
    order = (role, "test", "val", "unsaid")
    return sorted(found, key=lambda figure: order.index(figure.row.split))


def models_of(tasks: Iterable[Published], kind: ModelKind) -> Sequence[str]:
    """The models that any task has published numbers of this kind for, in the order of the manifest."""
    return list(dict.fromkeys(row.backbone for one in tasks for row in one.rows if row.kind == kind))
