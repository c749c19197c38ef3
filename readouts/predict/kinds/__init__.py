"""Kinds of runs, and what each says of a video: a file each."""

from collections.abc import Sequence
from pathlib import Path

from featcache.errors import CallError
from readouts.predict.kinds.base import Kind
from readouts.predict.kinds.labels import Labels, thresholds_of
from readouts.predict.kinds.tracks import Tracks
from readouts.predict.kinds.values import Values
from readouts.training.loaded import TrainedRun


def kind_of(
    run: TrainedRun, readout: str, videos: Sequence[Path], *, threshold: str, points: Path | None
) -> Kind:
    """The kind of a run.

    Args:
        run: loaded.
        readout: of it.
        videos: that it is to predict.
        threshold: what `--threshold` says, of classes.
        points: a file of points to follow, of a run that tracks.

    Raises:
        CallError: the run needs more than a video, or what is given is not for runs of its kind.
        StoreError: val was not scored clip by clip.
        DataError: points cannot be read.
    """
    takes = run.gives["takes"]
    if takes == "fields":
        raise CallError(
            f"{run.folder.path} forecasts fields, which are in no video: extract a split of them (scivid "
            "extract, with a manifest that lists their files), then predict it with --store."
        )
    if takes == "tracks":
        return Tracks.of(run, videos, points)
    if points is not None:
        raise CallError(f"--points {points}: {run.folder.path} follows no points, it gives numbers a clip.")
    if not run.gives["are_labels"]:
        return Values.of(run)
    return Labels(
        names=run.output_names,
        background=run.gives["background"],
        thresholds=thresholds_of(run, readout, threshold),
    )
