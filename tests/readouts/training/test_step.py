"""A run at one step: what its seed decides, and what a step does."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from featcache.manifest import load_manifest
from readouts.features.batches import Batch
from readouts.heads import (
    HEADS,
    AttentionReadout,
    LinearReadout,
    Readout,
    TrackingReadout,
    build_head,
    settings_of,
)
from readouts.heads.layers import Dropout
from readouts.tasks import load_task
from readouts.tasks.base import Recipe, Task
from readouts.tasks.forecast import Forecast
from readouts.tasks.tracking import Tracking
from readouts.tokens.implicit import TemporalResize
from readouts.tokens.prepared import Native, PreparedTokens, QuantizedTokens, TokenPreparation
from readouts.training.arithmetic import training_arithmetic
from readouts.training.optim import ReferenceAdamW, WarmupCosine, step_together
from readouts.training.run import Run
from readouts.training.stack import Stack, in_stacks, losses_of
from readouts.training.step import (
    TrainState,
    backward,
    build_heads,
    build_preparation,
    schedule_of,
    take_step,
)

CPU = torch.device("cpu")


@pytest.fixture
def batch() -> Batch:
    tokens = torch.randn(4, 2, 4, 8, generator=torch.Generator().manual_seed(0)).half()
    return Batch(clips=np.arange(4), tokens=tokens, targets={"labels": torch.ones(4, 7)})


def test_initial_weights_follow_from_the_seed_and_not_from_other_heads(run: Run) -> None:
    alone = replace(run, readouts={"attention": run.readouts["attention"]})
    ours, theirs = build_heads(run)["attention"].state_dict(), build_heads(alone)["attention"].state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    other = build_heads(replace(run, seed=4))["attention"].state_dict()
    assert not torch.equal(ours["query"], other["query"])


def losses_at(step: int, run: Run, batch: Batch) -> dict[str, Tensor]:
    state = TrainState(run, CPU)
    state.step = step
    (losses,) = take_step([state], build_preparation(run)(batch.tokens), batch.targets)
    return losses


def test_dropout_is_that_of_seed_and_step(run: Run, batch: Batch) -> None:
    first, again, later = (losses_at(step, run, batch) for step in (0, 0, 1))
    assert torch.equal(first["attention"], again["attention"])
    assert not torch.equal(first["attention"], later["attention"])
    assert torch.equal(first["linear"], later["linear"]), "which drops nothing"


def test_other_seeds_drop_other_numbers(run: Run, batch: Batch) -> None:
    """Of equal weights: torch's generator of a CPU sees the low 32 bits of its seed alone."""
    first, other = TrainState(run, CPU), TrainState(replace(run, seed=run.seed + 1), CPU)
    other.heads.load_state_dict(first.heads.state_dict())
    losses = [
        take_step([state], build_preparation(run)(batch.tokens), batch.targets)[0] for state in (first, other)
    ]
    assert not torch.equal(losses[0]["attention"], losses[1]["attention"])


def test_a_step_changes_all_that_is_learned_and_nothing_of_the_process(run: Run, batch: Batch) -> None:
    state, drawn = TrainState(run, CPU), torch.random.get_rng_state()
    before = {name: value.clone() for name, value in state.heads.state_dict().items()}
    for _ in range(2):  # the first at a rate of 0
        take_step([state], build_preparation(run)(batch.tokens), batch.targets)
    assert state.step == 2
    # A key's bias shifts all scores of a query alike: it has no part in the gradient but rounding.
    learns = {name: value for name, value in state.heads.named_parameters() if "key.bias" not in name}
    assert all(not torch.equal(before[name], value) for name, value in learns.items())
    assert torch.equal(torch.random.get_rng_state(), drawn)


TASKS = ("flyvsfly", "calms21", "stir", "typhoon", "weatherbench2")
Draw = Callable[..., Tensor]
"""Makes values of a shape."""


def task_with_targets(name: str, draw: Draw) -> tuple[Task, dict[str, Tensor], dict[str, Any]]:
    """A task on small frames, targets of six clips, and settings of small heads."""
    task = load_task(name, load_manifest())
    sizes: dict[str, Any] = {"width": 16, "heads": 2, "dropout": 0.1}
    if isinstance(task, Tracking):
        masks = {name: draw(6, 4, 3, 1) > 0 for name in ("visible", "target_mask")}
        targets = {"queries": draw(6, 3, 2), "query_mask": draw(6, 3, 1) > 0, "coords": draw(6, 4, 3, 2)}
        return replace(task, n_frames=4), targets | masks, {**sizes, "n_frames": 4, "temporal_tiles": 2}
    if isinstance(task, Forecast):
        targets = {"last": draw(6, 9, 18, 3), "future": draw(6, 2, 9, 18, 3)}
        sizes = {"n_frames": 2, "out_rows": 9, "out_columns": 18, "features": 8, "head_channels": 8}
        return replace(task, rows=9, columns=18, n_frames=2), targets, sizes
    values = draw(6, task.n_outputs)
    return task, {"labels": (values > 0).to(torch.uint8), "future": values}, sizes


