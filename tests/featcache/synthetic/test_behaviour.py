"""Twins: the same frames in another order, so that only order tells; blocks: every recipe once."""

from collections import Counter

import numpy as np
import pytest

from featcache.manifest import load_manifest
from featcache.synthetic.behaviour import N_FRAMES, BehaviourClips, frame_order
from featcache.synthetic.flies import FLIES
from featcache.synthetic.mice import MICE

sets = pytest.mark.parametrize("clips", [FLIES, MICE], ids=["flies", "mice"])


def positions(clips: BehaviourClips, split: str, block: int) -> dict[int, int]:
    """Recipe number -> index of the item that shows it."""
    n = len(clips.recipes)
    items = range(block * n, (block + 1) * n)
    return {clips.recipes.index(clips.recipe(split, index, seed=0)): index for index in items}


def order_twins(clips: BehaviourClips) -> list[tuple[int, int]]:
    """Pairs of recipe numbers: the same drawing forward, and in another order."""
    return [
        (i, j)
        for i, a in enumerate(clips.recipes)
        for j, b in enumerate(clips.recipes)
        if a.scene == b.scene and a.order == "forward" != b.order
    ]


@sets
def test_a_block_holds_every_recipe_once_in_another_order(clips: BehaviourClips) -> None:
    first, second = positions(clips, "train", 0), positions(clips, "train", 1)
    assert set(first) == set(second) == set(range(len(clips.recipes)))
    assert list(first) != list(second)


@sets
def test_recipes_name_classes_and_stay_near_balance(clips: BehaviourClips) -> None:
    dataset = load_manifest().dataset(clips.name)
    counts = Counter(label for recipe in clips.recipes for label in recipe.labels)
    assert set(counts) == set(dataset.classes)
    foreground = [count for label, count in counts.items() if label != dataset.background]
    assert max(foreground) <= 2 * min(foreground)
    assert counts[dataset.background or ""] < len(clips.recipes) / 2


@sets
def test_twins_share_their_frames_and_differ_in_order_and_label(clips: BehaviourClips) -> None:
    where = positions(clips, "test", 0)
    twins = order_twins(clips)
    assert len(twins) == 4
    for forward, other in twins:
        assert clips.recipes[forward].labels != clips.recipes[other].labels
        a, b = (clips.frames("test", where[recipe], seed=0) for recipe in (forward, other))
        assert not np.array_equal(a, b)
        assert Counter(frame.tobytes() for frame in a) == Counter(frame.tobytes() for frame in b)


@sets
def test_no_single_frame_decides_a_class_defined_by_motion(clips: BehaviourClips) -> None:
    """Any function of one frame, or of the frames as a set, scores each pair alike: at best chance."""
    moving = {"lunging", "circling"} if clips is FLIES else {"mounting", "sniffing"}
    for label in moving:
        forward = [i for i, r in enumerate(clips.recipes) if label in r.labels]
        matched = {i for i, _ in order_twins(clips)}
        assert set(forward) <= matched
        assert all(label not in clips.recipes[j].labels for i, j in order_twins(clips) if i in forward)


@sets
def test_an_item_does_not_depend_on_the_size_of_its_split(clips: BehaviourClips) -> None:
    dataset = load_manifest().dataset(clips.name)
    again = [clips.record("val", 3, seed=5, dataset=dataset) for _ in range(2)]
    assert again[0] == again[1]
    assert again[0] != clips.record("test", 3, seed=5, dataset=dataset)
    assert again[0] != clips.record("val", 3, seed=6, dataset=dataset)


def test_orders_by_hand() -> None:
    rng = np.random.default_rng(0)
    assert frame_order("forward", rng).tolist() == list(range(N_FRAMES))
    assert frame_order("backward", rng).tolist() == list(range(N_FRAMES))[::-1]
    shuffled = frame_order("shuffled", rng).tolist()
    assert sorted(shuffled) == list(range(N_FRAMES)) != shuffled
