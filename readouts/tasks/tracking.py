"""Tracking: where points of the first frame end up (PROTOCOL: tissue).

Trained on the tracks of rendered scenes, a window and 64 of 2,048 tracks drawn anew each time; tested on
videos of surgery whose points are marked at the start and at the end only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from featcache.errors import StoreError
from featcache.manifest import Manifest
from featcache.spec import TRACKS_AT_ONCE
from featcache.store.targets import Targets
from readouts.heads.tracking import as_tracks
from readouts.metrics import tracking
from readouts.metrics.base import PerClip, Weights
from readouts.tasks.base import Baseline, ManifestTask, Numbers, Rng, Rows
from readouts.tasks.losses import total_of, track_losses

FRAMES_PER_TILE = 2
"""Frames that one attention query answers for."""

SURE = 10.0
"""A logit of what is taken for granted."""

HIDDEN = -1.0
"""Coordinates of a track that cannot be followed, as it is hidden in the query frame."""


@dataclass(frozen=True, kw_only=True)
class Tracking(ManifestTask):
    """A task of points to follow; see `readouts.tasks.base.Task` for the contract."""

    n_frames: int
    """Frames of a clip, and of a prediction."""
    rows: int
    """Rows of a frame, in pixels: the losses' unit."""
    n_tracks: int = TRACKS_AT_ONCE
    """Drawn of a clip's tracks in each training step; the first ones are scored."""
    readouts: tuple[str, ...] = ("tracking",)
    takes: str = "tracks"
    n_outputs: int = 4
    output_names: tuple[str, ...] = ("x", "y", "visibility", "certainty")
    score: str = "average_over_thresholds"
    higher_is_better: bool = True

    @classmethod
    def of(cls, manifest: Manifest, name: str) -> "Tracking":
        """The tracking task called `name` in the manifest, with the benchmark's recipe."""
        clip = manifest.task(name).clip
        return cls(name=name, n_frames=clip.n_frames, rows=clip.height)

    def identity(self) -> Mapping[str, Any]:
        """The values that define score and loss."""
        return {"n_frames": self.n_frames, "rows": self.rows, "n_tracks": self.n_tracks, "score": self.score}

    def head_config(self, readout: str) -> dict[str, Any]:
        """The benchmark's settings of a head."""
        if readout != "tracking":
            return {"n_frames": self.n_frames}
        tiles = {"n_frames": self.n_frames, "temporal_tiles": max(1, self.n_frames // FRAMES_PER_TILE)}
        return {**tiles, "width": 1024, "heads": 8, "n_bases": 16}

    def select(self, targets: Targets, clips: Numbers, views: Numbers, rng: Rng) -> dict[str, np.ndarray]:
        """What is asked and what is true.

        Training clips: `queries` [B Q 2], `query_mask` [B Q 1], `coords` [B F Q 2], `visible` and
        `target_mask` [B F Q 1]. Evaluated videos: `queries` and `ends` [B P 2] with their masks [B P 1].
        """
        if "tracks" in targets:
            return self._tracks(targets, clips, views, rng)
        if "ends" not in targets:
            raise StoreError(
                f"{targets.path} holds neither tracks nor end points: it is not of a tracking task."
            )
        names = ("queries", "ends", "query_mask", "end_mask")
        rows = {name: targets.rows(name, clips) for name in names}
        return {name: v[..., None] if name.endswith("mask") else v for name, v in rows.items()}

    def _tracks(self, targets: Targets, clips: Numbers, views: Numbers, rng: Rng) -> dict[str, np.ndarray]:
        """View v is the window that starts at frame v; without `rng` the first tracks are taken."""
        n_tracks = targets.shape("tracks")[2]
        coords = np.empty((len(clips), self.n_frames, min(self.n_tracks, n_tracks), 2), np.float32)
        visible = np.empty(coords.shape[:-1], np.bool_)
        # A clip at a time: its 2,048 tracks are thirty times what is kept of them.
        for row, (clip, start) in enumerate(zip(clips, views, strict=True)):
            drawn = np.arange(n_tracks) if rng is None else rng.permutation(n_tracks)
            window = np.ix_(np.arange(start, start + self.n_frames), drawn[: self.n_tracks])
            coords[row] = targets.rows("tracks", np.array([clip]))[0][window]
            visible[row] = targets.rows("visibility", np.array([clip]))[0][window]
        return masked_tracks(coords, visible)

    def inputs(self, targets: Rows) -> dict[str, Tensor]:
        """The points to follow."""
        return {"queries": targets["queries"]}

    def loss(self, outputs: Float[Tensor, "B F Q 4"], targets: Rows) -> Float[Tensor, ""]:
        """Huber on points, cross-entropy on visibility and certainty (PROTOCOL: tissue, loss)."""
        tracks = as_tracks(outputs)
        assert tracks.visible_logits is not None
        assert tracks.certainty_logits is not None
        return total_of(
            track_losses(
                tracks.points,
                tracks.visible_logits,
                tracks.certainty_logits,
                targets=targets["coords"],
                visible=targets["visible"],
                query_mask=targets["query_mask"],
                target_mask=targets["target_mask"],
                rows=self.rows,
            )
        )

    def per_clip(self, outputs: Float[Tensor, "B F Q 4"], targets: Rows) -> PerClip:
        """`hits` [B thresholds], `points` and `pixels` [B] of the last frame, at 1280 x 1024 pixels.

        Where tracks are known, of the points that are seen in it, and each from its own end point; of these
        also what Average Jaccard is made of.
        """
        last = as_tracks(outputs[:, -1:]).points[:, 0].float()
        if "ends" in targets:
            ends, masks = targets["ends"], (targets["query_mask"], targets["end_mask"])
        else:
            ends, masks = targets["coords"][:, -1], (targets["target_mask"][:, -1],) * 2
        asked, marked = (rearrange(mask, "b q 1 -> b q") for mask in masks)
        found = tracking.per_clip(last, ends, asked, marked, matched="ends" not in targets)
        return found if "ends" in targets else {**found, **self._jaccard(outputs, targets)}

    def _jaccard(self, outputs: Float[Tensor, "B F Q 4"], targets: Rows) -> PerClip:
        """A head that says nothing of visibility says that it sees all points."""
        tracks, truly_seen = as_tracks(outputs), rearrange(targets["visible"] != 0, "b f q 1 -> b f q")
        seen = torch.ones_like(truly_seen)
        if tracks.visible is not None:
            seen = rearrange(tracks.visible > 0.5, "b f q 1 -> b f q")
        return tracking.jaccard_counts(
            tracks.points.float(), seen, true_points=targets["coords"].float(), truly_seen=truly_seen,
            query_mask=rearrange(targets["query_mask"], "b q 1 -> b q"),
        )  # fmt: skip

    def scores(self, per_clip: PerClip, weights: Weights | None = None) -> dict[str, float]:
        """Shares of points that end near a true end point; of whole tracks also Average Jaccard."""
        return tracking.scores(per_clip, weights)

    def baselines(self, train: Targets) -> Mapping[str, Baseline]:
        """Points that do not move."""
        return {"points do not move": self._unmoved}

    def _unmoved(self, targets: Rows) -> Tensor:
        # In float64: the metric's sigmoid gives back the very coordinates, which it rounds to pixels.
        logits = targets["queries"].double().clamp(0.0, 1.0).logit()
        # Always seen, and sure of it.
        outputs = torch.cat([logits, torch.full_like(logits, SURE)], dim=-1)
        return repeat(outputs, "b q o -> b f q o", f=self.n_frames)


def masked_tracks(
    coords: Float32[np.ndarray, "B F Q 2"], visible: Bool[np.ndarray, "B F Q"]
) -> dict[str, np.ndarray]:
    """Tracks as queries in their first frame, targets and masks.

    A track that is hidden in the first frame cannot be asked for: its coordinates become -1 in all frames,
    its visibility 0. Source: `MaskOccludedTracks` and `CombineTrackMasksForLoss` of the reference.
    """
    asked = visible[:, 0]
    shown = visible & asked[:, None]
    coords = np.where(asked[:, None, :, None], coords, np.float32(HIDDEN))
    return {
        "queries": coords[:, 0],
        "coords": coords,
        "visible": rearrange(shown, "b f q -> b f q 1").astype(np.float32),
        "query_mask": rearrange(asked, "b q -> b q 1").astype(np.float32),
        "target_mask": rearrange(shown, "b f q -> b f q 1").astype(np.float32),
    }