def steps_of_all_heads(
    device: torch.device, draw: Draw, tokens: Sequence[Native], clip: float | None = 1.0
) -> Iterator[tuple[str, str, list[Tensor]]]:
    """Task, kind and what was learned in a step on each of `tokens`, of two equal heads of every kind."""
    prepare = TokenPreparation(steps_in=2, steps_out=4, method="linear")
    resize = TemporalResize.by(prepare.matrix)
    prepare = prepare.to(device)
    prepare._resize = TemporalResize(matrix=prepare.matrix, lags=tuple(lag.to(device) for lag in resize.lags))
    for name in TASKS:
        task, targets, settings = task_with_targets(name, draw)
        for kind in [kind for kind, of in HEADS.items() if of.gives == task.takes]:
            own = {setting: value for setting, value in settings.items() if setting in settings_of(kind)}
            shape = {"channels": 8, "steps": 4, "n_outputs": task.n_outputs, "rows": 2, "columns": 4}
            heads = {
                i: build_head(kind, **shape, generator=seeded(i), **own).to(device)  # type: ignore[arg-type]
                for i in range(2)
            }
            optimizers = [
                ReferenceAdamW(head.parameters(), schedule=lambda update: 1e-3, clip_update=clip)
                for head in heads.values()
            ]
            units = in_stacks(heads, {0: "", 1: ""}, device)
            for native in tokens:
                if device.type != "meta":
                    for i, head in heads.items():
                        head.draw_dropout_from(torch.Generator(device).manual_seed(i))
                for watched in (False, True):
                    with watching() if watched and device.type == "meta" else nullcontext():
                        backward(
                            units,
                            prepare(native),
                            task.inputs(targets),
                            partial(losses_of, lambda outputs, of=task, to=targets: of.loss(outputs, to)),
                        )
                        for unit in units.values():
                            if isinstance(unit, Stack):
                                unit.hand_out_gradients()
                        step_together(optimizers)
                        for optimizer in optimizers:
                            optimizer.zero_grad()
            yield name, kind, [p.detach().clone() for head in heads.values() for p in head.parameters()]


def quantized(device: torch.device, draw: Draw) -> QuantizedTokens:
    values = (20 * draw(6, 2, 8, 8)).round().to(torch.int8)
    return QuantizedTokens(values=values, scales=draw(6, 2, 8).abs())


def every_step_on_meta(clip: float | None = 1.0) -> set[tuple[str, str]]:
    """Task and kind of all that took their steps where there are no numbers."""
    meta = torch.device("meta")
    draw = partial(torch.zeros, device=meta)
    tokens = [draw(6, 2, 8, 8).half(), quantized(meta, draw)]
    steps = list(steps_of_all_heads(meta, draw, tokens, clip))
    assert all(weight.is_meta for _, _, weights in steps for weight in weights)
    return {(name, kind) for name, kind, _ in steps}


N_STEPS = 3 * 4 + 2 + 1
"""Three tasks of vectors and four heads of them, two heads of tracks, one of fields."""


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_has_the_same_bits_each_time(device: torch.device, precision: str) -> None:
    def learned() -> list[tuple[str, str, list[Tensor]]]:
        generator = seeded(3)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device)

        tokens = [draw(6, 2, 8, 8).half(), quantized(device, draw)]
        return list(steps_of_all_heads(device, draw, tokens))

    with training_arithmetic(precision):
        first, second = learned(), learned()
    assert len(first) == N_STEPS
    for (task, kind, ours), (_, _, again) in zip(first, second, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(ours, again, strict=True)), (task, kind)


