"""The correlation readout: a point is followed by what its token looks like.

The paper names the lack of one: its tracking readout is told coordinates and has to learn from them where to
look, which costs it accuracy. Here the query's own feature, sampled from the first frame's map, is compared
with every token of every frame, as trackers do (TAP-Vid, Doersch et al. 2022). Refinement goes from coarse to
fine: best token of the frame, centroid of the similarities around it, centroid on a finer grid that bicubic
interpolation gives, and what an MLP makes of the patch of similarities, for a token is seventy to ninety of
the pixels in which tracks are scored.

A point's answer is its query plus what was found in the frame less what was found in the first frame by the
same steps. So still features are still points from the start, and the grid's bias, the same in both, cancels.

Tokens are projected by products with native tokens (`ImplicitTokens.dot`), so the head costs channels x
`dim` multiplications a token, an eighth of an attention's keys alone, and [B Q F N] numbers of memory.
"""

from math import log
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from featcache.errors import CallError
from featcache.resampling import temporal_matrix
from readouts.heads.base import Readout
from readouts.heads.layers import dense, mlp
from readouts.tokens.prepared import Native, PreparedTokens, prepared

FINENESS = 4
"""Positions of the fine grid per token, along each side."""

FINE_TOKENS = 3
"""Tokens that the fine grid covers along each side, about the best one."""

_EDGE = 1e-4
"""Points stay this far inside the frame, whose very edge has no finite logit."""


