"""Bouts of Fly-vs-Fly and FlyTracker, `*_actions.mat`: names in `behs`, `bouts` a cell a fly and behaviour.

A row of a cell is [first, last] or [first, last, certainty], frames counted from 1, the last one included; an
empty cell is 0 x 0. `*_track.mat` or `*-track.mat` beside tells which frames have no track of a fly: the
usual preparation leaves them out. Source: Caltech Fly-vs-Fly (doi 10.22002/zrznw-w7386), read as FlyTracker's
scripts read it.
"""

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from featcache.data.labels.base import Annotations, Choices
from featcache.data.labels.drafts import Draft, Drafts
from featcache.data.labels.videos import Videos
from featcache.errors import DataError

_ENDING = re.compile(r"[_-]?(actions|actions_corrected)$", re.IGNORECASE)
_OTHERS = re.compile(r"(^|[_-])(track|feat|calibration|bg|seg|params|trk|trx|perframe)$", re.IGNORECASE)
"""Ends of names of the tracker's other files."""
_WAY_OUT = "save it in MATLAB as save(file, 'behs', 'bouts', '-v7')"


def recognises(path: Path, head: str) -> bool:
    """By its ending: another `.mat` is refused when it is read."""
    del head
    return path.suffix.lower() == ".mat" and not _OTHERS.search(path.stem)


def read(path: Path, videos: Videos, choices: Choices) -> Annotations:
    """See `Importer.read`."""
    contents = _load(path)
    if not {"behs", "bouts"} <= contents.keys():
        raise DataError(f"{path} lacks `behs` or `bouts`: {_WAY_OUT}.")
    names = [str(np.ravel(name)[0]) if np.size(name) else "" for name in np.ravel(contents["behs"])]
    bouts = np.atleast_2d(contents["bouts"])
    if bouts.shape[1] != len(names):
        bouts = bouts.T
    if bouts.shape[1] != len(names) or bouts.dtype != object:
        raise DataError(f"{path}: `bouts` is {bouts.shape}, and should be flies by {len(names)} behaviours.")
    drafts = Drafts(path, videos)
    draft = drafts.of(choices.video or _ENDING.sub("", path.stem), by_stem=True)
    if draft is not None:
        for fly, row in enumerate(bouts, 1):
            for name, cell in zip(names, row, strict=True):
                _add(draft, f"fly {fly}, {name}", name, np.asarray(cell, np.float64), f"fly {fly}")
        drafts.remarks.add(
            "last_frame", "", "frames count from 1 and include the last, as Fly-vs-Fly has it."
        )
        drafts.remarks.add(
            "benchmark", "", "which movies were the benchmark's train, val and test is not public: splits "
            "that are made here are others, and so are scores."
        )  # fmt: skip
        _leave_out_untracked(path, draft)
    return drafts.annotations("fly_bouts", names)


def _load(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat  # type: ignore[import-untyped]
    from scipy.io.matlab import MatReadError  # type: ignore[import-untyped]

    try:
        return dict(loadmat(path))
    except NotImplementedError:
        raise DataError(f"{path} is of MATLAB 7.3, which is HDF5 and is not read: {_WAY_OUT}.") from None
    except OSError as problem:
        raise DataError(f"{path} cannot be read ({problem.strerror or problem}): copy it again.") from None
    except (MatReadError, zlib.error, ValueError, TypeError, LookupError, EOFError) as problem:
        raise DataError(f"{path} is no .mat file, or is cut short ({problem}): copy it again.") from None


def _add(draft: Draft, where: str, label: str, cell: np.ndarray, subject: str) -> None:
    if not cell.size:
        return
    for number, bout in enumerate(np.atleast_2d(cell), 1):
        if len(bout) < 2 or not np.isfinite(bout[:2]).all() or (bout[:2] % 1).any():
            draft.remarks.add(
                "bad_value",
                f"{where}, row {number}",
                f"{bout.tolist()} is no first and last frame: correct it.",
            )
            continue
        draft.add_frames(f"{where}, row {number}", label, int(bout[0]) - 1, int(bout[1]), subject=subject)


def _leave_out_untracked(path: Path, draft: Draft) -> None:
    """Frames in which a fly has no track, by the file beside."""
    stem = _ENDING.sub("", path.stem)
    tracks = [path.with_name(f"{stem}{mark}track.mat") for mark in "_-"]
    track = next((track for track in tracks if track.is_file()), None)
    if track is None:
        return
    contents = _load(track)
    try:
        data = np.asarray(contents["trk"]["data"][0, 0], np.float64)
    except (KeyError, IndexError, ValueError, TypeError):
        raise DataError(f"{track} lacks trk.data: copy it again, or move it away.") from None
    if data.ndim != 3 or data.shape[1] != draft.video.n_frames:
        draft.remarks.add(
            "row_count",
            draft.video.source,
            f"{track.name} has data of {data.shape} (flies, frames, values) for {draft.video.n_frames} "
            "frames: "
            "label the video that was tracked, or move the track away.",
        )
        draft.add_unknown(0, draft.video.n_frames, "its track is not as long as it")
        return
    lost = np.atleast_2d(np.isnan(data).any(axis=2))
    for fly, frames in enumerate(lost, 1):
        edges = np.flatnonzero(np.diff(np.concatenate(([False], frames, [False])).astype(np.int8)))
        for first, stop in edges.reshape(-1, 2):
            draft.add_unknown(int(first), int(stop), f"no track of fly {fly}")
    if lost.any():
        draft.remarks.add(
            "no_track",
            draft.video.source,
            f"{int(lost.any(axis=0).sum())} of {draft.video.n_frames} frames have no track of all flies: "
            "no clip "
            "is made there, as in the usual preparation.",
        )