ADDS_BY_ATOMICS = """
    upsample_linear1d_backward upsample_bilinear2d_backward upsample_bicubic2d_backward
    upsample_trilinear3d_backward _upsample_bilinear2d_aa_backward _upsample_bicubic2d_aa_backward
    grid_sampler_2d_backward grid_sampler_3d_backward scatter_add scatter_add_ scatter_reduce
    scatter_reduce_ index_add index_add_ index_put index_put_ _index_put_impl_ put_ index_reduce
    embedding_dense_backward _embedding_bag_backward _embedding_bag_dense_backward avg_pool3d_backward
    _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward max_pool2d_with_indices_backward
    max_pool3d_with_indices_backward adaptive_max_pool2d_backward adaptive_max_pool3d_backward
    fractional_max_pool2d_backward fractional_max_pool3d_backward max_unpool2d max_unpool3d
    reflection_pad1d_backward reflection_pad2d_backward reflection_pad3d_backward
    replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward nll_loss2d_forward
    nll_loss2d_backward _ctc_loss_backward histc bincount kthvalue median cumsum
    _scaled_dot_product_efficient_attention_backward _scaled_dot_product_flash_attention_backward
    _scaled_dot_product_flash_attention_for_cpu_backward _scaled_dot_product_cudnn_attention_backward
    _efficient_attention_backward _flash_attention_backward _cdist_backward _safe_softmax
"""
"""Kernels that torch's `use_deterministic_algorithms` replaces, refuses or warns of on CUDA; convolutions
have a fixed order where cuDNN is told so, as it is in training. The last one is what the meta device makes of
torch's fused attention."""


class Recorded(TorchDispatchMode):
    """The names of all kernels that were called on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if any(isinstance(x, Tensor) and x.is_meta for x in tree_leaves((args, found))):
            self.names.add(func._schema.name.removeprefix("aten::"))
        return found


@pytest.mark.parametrize("everywhere", [False, True])
def test_rounded_products_change_a_step_by_their_rounding(
    everywhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a CPU rounds, and on it as other devices do."""
    if everywhere:
        monkeypatch.setattr("readouts.tokens.products._rounds_inside", lambda device: False)
    heads, rounded = draw_heads(), draw_heads()
    queries = {"queries": torch.rand(B, 3, 2, generator=seeded(1))}
    for of in (heads, rounded):
        of["tracking"] = TrackingReadout(
            channels=C, steps=2 * T, n_frames=4, temporal_tiles=2, width=16, heads=2, generator=seeded(2)
        )
    exact = backward(heads, tokens(), queries, loss_of)
    with training_arithmetic("bfloat16"):
        losses = backward(rounded, tokens(), queries, loss_of)
    for name, head in rounded.items():
        torch.testing.assert_close(losses[name], exact[name], rtol=1e-2, atol=0, msg=name)
        expected = gradients(heads[name])
        for path, grad in gradients(head).items():
            if "key.bias" not in path:  # whose gradient is rounding
                assert (grad - expected[path]).norm() < 0.05 * expected[path].norm() + 1e-6, (name, path)
    if everywhere:
        assert all(losses[name] != exact[name] for name in heads)


def test_no_kernel_of_a_step_adds_in_an_order_of_its_own() -> None:
    with Recorded() as recorded:
        assert len(every_step_on_meta()) == N_STEPS
    assert {"convolution_backward", "_softmax_backward_data", "_fused_adamw_"} <= recorded.names
    assert recorded.names & {*ADDS_BY_ATOMICS.split()} == set()


@pytest.mark.parametrize(
    "function",
    [
        lambda maps: F.interpolate(maps, scale_factor=2, mode="bilinear"),
        lambda maps: F.interpolate(maps, size=(2, 2), mode="bilinear", antialias=True),
        lambda maps: F.grid_sample(maps, maps.new_zeros(2, 1, 1, 2), align_corners=False),
        lambda maps: maps.gather(-1, torch.zeros(2, 3, 4, 1, dtype=torch.int64, device="meta")),
        lambda maps: maps[:, torch.zeros(2, dtype=torch.int64, device="meta")],
        lambda maps: F.scaled_dot_product_attention(maps, maps, maps),
    ],
)
def test_the_record_would_show_those_that_do(function: Callable[[Tensor], Tensor]) -> None:
    with Recorded() as recorded:
        function(torch.zeros(2, 3, 4, 4, device="meta", requires_grad=True)).sum().backward()
    assert recorded.names & {*ADDS_BY_ATOMICS.split()}


