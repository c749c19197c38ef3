"""What a step of some heads holds is counted right, and as many go as one as there is room for."""

from dataclasses import fields, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache.manifest import load_manifest
from readouts.heads import Readout, build_head
from readouts.tasks import load_task
from readouts.tasks.base import Task
from readouts.tasks.from_file import FileTask
from readouts.tokens.prepared import (
    PreparedTokens,
    QuantizedTokens,
    ScatteredTokens,
    TokenPreparation,
)
from readouts.training.room import LiveBytes, bytes_held, heads_at_once, room_of

CPU = torch.device("cpu")


def tokens() -> PreparedTokens:
    return TokenPreparation(steps_in=2, steps_out=4, method="linear")(torch.randn(6, 2, 4, 8).half())


def tracking() -> tuple[Readout, Task, dict[str, Tensor]]:
    task = replace(load_task("stir", load_manifest()), n_frames=4)
    head = build_head(
        "tracking", channels=8, steps=4, n_outputs=4, n_frames=4, temporal_tiles=2, width=16, heads=2,
        dropout=0.5,
    )  # fmt: skip
    masks = {name: torch.ones(6, 4, 3, 1) for name in ("visible", "target_mask")}
    known = {"queries": torch.rand(6, 3, 2), "query_mask": torch.ones(6, 3, 1)}
    return head, task, {**masks, **known, "coords": torch.rand(6, 4, 3, 2)}


def held_by(n_heads: int, native: PreparedTokens | None = None) -> int:
    head, task, targets = tracking()
    return bytes_held(head, n_heads, task=task, tokens=native or tokens(), targets=targets)


def test_bytes_are_those_of_live_tensors() -> None:
    known = torch.empty(10, device="meta", requires_grad=True)
    with LiveBytes() as held:
        kept = known.view(2, 5).relu()
        assert held.live == held.peak == 40, "a view of what was there is nothing new"
        kept.tanh().sum()
        assert (held.live, held.peak) == (40, 84)
        del kept
    assert held.live == 0


def test_each_head_more_holds_about_as_much_again() -> None:
    held = [held_by(n) for n in (1, 2, 3, 8)]
    more = [after - before for before, after in pairwise(held)]
    assert min(more) > 0
    assert more[1] == pytest.approx(more[0], rel=0.2)
    assert more[2] == pytest.approx(5 * more[1], rel=0.1)
    # Keys and values of native and of resized steps: 6 clips x (2 + 4) steps x 4 tokens x 16 numbers.
    assert more[1] > 2 * 6 * (2 + 4) * 4 * 16 * 4


def test_it_is_the_same_each_time() -> None:
    assert held_by(2) == held_by(2)


def test_what_is_counted_stays_as_it_is() -> None:
    head, task, targets = tracking()
    generator = torch.Generator().manual_seed(1)
    head.draw_dropout_from(generator)
    before = {name: weight.data_ptr() for name, weight in head.named_parameters()}
    state = generator.get_state()
    bytes_held(head, 2, task=task, tokens=tokens(), targets=targets)
    assert {name: weight.data_ptr() for name, weight in head.named_parameters()} == before
    assert all(weight.grad is None and weight.device == CPU for weight in head.parameters())
    assert torch.equal(generator.get_state(), state)
    assert all(of.generator is generator for of in head.modules() if hasattr(of, "generator"))


def test_tokens_of_every_form_are_counted_with() -> None:
    values, scales = torch.zeros(6, 2, 4, 8, dtype=torch.int8), torch.ones(6, 2, 4)
    pieces = ScatteredTokens(pieces=list(torch.zeros(6, 2, 4, 8).half()), pieces_per_clip=1)
    prepare = TokenPreparation(steps_in=2, steps_out=4, method="linear")
    forms = [prepare(QuantizedTokens(values=values, scales=scales)), prepare(pieces)]
    assert [held_by(2, of) for of in forms] == [pytest.approx(held_by(2), rel=0.05)] * 2


@pytest.mark.parametrize(("largest", "expected"), [(0, 1), (1, 1), (2, 2), (5, 5), (9, 6)])
def test_as_many_go_as_one_as_there_is_room_for(
    largest: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of six, at least one."""
    head, task, targets = tracking()
    room = held_by(largest) if largest else 0
    monkeypatch.setattr("readouts.training.room.room_of", lambda device: room)
    assert heads_at_once(head, 6, task, tokens(), targets) == expected


def test_a_users_own_loss_is_not_asked_about_tensors_without_numbers() -> None:
    head, task, targets = tracking()

    def loss(outputs: Tensor, targets: Any) -> Tensor:
        raise AssertionError("it was asked")

    parts = {field.name: getattr(task, field.name, "") for field in fields(FileTask)}
    assert heads_at_once(head, 6, FileTask(**{**parts, "loss": loss}), tokens(), targets) == 1


def test_room_is_a_share_of_a_small_device_and_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(total: int) -> int:
        properties = SimpleNamespace(total_memory=total)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        return room_of(torch.device("cuda", 0))

    assert (of(16 * 10**9), of(141 * 10**9)) == (10**9, 2**32)
    assert room_of(CPU) == 2**32