class CorrelationReadout(Readout):
    """Query points to their tracks by similarity of tokens; outputs as those of `TrackingReadout`."""

    gives: ClassVar[str] = "tracks"
    in_time: Tensor | None
    size: Tensor
    centres: Tensor
    offsets: Tensor
    finer: Tensor
    fine_offsets: Tensor

    def __init__(
        self,
        *,
        channels: int,
        steps: int,
        rows: int,
        columns: int,
        n_frames: int = 16,
        dim: int = 128,
        radius: int = 3,
        hidden: int = 256,
        generator: Generator | None = None,
    ) -> None:
        """Draw a new head.

        Args:
            channels: C of the tokens.
            steps: T of the tokens; their projections are interpolated where it is not `n_frames`.
            rows: H of the token grid.
            columns: W of the token grid.
            n_frames: frames to track in.
            dim: channels of the projection in which tokens are compared.
            radius: tokens to each side of the best one that enter its refinement.
            hidden: width of the MLPs on the patch of similarities.
            generator: where all initial values come from.

        Raises:
            CallError: `radius` is less than 1.
        """
        super().__init__()
        if radius < 1:
            raise CallError(f"radius={radius} must be at least 1: the best token and its neighbours.")
        self.steps, self.rows, self.columns, self.radius = steps, rows, columns, radius
        side = 2 * radius + 1
        self.projection = dense(channels, dim, bias=False, generator=generator)
        # Logarithms of positive numbers: how sharp similarities are at each scale, how far points move.
        self.sharpness = nn.Parameter(torch.tensor([log(20.0), log(10.0), log(20.0)]))
        self.stiffness = nn.Parameter(torch.tensor(log(10.0)))
        self.tether = nn.Parameter(torch.tensor(log(1.0)))
        n_clues = 2 * side**2 + 5
        self.refine = mlp(n_clues, hidden, 2, generator=generator)
        self.judge = mlp(n_clues, hidden, 2, generator=generator)
        # A new head adds nothing to what the similarities say.
        nn.init.zeros_(self.refine.get_submodule("2").get_parameter("weight"))
        in_time = None if steps == n_frames else temporal_matrix(steps, n_frames, "linear")
        self.register_buffer("in_time", in_time, persistent=False)
        # Tokens of a frame along x and y.
        self.register_buffer("size", torch.tensor([float(columns), float(rows)]), persistent=False)
        self.register_buffer("centres", _centres(rows, columns), persistent=False)
        self.register_buffer("offsets", torch.arange(side) - float(radius), persistent=False)
        finer, fine_offsets = _fine_grid(side)
        self.register_buffer("finer", finer, persistent=False)
        self.register_buffer("fine_offsets", fine_offsets, persistent=False)

    def forward(
        self, features: Native | PreparedTokens, queries: Float[Tensor, "B Q 2"]
    ) -> Float[Tensor, "B F Q 4"]:
        """Raw outputs of every frame and query; `as_tracks` gives them meaning.

        Args:
            features: tokens of any float dtype, or prepared.
            queries: x, y in [0, 1] of points in the first frame; rows of padding may hold anything finite.

        Raises:
            CallError: the tokens' number of steps, or their grid, is not the head's.
        """
        start = queries.float()
        alike = similarities(self._maps(prepared(features)), start)
        scores = self._scores(alike, start)
        likeliest = scores.argmax(dim=-1)
        best = torch.stack([likeliest % self.columns, likeliest // self.columns], dim=-1)
        patch = patches(alike, best, self.radius)
        found = (best + 0.5 + self._centroid(patch)) / self.size
        moved = found - found[:, :, :1]
        clues = self._clues(scores, patch, moved, start)
        refined = found + self.refine(clues) / self.size
        points = start[:, :, None] + refined - refined[:, :, :1]
        outputs = torch.cat([_logits(points), self.judge(clues)], dim=-1)
        return rearrange(outputs, "b q f o -> b f q o")

    def _maps(self, tokens: PreparedTokens) -> Float[Tensor, "B D F H W"]:
        """Projections of the normalised tokens in every frame, of norm 1 about the clip's mean."""
        normal = tokens.standardised
        projected = normal.dot(self.projection.weight)
        if (normal.steps, projected.shape[-1]) != (self.steps, self.rows * self.columns):
            raise CallError(
                f"this correlation readout is for {self.steps} steps of {self.rows} x {self.columns} tokens "
                f"and was given {normal.steps} of {projected.shape[-1]}: build it for their grid."
            )
        if self.in_time is not None:
            projected = einsum(self.in_time, projected, "f u, b d u n -> b d f n")
        centred = projected - projected.mean(dim=(2, 3), keepdim=True)
        return rearrange(F.normalize(centred, dim=1), "b d f (h w) -> b d f h w", h=self.rows)

    def _scores(
        self, alike: Float[Tensor, "B Q F H W"], start: Float[Tensor, "B Q 2"]
    ) -> Float[Tensor, "B Q F N"]:
        """How well each token fits: similar, and near the query, for points seldom jump."""
        distance = (start[:, :, None] - self.centres).square().sum(dim=-1)
        flat = rearrange(alike, "b q f h w -> b q f (h w)")
        return self.sharpness[0].exp() * flat - self.stiffness.exp() * distance[:, :, None]

    def _centroid(self, patch: Float[Tensor, "B Q F P P"]) -> Float[Tensor, "B Q F 2"]:
        """X and y of the most similar position, in tokens from the middle of the patch."""
        coarse = soft_argmax(self.sharpness[1].exp() * patch, self.offsets)
        fine = einsum(self.finer, self.finer, patch, "y i, x j, b q f i j -> b q f y x")
        scores = self.sharpness[2].exp() * fine
        # Held near the centroid of the whole patch: of two peaks on the fine grid the likelier is meant.
        x, y = ((self.fine_offsets - coarse[..., i, None]).square() for i in range(2))
        tethered = scores - self.tether.exp() * (x[..., None, :] + y[..., None])
        return soft_argmax(tethered, self.fine_offsets)

    def _clues(
        self,
        scores: Float[Tensor, "B Q F N"],
        patch: Float[Tensor, "B Q F P P"],
        moved: Float[Tensor, "B Q F 2"],
        start: Float[Tensor, "B Q 2"],
    ) -> Float[Tensor, "B Q F K"]:
        """What the MLPs see: the patch, frame 0's, how far the point moved, how clear the peak is."""
        share = scores.amax(dim=-1, keepdim=True) - scores.logsumexp(dim=-1, keepdim=True)
        within = start * self.size % 1.0 - 0.5
        flat = rearrange(patch, "b q f y x -> b q f (y x)")
        parts = [flat, flat[:, :, :1], moved * self.size, within[:, :, None], share]
        return torch.cat([part.expand(*flat.shape[:3], -1) for part in parts], dim=-1)


def similarities(
    maps: Float[Tensor, "B D F H W"], queries: Float[Tensor, "B Q 2"]
) -> Float[Tensor, "B Q F H W"]:
    """Cosine of each query's feature, bilinear in frame 0's map, with every token; maps have norm 1.

    Beyond the outermost centres the map goes on as its edge.
    """
    _, _, f, h, w = maps.shape
    along_x, along_y = (_near(queries[..., i], size) for i, size in enumerate((w, h)))
    weights = rearrange(along_y, "b q h -> b q h 1") * rearrange(along_x, "b q w -> b q 1 w")
    first = rearrange(maps[:, :, 0], "b d h w -> b (h w) d")
    asked = F.normalize(torch.bmm(rearrange(weights, "b q h w -> b q (h w)"), first), dim=-1)
    found = torch.bmm(asked, rearrange(maps, "b d f h w -> b d (f h w)"))
    return rearrange(found, "b q (f h w) -> b q f h w", f=f, h=h)


def patches(
    alike: Float[Tensor, "B Q F H W"], centres: Int64[Tensor, "B Q F 2"], radius: int
) -> Float[Tensor, "B Q F P P"]:
    """The values up to `radius` tokens about a column and row, the frame's edges repeated beyond them."""
    reach = torch.arange(-radius, radius + 1, device=alike.device)

    def chosen(middle: Int64[Tensor, "B Q F"], n: int) -> Float[Tensor, "M P {n}"]:
        """1 at the place of each token that is taken of an axis of `n`."""
        places = (middle[..., None] + reach).clamp(0, n - 1)
        all_places = torch.arange(n, device=alike.device)
        return rearrange(places[..., None] == all_places, "b q f p n -> (b q f) p n").to(alike.dtype)

    # Products, where torch's `gather` would add up the gradients of an edge by atomics.
    rows, columns = chosen(centres[..., 1], alike.shape[-2]), chosen(centres[..., 0], alike.shape[-1])
    taken = torch.bmm(torch.bmm(rows, rearrange(alike, "b q f h w -> (b q f) h w")), columns.mT)
    b, q, _, _, _ = alike.shape
    return rearrange(taken, "(b q f) y x -> b q f y x", b=b, q=q)


def soft_argmax(scores: Float[Tensor, "B Q F P P"], offsets: Float[Tensor, "P"]) -> Float[Tensor, "B Q F 2"]:
    """The mean x and y under the softmax of `scores`, whose rows and columns lie at `offsets`."""
    flat = rearrange(scores, "b q f y x -> b q f (y x)").softmax(dim=-1)
    weights = rearrange(flat, "b q f (y x) -> b q f y x", y=len(offsets))
    return torch.stack([weights.sum(dim=-2) @ offsets, weights.sum(dim=-1) @ offsets], dim=-1)


def _near(position: Float[Tensor, "B Q"], n: int) -> Float[Tensor, "B Q {n}"]:
    """How much of each of `n` tokens along an axis there is at a position in [0, 1]."""
    from_first = (position * n - 0.5).clamp(0.0, n - 1.0)
    distance = from_first[..., None] - torch.arange(n, device=position.device)
    return (1.0 - distance.abs()).clamp(min=0.0)


def _logits(points: Float[Tensor, "B Q F 2"]) -> Float[Tensor, "B Q F 2"]:
    """Logits of points, moved into the frame; the gradient goes on as if they had not been."""
    inside = points + (points.clamp(_EDGE, 1.0 - _EDGE) - points).detach()
    return inside.logit()


def _centres(rows: int, columns: int) -> Float[Tensor, "N 2"]:
    """x, y in [0, 1] of the tokens' centres."""
    x = repeat((torch.arange(columns) + 0.5) / columns, "w -> (h w)", h=rows)
    y = repeat((torch.arange(rows) + 0.5) / rows, "h -> (h w)", w=columns)
    return torch.stack([x, y], dim=-1)


def _fine_grid(side: int) -> tuple[Float[Tensor, "P side"], Float[Tensor, "P"]]:
    """Interpolation of a patch's rows to its middle tokens at `FINENESS`, and where the new rows lie."""
    whole = temporal_matrix(side, side * FINENESS, "cubic")
    beside = (side - FINE_TOKENS) // 2 * FINENESS
    offsets = (torch.arange(side * FINENESS) + 0.5) / FINENESS - side / 2
    middle = slice(beside, side * FINENESS - beside)
    return whole[middle], offsets[middle]
