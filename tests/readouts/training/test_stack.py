"""Equal heads as one are the heads one by one, whatever befalls them, and make hardly more calls than one."""

import gc
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any
from weakref import ref

import pytest
import torch
from torch import Tensor

from featcache.manifest import load_manifest
from readouts.heads import HEADS, build_head
from readouts.tasks import load_task
from readouts.tasks.base import Rows, Task
from readouts.tasks.from_file import FileTask
from readouts.training.room import bytes_held
from readouts.training.run import Run
from readouts.training.stack import Stack
from readouts.training.step import TrainState, build_preparation, take_step
from readouts.training.trainer import checkpoint_tensors, load_state, restore, save_state
from tests.benchmarks.launches import launches

CPU = torch.device("cpu")
READS = ("linear", "attention", "attention_multi", "pooled_mlp")
GO_THEMSELVES = ("tracking", "correlation", "dpt")


@pytest.fixture
def stacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, where it is not done for gain."""
    monkeypatch.setattr("readouts.training.stack.gains_by_stacks", lambda device: True)


def runs_of(run: Run, kinds: Sequence[str] = READS) -> list[Run]:
    """Four runs, of which seeds, rates, decays and clips differ, and the last one's width of attention."""
    sizes = {"width": 16, "heads": 2, "dropout": 0.2}
    settings: dict[str, dict[str, Any]] = {
        "linear": {},
        "attention": sizes,
        "attention_multi": sizes,
        "pooled_mlp": {"hidden": 8, "dropout": 0.1},
    }
    one = replace(run, readouts={kind: settings[kind] for kind in kinds})
    recipes = [
        replace(run.recipe, lr=0.01, warmup=0),
        replace(run.recipe, lr=0.03, warmup=0, weight_decay=0.3),
        replace(run.recipe, lr=0.02, warmup=0, clip_update=1e-2),
        replace(run.recipe, lr=0.01, warmup=0, clip_update=5e-3),
    ]
    runs = [replace(one, seed=seed, recipe=recipe) for seed, recipe in enumerate(recipes)]
    wider = {kind: {**of, "width": 32} if "width" in of else of for kind, of in one.readouts.items()}
    return [*runs[:3], replace(runs[3], readouts=wider)]


def batch(step: int) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(2, (6, 7), generator=generator)
    return torch.randn(6, 2, 4, 8, generator=generator).half(), {"labels": labels.float()}


def step_of(states: Sequence[TrainState], step: int) -> list[dict[str, Tensor]]:
    tokens, targets = batch(step)
    (kind, *_) = states[0].run.readouts
    if kind in GO_THEMSELVES:
        targets = own_targets(kind, step)
    return take_step(states, build_preparation(states[0].run)(tokens), targets)


def own_runs_of(run: Run, kind: str) -> list[Run]:
    """As `runs_of`, of equal heads that go through the tokens themselves, on a task of theirs."""
    task: Task
    if kind == "dpt":
        task = replace(load_task("weatherbench2", load_manifest()), rows=5, columns=6, n_frames=2)
        settings = {"n_frames": 2, "out_rows": 5, "out_columns": 6, "features": 8, "head_channels": 8}
    else:
        task = replace(load_task("stir", load_manifest()), n_frames=4)
        settings = {"n_frames": 4} | ({"dim": 8, "radius": 1, "hidden": 8} if kind == "correlation" else {})
        if kind == "tracking":
            settings |= {"temporal_tiles": 2, "width": 16, "heads": 2, "dropout": 0.2}
    return [replace(of, task=task, readouts={kind: settings}) for of in runs_of(run)]


def own_targets(kind: str, step: int) -> dict[str, Tensor]:
    draw = partial(torch.rand, generator=torch.Generator().manual_seed(100 + step))
    if kind == "dpt":
        return {"last": draw(6, 5, 6, 3), "future": draw(6, 2, 5, 6, 3)}
    masks = {name: (draw(6, 4, 3, 1) > 0.2).float() for name in ("visible", "target_mask")}
    known = {"queries": draw(6, 3, 2), "query_mask": torch.ones(6, 3, 1), "coords": draw(6, 4, 3, 2)}
    return masks | known


