"""Which clips of a split belong together: what a bootstrap draws again, as a whole.

Clips of one video are right and wrong together, so it is the videos that are independent, not the clips.
"""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Int64

from featcache.manifest import OWN_VIDEOS
from featcache.store.feature_store import find_stores
from featcache.store.targets import CLIP_UNITS, Targets

CLIPS = "clips"
"""What is drawn where nothing says which clips belong together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clusters:
    """Which clips are drawn together."""

    of_clip: Int64[np.ndarray, " n"]
    """A number of the cluster of each clip; clips of one cluster are not independent."""
    kind: str
    """What the clusters are, in the plural."""

    def __len__(self) -> int:
        """How many clusters there are."""
        return len(np.unique(self.of_clip))


def clusters_of(targets: Targets, clips: Int64[np.ndarray, " n"]) -> Clusters:
    """What is independent in a split: sequences, videos, stretches of time, or else single clips.

    Clips of a user's own videos belong to the file that they were cut from. Forecasts of the same days share
    fields: their cluster is a stretch as long as a forecast. Two initial times of one stretch overlap, those
    of stretches with another between them do not.

    Raises:
        StoreError: the targets are damaged.
    """
    for kind in CLIP_UNITS:
        if kind in targets:
            return Clusters(of_clip=targets.rows(kind, clips).astype(np.int64), kind=f"{kind}s")
    if "places" in targets:
        hours = targets.read("time")[targets.rows("places", clips)]
        span = max(1, int(np.ptp(hours, axis=1).max()))
        return Clusters(of_clip=(hours[:, 0] - hours[:, 0].min()) // span, kind=f"stretches of {span} h")
    files = _video_files(targets)
    if files is not None:
        return Clusters(of_clip=files[clips], kind="videos")
    return Clusters(of_clip=clips.astype(np.int64), kind=CLIPS)


def _video_files(targets: Targets) -> Int64[np.ndarray, " n"] | None:
    """A number of the video file that each clip of a split is from; None where that is not known.

    Targets name no files, but belong to one list of clips, and any store that has them holds it.
    """
    split = targets.path.parent
    for store in find_stores(split.parents[1], split.parent.name, split.name):
        named = store.header.targets
        from_videos = store.parts.get("decoding", {}).get("reader") == OWN_VIDEOS
        if from_videos and named is not None and named.fingerprint == targets.fingerprint:
            # A list that cannot be read in one store may be whole in another.
            with suppress(OSError, ValueError):
                sources = pq.read_table(store.path / "clips.parquet", columns=["source"]).column("source")
                return np.unique(sources.to_numpy(), return_inverse=True)[1].astype(np.int64)
    return None
