"""Files of tracked points: DeepLabCut and Lightning Pose tables, SLEAP's `.slp` and analysis files.

The one module that opens them, with the libraries of `scivid[tracks]`, inside functions. `sleap-io` reads
`.slp`, and of analysis files only those of late; DeepLabCut's predictions, tables under three or four rows of
headings, it does not: pandas does, from HDF5. `movement` reads all, and brings 75 packages, Qt among them.

Coordinates are left as they are: pixels, x to the right and y down, 0 the first column and row.
"""

import csv
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from einops import rearrange
from jaxtyping import Float32

from featcache.data.labels.tables import separator_of
from featcache.errors import DataError

Form = Literal["table", "pandas", "sleap", "analysis"]

_HEADINGS = ("scorer", "individuals", "bodyparts", "coords")
_MAGIC = "HDF\r\n"
_NEED = "pip install 'scivid[tracks]'"


@dataclass(frozen=True, kw_only=True, slots=True)
class Poses:
    """The points of one video."""

    points: tuple[str, ...]
    """`animal.bodypart`, or the body part alone where a file tells no animals apart."""
    xy: Float32[np.ndarray, "F Q xy"]
    """Pixels; NaN where a point was not found."""
    confidence: Float32[np.ndarray, "F Q"]
    """From 0 to 1; 1 where a person marked the point."""
    video: str | None = None
    """As the file calls it, where it does."""
    every_frame: bool = False
    """Whether it has a row for each frame, so that their number is the video's."""


def form_of(path: Path, head: str) -> Form | None:
    """Which of the forms a file has, by its name and first characters; None of another file."""
    ending = path.suffix.lower()
    if ending == ".slp":
        return "sleap"
    if ending in (".csv", ".tsv"):
        first = [line.split(separator_of(head), 1)[0].strip() for line in head.splitlines()[:4]]
        return "table" if first[:2] == ["scorer", "bodyparts"] or first == list(_HEADINGS) else None
    if ending not in (".h5", ".hdf5") or _MAGIC not in head[:12]:
        return None
    try:
        import h5py
    except ImportError:
        name = path.name.casefold()
        return "analysis" if "analysis" in name else "pandas" if "dlc" in name else None
    try:
        with h5py.File(path, "r") as file:
            if {"tracks", "node_names"} <= set(file):
                return "analysis"
            return "pandas" if any("pandas_type" in group.attrs for group in file.values()) else None
    except OSError:
        return None


def read_poses(path: Path, form: Form) -> Iterator[Poses]:
    """What a file holds, a video at a time.

    Raises:
        DataError: it cannot be read, or a library is missing; names it and the way out.
    """
    try:
        if form == "table":
            yield _of_table(path)
        elif form == "pandas":
            yield _of_frame(path)
        elif form == "analysis":
            yield _of_analysis(path)
        else:
            yield from _of_sleap(path)
    except ImportError as problem:
        raise DataError(f"{path} needs {problem.name}: {_NEED}.") from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, UnicodeError) as problem:
        what = f"{type(problem).__name__}: {problem}"
        raise DataError(f"{path} cannot be read as tracked points ({what}): export it again.") from problem


