"""Every clip is visited once, by any number of threads, and what goes wrong in one is heard of."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from readouts.tokens.clipwise import Workspace

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3])
def n_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_every_clip_is_visited_once_in_a_tile_of_its_own(n_threads: int) -> None:
    found = torch.zeros(7, 2, 3)

    def work(clips: slice, tile: Tensor) -> None:
        assert tile.shape == (1, 2, 3)
        assert torch.get_num_threads() == (n_threads if n_threads == 1 else 1)
        tile.fill_(clips.start)
        found[clips] += tile

    Workspace().run(work, n_clips=7, clip=torch.Size((2, 3)), device=CPU)
    assert found[:, 0, 0].tolist() == list(range(7))
    assert torch.get_num_threads() == n_threads


def test_an_error_in_a_clip_is_raised(n_threads: int) -> None:
    def work(clips: slice, tile: Tensor) -> None:
        if clips.start == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Workspace().run(work, n_clips=4, clip=torch.Size((2,)), device=CPU)


def test_memory_lasts_from_pass_to_pass_and_from_evaluation_to_training(n_threads: int) -> None:
    workspace, seen = Workspace(), set()

    def work(clips: slice, tile: Tensor) -> None:
        assert not torch.is_grad_enabled()
        assert not tile.is_inference()
        seen.add(tile.data_ptr())

    for inferring in (True, False):
        with torch.inference_mode(inferring):
            for _ in range(3):
                workspace.run(work, n_clips=4, clip=torch.Size((8,)), device=CPU)
    assert len(seen) <= n_threads
    assert (
        workspace.buffer(torch.Size((4, 8)), CPU).data_ptr()
        == workspace.buffer(torch.Size((3, 8)), CPU).data_ptr()
    )