class Watch(TorchDispatchMode):
    """Refuses what makes a host wait for its device: numbers that are looked at or sent there one by one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        devices = {x.device for x in tree_leaves((args, found)) if isinstance(x, Tensor)}
        assert "_local_scalar_dense" not in str(func)
        assert len(devices) < 2 or "copy" not in str(func), f"{func} from device to device"
        return found


@contextmanager
def watching() -> Iterator[None]:
    """Also of `new_tensor`, which copies from the host unseen by a dispatch mode."""

    def refuse(*args: Any, **kwargs: Any) -> Tensor:
        raise AssertionError("new_tensor waits for what is queued")

    with patch.object(Tensor, "new_tensor", refuse), Watch():
        yield


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_neither_waits_for_its_device_nor_mixes_two(precision: str, clip: float | None) -> None:
    """On `meta`, which has no numbers and, as a GPU, is another device than the one of a forgotten tensor."""
    with training_arithmetic(precision):
        assert len(every_step_on_meta(clip)) == N_STEPS


def test_the_optimiser_is_given_what_the_recipe_says(run: Run) -> None:
    recipe = replace(run.recipe, lr=0.25, steps=50, warmup=7, weight_decay=0.3, clip_update=0.7)
    optimizer = TrainState(replace(run, recipe=recipe), CPU).optimizer
    assert optimizer.schedule == WarmupCosine(peak=0.25, steps=50, warmup=7, end=1e-7)
    assert optimizer.clip_update == 0.7
    (group,) = optimizer.param_groups
    assert {name: group[name] for name in ("weight_decay", "betas", "eps", "multiplier", "n_updates")} == {
        "weight_decay": 0.3,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "multiplier": 1.0,
        "n_updates": 0,
    }


@pytest.mark.parametrize(
    "changed", [{"weight_decay": 0.3}, {"clip_update": 1e-4}, {"lr": 0.2}, {"warmup": 2}]
)
def test_each_setting_of_the_recipe_changes_what_is_learned(
    run: Run, batch: Batch, changed: dict[str, float]
) -> None:
    def learned(of: Run) -> dict[str, Tensor]:
        state = TrainState(of, CPU)
        for _ in range(3):
            take_step([state], build_preparation(of)(batch.tokens), batch.targets)
        return {name: weight.detach() for name, weight in state.heads.named_parameters()}

    ours, other = learned(run), learned(replace(run, recipe=replace(run.recipe, **changed)))
    assert all(not torch.equal(ours[name], other[name]) for name in ours if name.endswith("weight"))


def test_a_long_run_has_the_benchmarks_warm_up_and_a_slower_fall() -> None:
    usual, long = (schedule_of(Recipe(steps=steps)) for steps in (40_000, 400_000))
    assert [long(step) for step in (0, 500, 1000)] == [usual(step) for step in (0, 500, 1000)]
    assert long(399_999) == pytest.approx(1e-7, rel=1e-2)
    # Half of the way down at half of what follows the warm-up.
    assert long(1000 + 398_999 // 2) == pytest.approx(usual(1000 + 38_999 // 2), rel=1e-3)


def test_a_short_run_has_a_short_warm_up(run: Run) -> None:
    assert schedule_of(replace(run.recipe, steps=10)).warmup == 9


B, T, N, C = 5, 2, 30, 24


THREADS = pytest.mark.parametrize("threads", [1, 2, 5], indirect=True)


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_heads() -> dict[str, Readout]:
    sizes = {"wide": (64, 16, 0.5), "narrow": (4, 1, 0.0), "middling": (24, 3, 0.1), "many": (32, 2, 0.0)}
    heads: dict[str, Readout] = {
        name: AttentionReadout(
            channels=C, steps=2 * T, n_outputs=3, width=width, heads=heads, dropout=dropout,
            n_queries=3 if name == "many" else 1, generator=seeded(width),
        )
        for name, (width, heads, dropout) in sizes.items()
    }  # fmt: skip
    for name, head in heads.items():
        head.draw_dropout_from(seeded(len(name)))
    return heads | {"linear": LinearReadout(channels=C, n_outputs=3, generator=seeded(9))}


def tokens() -> PreparedTokens:
    native = torch.randn(B, T, N, C, generator=seeded(0)).half()
    return TokenPreparation(steps_in=T, steps_out=2 * T, method="linear")(native)


def loss_of(name: str, outputs: Tensor) -> Tensor:
    return (outputs - len(name)).square().mean()


def gradients(head: Readout) -> dict[str, Tensor]:
    found = {name: parameter.grad for name, parameter in head.named_parameters()}
    assert all(grad is not None for grad in found.values())
    return {name: grad for name, grad in found.items() if grad is not None}


def check_gradients(head: Readout, expected: Readout) -> None:
    """Equal up to a few roundings of a head's largest gradient: processors sum in orders of their own."""
    exact = gradients(expected)
    largest = max(grad.abs().max().item() for grad in exact.values())
    for name, grad in gradients(head).items():
        torch.testing.assert_close(grad, exact[name], rtol=0, atol=5e-6 * largest, msg=name)


