"""Labelled clips of two animals in which the order of the frames, not their look alone, decides the class.

Items come in blocks: one item for each of a data set's recipes, in a random order, so that classes stay
balanced at any size. Recipes that name the same scene draw from the same random numbers in a block. A
behaviour and its *twin* are such a pair: the same frames in another order, or the same motion with another
appearance. A model that sees one frame, or frames without their order, cannot tell the first kind apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simplejpeg
from einops import repeat
from jaxtyping import Int, UInt8

from featcache.manifest import Dataset
from featcache.synthetic.base import Sizes, stream
from featcache.synthetic.drawing import Angles, Point, Points
from featcache.synthetic.records import encode_sequence_example
from featcache.synthetic.videos import VideoSet

N_FRAMES = 16

Order = Literal["forward", "backward", "shuffled"]

Scene = Callable[[np.random.Generator], UInt8[np.ndarray, "F Y X"]]
"""Draws the grey frames of one clip, in their natural order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How one item of a block is made."""

    scene: str
    """Recipes that share it draw from the same random numbers."""
    draw: Scene
    labels: tuple[str, ...]
    """Names of classes in the manifest."""
    order: Order = "forward"


@dataclass(frozen=True, kw_only=True, slots=True)
class BehaviourClips:
    """What the clips of a set show, as records like those of Fly-vs-Fly and CalMS21."""

    name: str
    """The data set's in the manifest: it enters every random stream."""
    recipes: tuple[Recipe, ...]
    quality: int
    """JPEG quality of the frames, 1 to 100."""

    def recipe(self, split: str, index: int, *, seed: int) -> Recipe:
        """What item `index` of `split` shows."""
        block, position = divmod(index, len(self.recipes))
        order = stream(seed, self.name, split, block, "places").permutation(len(self.recipes))
        return self.recipes[int(order[position])]

    def frames(self, split: str, index: int, *, seed: int) -> UInt8[np.ndarray, "F Y X"]:
        """The grey frames of one item."""
        recipe = self.recipe(split, index, seed=seed)
        block = index // len(self.recipes)
        natural = recipe.draw(stream(seed, self.name, split, block, recipe.scene))
        order = frame_order(recipe.order, stream(seed, self.name, split, index, "order"))
        return np.take(natural, order, axis=0)

    def record(self, split: str, index: int, *, seed: int, dataset: Dataset) -> bytes:
        """One serialised SequenceExample: JPEG frames and class ids, under the manifest's keys."""
        labels = [dataset.classes.index(label) for label in self.recipe(split, index, seed=seed).labels]
        frames = self.frames(split, index, seed=seed)
        return encode_sequence_example(
            context={dataset.features["labels"]: np.array(labels, dtype=np.int64)},
            sequences={
                dataset.features["image"]: [(_jpeg(f, dataset.channels, self.quality),) for f in frames]
            },
        )

    def shards(self, **profiles: Sizes) -> VideoSet:
        """The record files of such a set, by the sizes of its splits in each profile."""
        return VideoSet(
            name=self.name,
            version=1,
            make=self.record,
            profiles=profiles,
            n_shards={"train": 4, "val": 3, "test": 2},
            empty_shard={"val": 1},
        )


def wander(
    rng: np.random.Generator, start: Point, *, sway: float, pace: tuple[float, float]
) -> tuple[Points, Angles]:
    """Where an animal is that walks past `start` halfway, at a pace in pixels a frame, and its heading."""
    heading = rng.uniform(-np.pi, np.pi) + np.cumsum(rng.normal(0.0, sway, N_FRAMES))
    path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    return start + rng.uniform(*pace) * (path - path[N_FRAMES // 2]), heading


def frame_order(order: Order, rng: np.random.Generator) -> Int[np.ndarray, "F"]:
    """The natural frame numbers in the order in which a clip shows them."""
    forward = np.arange(N_FRAMES)
    return {"forward": forward, "backward": forward[::-1], "shuffled": rng.permutation(N_FRAMES)}[order]


def _jpeg(frame: UInt8[np.ndarray, "Y X"], channels: int, quality: int) -> bytes:
    if channels == 1:
        pixels, colours = repeat(frame, "y x -> y x 1"), {"colorspace": "GRAY", "colorsubsampling": "Gray"}
    else:
        pixels, colours = repeat(frame, "y x -> y x 3"), {"colorspace": "RGB", "colorsubsampling": "420"}
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality, **colours))