def _of_table(path: Path) -> Poses:
    """Rows under headings, read one after the other."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        file.seek(0)
        rows = csv.reader(file, delimiter=separator_of(head))
        headings = dict[str, list[str]]()
        while (cells := next(rows))[0] in _HEADINGS:
            headings[cells[0]] = cells[1:]
            if cells[0] == "coords":
                break
        values, n_rows = array("f"), 0
        for cells in rows:
            _check_number(cells[0], n_rows)
            values.extend(float(cell) if cell.strip() else float("nan") for cell in cells[1:])
            n_rows += 1
    table = rearrange(np.frombuffer(values, np.float32), "(f c) -> f c", f=n_rows)
    animals = headings.get("individuals", [""] * len(headings["coords"]))
    return _of_columns(table, list(zip(animals, headings["bodyparts"], headings["coords"], strict=True)))


def _of_frame(path: Path) -> Poses:
    import pandas as pd

    table: Any = pd.read_hdf(path)
    for place, number in enumerate(table.index):
        _check_number(str(number), place)
    names = list(table.columns.names)
    places = [names.index(name) if name in names else None for name in _HEADINGS[1:]]
    columns = [tuple("" if at is None else str(key[at]) for at in places) for key in table.columns]
    return _of_columns(table.to_numpy(np.float32), columns)


def _check_number(text: str, place: int) -> None:
    """A row's name is its place: frames that were marked to train a network have names of pictures."""
    try:
        number = float(text)
    except ValueError:
        raise ValueError(
            f"its rows are pictures as {text!r}, not the frames of a video: give the tracks of a network"
        ) from None
    if number != place:
        raise ValueError(f"frame {text} stands where frame {place} should: rows are missing, or out of order")


def _of_columns(table: Float32[np.ndarray, "F n"], columns: Sequence[tuple[str, ...]]) -> Poses:
    """From columns named (animal, body part, x or y or likelihood)."""
    at = {key: place for place, key in enumerate(columns)}
    points = list(dict.fromkeys(key[:2] for key in columns if key[2] in ("x", "y")))
    xy = np.stack([table[:, [at[*point, axis] for point in points]] for axis in "xy"], axis=-1)
    ones = np.ones(len(table), np.float32)
    sure = [table[:, at[*p, "likelihood"]] if (*p, "likelihood") in at else ones for p in points]
    return Poses(
        points=tuple(_named(*point) for point in points),
        xy=xy,
        confidence=np.stack(sure, axis=-1),
        every_frame=True,
    )


def _of_analysis(path: Path) -> Poses:
    """An analysis file of any age: in MATLAB's order of axes or one that it names, with scores or without."""
    import h5py

    def texts(values: Any) -> list[str]:
        return [value.decode() if isinstance(value, bytes) else str(value) for value in values]

    def in_order(values: Any, usual: str) -> np.ndarray:
        named = values.attrs.get("dims")
        axes = " ".join(json.loads(named)) if named is not None else usual
        wanted = "frame (track node) xy" if "xy" in axes else "frame (track node)"
        return rearrange(values[:].astype(np.float32), f"{axes} -> {wanted}")

    with h5py.File(path, "r") as file:
        xy = in_order(file["tracks"], "track xy node frame")
        nodes = texts(file["node_names"][:])
        animals = texts(file["track_names"][:]) if "track_names" in file else []
        score = np.full(xy.shape[:2], np.nan, np.float32)
        if "point_scores" in file:
            score = in_order(file["point_scores"], "track node frame")
    return Poses(
        points=tuple(_named(animal, node) for animal in animals or [""] for node in nodes),
        xy=xy,
        confidence=np.where(np.isfinite(score), score, np.float32(1)),
    )


def _of_sleap(path: Path) -> Iterator[Poses]:
    import sleap_io as sio

    labels: Any = sio.load_slp(str(path), open_videos=False)
    for video in labels.videos:
        # [frame, animal, body part, (x, y, score)]
        found = labels.numpy(video=video, untracked=not labels.tracks, return_confidence=True)
        if not labels.tracks and found.shape[1] > 1:
            raise ValueError("its animals are not tracked: which is which from frame to frame is not told")
        animals = [track.name for track in labels.tracks] or [""]
        table = rearrange(found.astype(np.float32), "f a p n -> f (a p) n")
        score = table[..., 2]
        yield Poses(
            points=tuple(_named(animal, node) for animal in animals for node in labels.skeleton.node_names),
            xy=table[..., :2],
            confidence=np.where(np.isfinite(score), score, np.float32(1)),
            video=str(video.filename) if video.filename else None,
        )


def _named(animal: str, part: str) -> str:
    return f"{animal}.{part}" if animal else part