@THREADS
def test_other_heads_change_no_more_than_rounding(threads: int) -> None:
    together, apart = draw_heads(), draw_heads()
    losses = backward(together, tokens(), {}, loss_of)
    for name, head in apart.items():
        (alone,) = backward({name: head}, tokens(), {}, loss_of).values()
        torch.testing.assert_close(alone, losses[name], rtol=1e-6, atol=0)
        check_gradients(together[name], head)


@THREADS
def test_a_head_alone_has_the_same_bits_from_any_number_of_threads(threads: int) -> None:
    here, on_one = draw_heads()["wide"], draw_heads()["wide"]
    losses = backward({"wide": here}, tokens(), {}, loss_of)
    torch.set_num_threads(1)
    assert torch.equal(losses["wide"], backward({"wide": on_one}, tokens(), {}, loss_of)["wide"])
    wanted = gradients(on_one)
    assert all(torch.equal(found, wanted[name]) for name, found in gradients(here).items())


@THREADS
def test_gradients_are_those_of_a_plain_backward_pass(threads: int) -> None:
    found, plain = draw_heads(), draw_heads()
    losses = backward(found, tokens(), {}, loss_of)
    for name, head in plain.items():
        loss = loss_of(name, head(tokens()))
        loss.backward()
        torch.testing.assert_close(losses[name], loss.detach(), rtol=1e-6, atol=0)
        check_gradients(found[name], head)


def test_losses_are_in_the_order_of_the_heads() -> None:
    heads = draw_heads()
    mixed = {"linear": heads["linear"], **heads}
    assert list(backward(mixed, tokens(), {}, loss_of)) == list(mixed)


def test_tokens_that_learn_have_gradients_from_all_heads() -> None:
    heads = {name: head.eval() for name, head in draw_heads().items()}
    first, second = (torch.randn(B, 2 * T, N, C, generator=seeded(0)).requires_grad_() for _ in range(2))
    backward(heads, PreparedTokens(first), {}, loss_of)
    torch.stack([loss_of(name, head(second)) for name, head in heads.items()]).sum().backward()
    assert first.grad is not None and second.grad is not None
    torch.testing.assert_close(first.grad, second.grad, rtol=1e-4, atol=1e-6)


def test_heads_that_read_the_tokens_themselves_have_their_inputs() -> None:
    head = TrackingReadout(channels=C, steps=2 * T, n_frames=4, temporal_tiles=2, width=16, heads=2)
    queries = torch.rand(B, 3, 2, generator=seeded(1))
    backward({"tracking": head}, tokens(), {"queries": queries}, loss_of)
    assert gradients(head)


@pytest.mark.parametrize("learns", [False, True])
def test_a_head_that_reads_the_tokens_is_done_before_the_next_one_begins(learns: bool) -> None:
    """So that many hold no more than one does; tokens that learn are gone through backwards once."""
    order: list[str] = []
    heads = {
        name: TrackingReadout(channels=C, steps=2 * T, n_frames=4, temporal_tiles=2, width=16, heads=2)
        for name in ("first", "second")
    }
    for name, head in heads.items():
        head.register_forward_hook(lambda *_, name=name: order.append(f"{name} forward"))
        head.point_mlp.register_full_backward_hook(lambda *_, name=name: order.append(f"{name} backward"))
    queries = torch.rand(B, 3, 2, generator=seeded(1)).requires_grad_()
    native = PreparedTokens(torch.randn(B, 2 * T, N, C).requires_grad_()) if learns else tokens()
    backward(heads, native, {"queries": queries}, loss_of)
    forward_first = ["first forward", "second forward"]
    assert order[:2] == (forward_first if learns else ["first forward", "first backward"])
    assert len(order) == 4


def test_an_error_of_one_head_is_raised() -> None:
    def fails(name: str, outputs: Tensor) -> Tensor:
        raise ValueError(f"{name} cannot be judged")

    with pytest.raises(ValueError, match="cannot be judged"):
        backward(draw_heads(), tokens(), {}, fails)


def test_dropout_is_drawn_from_the_generator_of_each_head() -> None:
    heads, state = draw_heads(), torch.random.get_rng_state()
    first = backward(heads, tokens(), {}, loss_of)
    again = backward(draw_heads(), tokens(), {}, loss_of)
    goes_on = backward(heads, tokens(), {}, loss_of)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first["wide"], again["wide"])
    assert not torch.equal(first["wide"], goes_on["wide"])
    assert isinstance(heads["wide"].trunk.dropout, Dropout)
