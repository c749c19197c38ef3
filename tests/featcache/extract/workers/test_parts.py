"""Parts cover a store once, and a scheduler's variables say which is whose."""

import pytest

from featcache.errors import CallError
from featcache.extract.workers.parts import Part, part_named


@pytest.mark.parametrize(("n_shards", "of"), [(96, 8), (10, 3), (3, 8), (1, 1), (7, 7), (1000, 13)])
def test_every_shard_is_in_one_part_and_parts_are_alike(n_shards: int, of: int) -> None:
    parts = [Part(number=number, of=of).shards(n_shards) for number in range(1, of + 1)]
    assert [shard for part in parts for shard in part] == list(range(n_shards))
    sizes = {len(part) for part in parts}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["0/8", "9/8", "1/0", "0/0"])
def test_a_part_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(CallError, match=f"--shards {text}: parts are counted from 1"):
        part_named(text, {})


@pytest.mark.parametrize("text", ["", "3", "a/b", "1/8/2", "-1/8", "1 /8", "1.0/8", "AUTO", "1/99999999999"])
def test_nonsense_is_refused_with_the_way_to_write_it(text: str) -> None:
    with pytest.raises(CallError, match="write part/parts, as 3/8"):
        part_named(text, {})


def array(task: int, first: int, last: int, count: int, step: int = 1) -> dict[str, str]:
    numbers = {"ID": task, "MIN": first, "MAX": last, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(number) for name, number in numbers.items()}


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        (array(0, 0, 7, 8), "1/8"),
        (array(7, 0, 7, 8), "8/8"),
        (array(3, 1, 4, 4), "3/4"),
        (array(10, 4, 16, 5, step=3), "3/5"),
        # Only one task of an array, begun again by itself: all that is left is its.
        (array(3, 3, 3, 1), "1/1"),
        ({"RANK": "2", "WORLD_SIZE": "4"}, "3/4"),
        # An array of torchruns.
        (array(1, 0, 2, 3) | {"RANK": "2", "WORLD_SIZE": "4"}, "7/12"),
    ],
)
def test_auto_is_what_the_scheduler_says(environment: dict[str, str], part: str) -> None:
    assert str(part_named("auto", environment)) == part


def test_auto_without_a_scheduler_is_refused() -> None:
    with pytest.raises(CallError, match="neither SLURM_ARRAY_TASK_ID"):
        part_named("auto", {"SLURM_JOB_ID": "12", "RANK": "0"})


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (array(5, 1, 7, 3), "leave open which task 5 is"),  # --array=1,5,7
        (array(4, 1, 7, 3, step=0), "leave open which"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, "SLURM_ARRAY_TASK_MIN= is no whole number"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK=x is no whole number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "parts are counted from 1"),
    ],
)
def test_what_a_scheduler_leaves_open_is_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(CallError, match=said):
        part_named("auto", environment)