def weights_of(states: Sequence[TrainState]) -> list[dict[str, Tensor]]:
    return [{n: p.detach().clone() for n, p in state.heads.named_parameters()} for state in states]


def assert_alike(found: list[dict[str, Tensor]], expected: list[dict[str, Tensor]]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours) == list(theirs)
        for name, value in ours.items():
            # Softmax ignores a key's bias, and a point's way what is added in all frames: their gradients are
            # rounding, of which Adam makes steps like any. Of small gradients it makes steps whose rounding
            # is large: the bound is 1/500 of the way they went.
            if not name.endswith(("key.bias", "refine.2.bias")):
                torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=2e-4, msg=name)


def test_stacked_runs_are_the_runs_alone(run: Run, stacked: None) -> None:
    """Each with its own rate, decay, clip and dropout."""
    together, alone = ([TrainState(of, CPU) for of in runs_of(run)] for _ in range(2))
    for step in range(4):
        losses = step_of(together, step)
        assert_alike(losses, [step_of([state], step)[0] for state in alone])
    assert together[0].company is not None
    stacks = [len(names) for names, head in together[0].company.heads.items() if isinstance(head, Stack)]
    assert sorted(stacks) == [3, 3, 4, 4], "three attention heads of one width, four of the others"
    assert_alike(weights_of(together), weights_of(alone))


def sizes_of(states: Sequence[TrainState]) -> list[int]:
    """How many heads each unit of the last step had."""
    assert states[0].company is not None
    return [len(names) for names in states[0].company.heads]


