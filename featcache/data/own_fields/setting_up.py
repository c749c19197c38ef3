"""Look at a folder of fields, and write the manifest of a forecast that says what was found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from featcache.data.own_fields.proposing import Proposal, propose
from featcache.data.own_fields.statistics import FieldStatistics, statistics_of
from featcache.data.own_videos.base import Setup, Wishes
from featcache.data.own_videos.writing import MANIFEST, flow_text, recipe_for, recipe_lines, scalar_text
from featcache.data.readers.base import UnreadableError
from featcache.data.readers.weather.containers import container_of, open_field_files
from featcache.data.readers.weather.fields import FieldStore
from featcache.data.readers.weather.grid import NotGlobalError, region_of
from featcache.data.readers.weather.windows import even_step, hour
from featcache.errors import CallError, DataError, few
from featcache.manifest import Dataset
from featcache.system.files import publish

_SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}


def set_up_fields(
    folder: Path,
    containers: Sequence[Path],
    variables: Sequence[str],
    wishes: Wishes,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Setup:
    """Write `scivid.yaml` into a folder of fields.

    Args:
        folder: what holds them.
        containers: its NetCDF and GRIB files and Zarr folders, all of one series.
        variables: those that are asked for; none for all, where there are one or three.
        wishes: what the user says of frames: their number, stride and the step from window to window, in
            time steps of the files.
        progress: called with time steps read and to be read for statistics.

    Raises:
        CallError: there is a manifest already.
        DataError: the fields cannot be taken as they are, or something is to be chosen; nothing is written.
    """
    manifest = folder / MANIFEST
    if manifest.exists():
        raise CallError(
            f"{manifest} is there: edit it and say --check, or move it away to have it made anew."
        )
    proposal = propose(containers, variables)
    name = wishes.name or folder.resolve().name
    try:
        dataset, store = _opened(name, containers, proposal)
        plan = _Plan.of(store, wishes)
        statistics = statistics_of(store, plan.splits["train"], plan.stride, progress)
    except UnreadableError as problem:
        raise DataError(f"{few([path.name for path in containers], 3)}: {problem}.") from None
    flat = [v for v, std in zip(dataset.variables, statistics.residual_std, strict=True) if not std > 0]
    if flat:
        raise DataError(f"{few(flat)} never changes: there is nothing to forecast. Choose with --variable.")
    said = _assumed(dataset, store, plan, statistics, proposal)
    lines = [f"Made by scivid data init; edit, then: scivid data init {folder} --check", *said]
    units = [proposal.units[variable] for variable in dataset.variables]
    text = _manifest(name, lines, _files(folder, containers), dataset, store, plan, statistics, units)
    publish(manifest, text.encode())
    return Setup(
        manifest=manifest,
        name=name,
        found=_found(containers, store),
        remarks=(),
        rows=tuple({"split": split, "windows": plan.n_windows(split)} for split in plan.splits),
        assumed=tuple(said),
        splits=tuple(plan.splits),
    )


def _opened(name: str, containers: Sequence[Path], proposal: Proposal) -> tuple[Dataset, FieldStore]:
    """The data set and its opened files: of the whole globe, or of the region that they cover."""
    dataset = Dataset(
        name=name, title=name, source="own fields", licence="", citation="", version="1", reader="fields",
        splits={}, variables=tuple(proposal.variables), channels=len(proposal.variables),
        features={**{key: str(one) for key, one in proposal.variables.items()}, **proposal.axes},
    )  # fmt: skip
    try:
        return dataset, open_field_files(containers, dataset)
    except NotGlobalError:
        latitude, longitude = region_of(proposal.latitude, proposal.longitude)
        regional = replace(dataset, latitude=latitude, longitude=longitude)
        return regional, open_field_files(containers, regional)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which times are which split, and how windows are cut of them."""

    times: np.ndarray
    splits: Mapping[str, range]
    axis_hours: int
    n_frames: int
    """Of the input; as many are to be forecast."""
    stride: int
    every: int

    @classmethod
    def of(cls, store: FieldStore, wishes: Wishes) -> "_Plan":
        times = store.times
        order = np.diff(times) > np.timedelta64(0)
        if not order.all():
            after = times[int(np.argmin(order)) + 1]
            raise UnreadableError(
                f"{hour(after)} does not come after the time before it: two files hold one time, or the axis "
                "is not sorted; give the files of one series"
            )
        axis_hours = even_step(times) if len(times) > 1 else 1
        stride = wishes.stride or 1
        ends = np.cumsum([0, *(round(share * len(times)) for share in _SHARES.values())])
        ends[-1] = len(times)
        splits = {
            split: range(int(first), int(stop))
            for split, first, stop in zip(_SHARES, ends[:-1], ends[1:], strict=True)
        }
        shortest = min(map(len, splits.values()))
        most = ((shortest - 1) // stride + 1) // 2
        if wishes.n_frames > most:
            way_out = f"say --frames {most}" if most else "give a longer series"
            raise UnreadableError(
                f"its {len(times)} times, 70 / 15 / 15 % of them for train, val and test, are too few for "
                f"windows of {wishes.n_frames} frames and as many to forecast: {way_out}"
            )
        return cls(times, splits, axis_hours, wishes.n_frames, stride, wishes.every or stride)

    @property
    def span(self) -> int:
        """Time steps from a window's first frame to behind its last."""
        return (2 * self.n_frames - 1) * self.stride + 1

    def n_windows(self, split: str) -> int:
        return (len(self.splits[split]) - self.span) // self.every + 1

    def windows(self, split: str) -> dict[str, object]:
        """The manifest's `windows`."""
        steps = self.splits[split]
        return {
            "first": hour(self.times[steps.start]),
            "last": hour(self.times[steps.stop - 1]),
            "n_frames": 2 * self.n_frames,
            "step_hours": self.stride * self.axis_hours,
            "every_hours": self.every * self.axis_hours,
        }


def _files(folder: Path, containers: Sequence[Path]) -> str:
    """A pattern below the folder that matches these and no others."""
    if len(containers) == 1:
        return containers[0].relative_to(folder).as_posix()
    parents = {path.parent.relative_to(folder).as_posix() for path in containers}
    endings = {path.suffix for path in containers}
    where = next(iter(parents)) if len(parents) == 1 else "**"
    where = "" if where == "." else f"{where}/"
    return f"{where}*{next(iter(endings)) if len(endings) == 1 else ''}"


def _found(containers: Sequence[Path], store: FieldStore) -> tuple[str, ...]:
    kinds = sorted({str(container_of(path)) for path in containers})
    files = few([path.name for path in containers], 3)
    reach = f"from {hour(store.times[0])} to {hour(store.times[-1])}"
    rows, columns, _ = store.shape
    return (f"{files}: {', '.join(kinds)}, {len(store.times)} times {reach}, {rows} x {columns}",)


def _assumed(
    dataset: Dataset, store: FieldStore, plan: _Plan, statistics: FieldStatistics, proposal: Proposal
) -> list[str]:
    n, hours = plan.n_frames, plan.axis_hours
    windows = f"{n} frames from {n}, {plan.stride * hours} h apart, a window every {plan.every * hours} h"
    lines = [
        f"kind: forecast of {windows}; the files have a time every {hours} h",
        f"axes: {', '.join(f'{axis} is {name}' for axis, name in proposal.axes.items())}",
    ]
    for at, variable in enumerate(dataset.variables):
        unit = proposal.units[variable]
        lines.append(
            f"{variable}: {dataset.features[variable]}, mean {statistics.mean[at]:.6g}, deviation "
            f"{statistics.std[at]:.4g}, of its change {statistics.residual_std[at]:.4g} {unit}".rstrip()
        )
    if store.reordered:
        lines.append(f"{store.reordered}, which are stored in another order")
    if dataset.latitude and dataset.longitude:
        lines.append(f"a region: latitudes {dataset.latitude}, longitudes {dataset.longitude}")
    lines.append("splits: train, val, test by time, 70 / 15 / 15 %; the statistics are of train alone")
    return [*lines, "errors are weighted by the area that a row stands for"]


def _manifest(
    name: str, said: Sequence[str], files: str, dataset: Dataset, store: FieldStore, plan: _Plan,
    statistics: FieldStatistics, units: Sequence[str],
) -> str:  # fmt: skip
    rows, columns, _ = store.shape
    entries: dict[str, object] = {
        "title": name, "source": "own fields", "licence": "unpublished", "citation": "none yet",
        "version": "1", "reader": "fields", "channels": dataset.channels, "frame_size": [rows, columns],
        "variables": list(dataset.variables), "features": dict(dataset.features),
        "pixels": {"mean": list(statistics.mean), "std": list(statistics.std)},
        "residual_std": list(statistics.residual_std),
    }  # fmt: skip
    if any(units):
        entries["units"] = list(units)
    entries |= {key: list(ends) for key in ("latitude", "longitude") if (ends := getattr(dataset, key))}
    entries["splits"] = {split: {"files": files, "windows": plan.windows(split)} for split in plan.splits}
    clip = {
        "n_frames": plan.n_frames, "stride": 1, "sampling": "clip", "height": rows, "width": columns
    }  # fmt: skip
    splits = {split: f"{name}/{split}" for split in plan.splits}
    task = {"title": name, "kind": "forecast", "splits": splits, "clip": clip, "tokens": "last"}
    lines = [*(f"# {line}" for line in said), "datasets:", f"  {scalar_text(name)}:"]
    lines += [f"    {key}: {flow_text(value)}" for key, value in entries.items()]
    lines += ["tasks:", f"  {scalar_text(name)}:"]
    lines += [f"    {key}: {flow_text(value)}" for key, value in task.items()]
    lines += recipe_lines(recipe_for(plan.n_windows("train"), batch=16, most=10_000))
    return "\n".join([*lines, ""])