@pytest.mark.parametrize("room", ["ample", "for three", "none"])
@pytest.mark.parametrize("kind", GO_THEMSELVES)
def test_those_that_go_through_the_tokens_are_stacked_where_there_is_room(
    run: Run, stacked: None, kind: str, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with the numbers it has alone; of four, three that fit are two and two."""
    together, alone = ([TrainState(of, CPU) for of in own_runs_of(run, kind)] for _ in range(2))
    native, _ = batch(0)
    head, tokens = alone[0].readouts[kind], build_preparation(run)(native)
    three = bytes_held(head, 3, task=alone[0].run.task, tokens=tokens, targets=own_targets(kind, 0))
    bytes_ = {"ample": 2**30, "for three": three, "none": 0}[room]
    monkeypatch.setattr("readouts.training.room.room_of", lambda device: bytes_)
    for step in range(4):
        losses = step_of(together, step)
        assert_alike(losses, [step_of([state], step)[0] for state in alone])
    assert sizes_of(together) == {"ample": [4], "for three": [2, 2], "none": [1] * 4}[room]
    assert_alike(weights_of(together), weights_of(alone))


@pytest.mark.parametrize("kind", ["attention", *GO_THEMSELVES])
def test_stacked_runs_go_on_bit_for_bit(run: Run, stacked: None, kind: str) -> None:
    runs = runs_of(run, [kind])[:3] if kind == "attention" else own_runs_of(run, kind)
    through = [TrainState(of, CPU) for of in runs]
    for step in range(4):
        step_of(through, step)
        if step == 1:
            kept = [checkpoint_tensors(of.heads, of.optimizer) for of in through]
            kept = [{name: value.clone() for name, value in of.items()} for of in kept]
    resumed = [TrainState(of, CPU) for of in runs]
    for state, tensors in zip(resumed, kept, strict=True):
        restore(state.heads, state.optimizer, tensors, 2)
        state.step = 2
    for step in (2, 3):
        step_of(resumed, step)
    assert sizes_of(resumed) == sizes_of(through) == [len(runs)]
    for ours, theirs in zip(weights_of(resumed), weights_of(through), strict=True):
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_each_head_of_a_stack_drops_what_its_own_generator_says() -> None:
    heads = [
        build_head("pooled_mlp", channels=8, steps=4, n_outputs=3, dropout=0.5, generator=seeded(9))
        for _ in range(3)
    ]
    found, stack = torch.randn(2, 16, generator=seeded(1)), Stack(heads)

    def draw() -> None:
        for seed, head in enumerate(heads):
            head.draw_dropout_from(seeded(seed))

    draw()
    together = stack.read(found)
    draw()
    alone = torch.stack([head.read(found) for head in heads])
    torch.testing.assert_close(together, alone)
    assert not torch.equal(alone[0], alone[1]), "though their weights are equal"


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_loss_from_a_file_may_look_at_its_numbers(run: Run, stacked: None) -> None:
    """Which no stack of heads has."""

    def loss(outputs: Tensor, targets: Rows) -> Tensor:
        return outputs.square().mean() * (2.0 if outputs.detach().sum().item() > 0 else 1.0)

    parts = {field.name: getattr(run.task, field.name, "") for field in fields(FileTask)}
    task = FileTask(**{**parts, "loss": loss})
    together, alone = ([TrainState(replace(of, task=task), CPU) for of in runs_of(run)] for _ in range(2))
    for step in range(2):
        step_of(together, step)
        for state in alone:
            step_of([state], step)
    assert_alike(weights_of(together), weights_of(alone))


def test_runs_that_have_ended_are_gone_at_once(run: Run, stacked: None) -> None:
    """With their weights in a GPU's memory."""
    states = [TrainState(of, CPU) for of in runs_of(run)]
    step_of(states, 0)
    gone = [ref(state) for state in states]
    gc.disable()
    try:
        states.clear()
        assert [of() for of in gone] == [None] * 4
    finally:
        gc.enable()


def test_runs_may_join_late_and_leave(run: Run, stacked: None) -> None:
    together, alone = ([TrainState(of, CPU) for of in runs_of(run)] for _ in range(2))
    companies = ((0, 1), (0, 1, 2, 3), (1, 2, 3), (1,), (0, 1, 2))
    for step, present in enumerate(companies):
        step_of([together[i] for i in present], step)
        for i in present:
            step_of([alone[i]], step)
    assert_alike(weights_of(together), weights_of(alone))
    assert [state.step for state in together] == [3, 5, 3, 2]


def test_a_run_that_is_no_number_leaves_the_others_as_they_are(run: Run, stacked: None) -> None:
    together, alone = ([TrainState(of, CPU) for of in runs_of(run)] for _ in range(2))
    for states in (together, alone):
        with torch.no_grad():
            for weight in states[0].heads.parameters():
                weight.fill_(torch.nan)
    for step in range(2):
        losses = step_of(together, step)
        for state in alone[1:]:
            step_of([state], step)
    assert all(loss.isnan() for loss in losses[0].values())
    assert_alike(weights_of(together[1:]), weights_of(alone[1:]))


def test_a_checkpoint_of_a_stacked_run_holds_its_own_weights_alone(
    run: Run, stacked: None, tmp_path: Any
) -> None:
    states = [TrainState(of, CPU) for of in runs_of(run)]
    step_of(states, 0)
    tensors = checkpoint_tensors(states[1].heads, states[1].optimizer)
    save_state(tmp_path / "s.safetensors", tensors)
    loaded, _ = load_state(tmp_path / "s.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())
    n_bytes = sum(4 * value.numel() for value in tensors.values())
    assert (tmp_path / "s.safetensors").stat().st_size < n_bytes + 20_000


def test_a_cpu_stacks_nothing(run: Run) -> None:
    states = [TrainState(of, CPU) for of in runs_of(run)]
    step_of(states, 0)
    assert states[0].company is not None
    assert not any(isinstance(head, Stack) for head in states[0].company.heads.values())


@pytest.mark.parametrize("kind", HEADS)
def test_sixteen_make_at_most_three_times_the_calls_of_one(kind: str) -> None:
    one, sixteen = (launches(kind, n, small=True) for n in (1, 16))
    assert 20 < one <= sixteen <= 3 * one
