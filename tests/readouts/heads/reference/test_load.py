"""Heads with the reference's parameters against its own outputs and gradients."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featcache.errors import CallError
from readouts.heads import HEADS, build_head, load_reference
from tests.readouts.heads.reference.flax import gradients_to_reference, to_reference

CPU = torch.device("cpu")
OUT, GRAD = 1e-5, 1e-4

KINDS = {
    "readout_linear": "linear",
    "readout_shift_linear": "linear",
    "readout_tracking": "tracking",
    "readout_dpt": "dpt",
    "readout_weatherbench": "dpt",
}

ALL_HEADS = pytest.mark.golden(
    "readout_linear*", "readout_attention*", "readout_shift*", "readout_tracking*", "readout_dpt*",
    "readout_weatherbench*",
)  # fmt: skip


def error(found: np.ndarray | Tensor, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest value of the reference."""
    return float(np.abs(np.asarray(found) - expected).max() / (np.abs(expected).max() or 1.0))


def kind_of(golden: Any) -> str:
    return next((kind for start, kind in KINDS.items() if golden.name.startswith(start)), "attention")


def load(golden: Any) -> nn.Module:
    return load_reference(kind_of(golden), golden.under("param/"), **golden.meta["module_kwargs"])


def outputs_of(
    module: nn.Module, golden: Any, device: torch.device = CPU
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs by the fixture's names, and the inputs they came from, ready for gradients."""
    inputs = {
        name: torch.from_numpy(array).to(device).requires_grad_()
        for name, array in golden.under("in/").items()
    }
    mask = inputs.pop("dropout_keep_mask", None)
    if mask is not None:
        drop_as_the_reference_did(
            module, keep=mask.detach(), rate=golden.meta["module_kwargs"]["dropout_rate"]
        )
    outputs = module(**inputs)
    return (outputs if isinstance(outputs, dict) else {"y": outputs}), inputs


def drop_as_the_reference_did(module: nn.Module, *, keep: Tensor, rate: float) -> None:
    (dropout,) = [part for part in module.modules() if isinstance(part, nn.Dropout)]
    assert dropout.p == rate
    dropout.forward = lambda pooled: pooled * keep / (1 - rate)  # type: ignore[method-assign]


@ALL_HEADS
def test_outputs_are_the_references(golden: Any) -> None:
    outputs, _ = outputs_of(load(golden), golden)
    extra = {"attention_after_dropout"}
    assert outputs.keys() == golden.under("out/").keys() - extra
    for name, output in outputs.items():
        assert error(output.detach(), golden.arrays[f"out/{name}"]) < OUT, name


@ALL_HEADS
def test_gradients_are_the_references(golden: Any) -> None:
    cotangents = golden.under("ct/")
    module = load(golden)
    outputs, inputs = outputs_of(module, golden)
    sum((outputs[name] * torch.from_numpy(ct)).sum() for name, ct in cotangents.items()).backward()

    expected = golden.under("grad/param/")
    largest = max(np.abs(gradient).max() for gradient in golden.under("grad/").values())
    found = gradients_to_reference(module)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        if name.endswith("key_embedding/bias"):
            assert np.abs(gradient).max() < 1e-5 * largest, "softmax ignores a shift of all scores"
        else:
            assert error(gradient, expected[name]) < GRAD, name
    for name, gradient in golden.under("grad/in/").items():
        assert error(inputs[name].grad, gradient) < GRAD, name


@pytest.mark.golden("readout_weatherbench*")
def test_forecasts_are_the_references_channel_by_channel(golden: Any) -> None:
    # Channels differ by seven orders of magnitude: a tolerance of the largest would see the first alone.
    std = np.array(golden.meta["module_kwargs"]["residual_std"])
    outputs, _ = outputs_of(load(golden), golden)
    expected = golden.arrays["out/y"]
    assert (np.abs(outputs["y"].detach().numpy() - expected) <= 2e-5 * (np.abs(expected) + std)).all()


@pytest.mark.golden("readout_attention*dropout_train*")
def test_dropout_acts_on_the_pooled_token_of_each_head(golden: Any) -> None:
    module = load(golden)
    seen: list[Tensor] = []
    (dropout,) = [part for part in module.modules() if isinstance(part, nn.Dropout)]
    dropout.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    outputs_of(module, golden)
    assert error(seen[0], golden.arrays["out/attention_after_dropout"]) < OUT


@ALL_HEADS
def test_parameters_come_back_unchanged(golden: Any) -> None:
    given, returned = golden.under("param/"), to_reference(load(golden))
    assert returned.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(returned[name], array, err_msg=name)


@pytest.mark.golden("readout_linear", "readout_attention_t8", "readout_shift_linear", "readout_weatherbench")
def test_the_heads_name_may_lead_every_path(golden: Any) -> None:
    named = {f"readout_heads_any/{name}": array for name, array in golden.under("param/").items()}
    module = load_reference(kind_of(golden), named, **golden.meta["module_kwargs"])
    assert to_reference(module).keys() == golden.under("param/").keys()


@pytest.mark.golden("readout_attention_t8")
def test_one_step_has_its_positions_flat(golden: Any) -> None:
    name = "temporal_posenc/embeddings"
    params = golden.under("param/")
    (of_one,) = params[name][:1, 0]
    module = load_reference("attention", {**params, name: of_one}, **golden.meta["module_kwargs"])
    assert np.array_equal(to_reference(module)[name], of_one)
    ((given, array),) = golden.under("in/").items()
    assert module(**{given: torch.from_numpy(array[:, :1])}).isfinite().all()


@pytest.mark.golden("readout_linear", "readout_attention_t8")
def test_training_and_reference_are_one_class(golden: Any) -> None:
    kind = golden.name.split("_")[1]
    head = load(golden).head
    assert type(head) is HEADS[kind]
    fresh = build_head(kind, channels=24, steps=8, n_outputs=7, **({} if kind == "linear" else {"width": 32}))
    assert type(fresh) is type(head)


@pytest.mark.golden("readout_tracking", "readout_dpt_up_19x36")
def test_a_head_that_is_trained_here_gives_the_references_paths(golden: Any) -> None:
    kind = kind_of(golden)
    small = {
        "tracking": {"width": 16, "heads": 2, "mlp_hidden": 8, "query_channels": 8},
        "dpt": {"features": 4, "head_channels": 4},
    }
    head = build_head(kind, channels=6, steps=16, n_outputs=8, rows=2, columns=2, **small[kind])
    assert type(head) is HEADS[kind]
    assert to_reference(head).keys() == golden.under("param/").keys()


def test_the_reference_nests_only_what_it_nests() -> None:
    with pytest.raises(CallError, match="puts no tracking readout into another"):
        load_reference("tracking", {}, inner_readout={})


def test_what_is_not_trained_is_no_readout_to_load() -> None:
    with pytest.raises(
        CallError, match="no 'persistence' readout here: known are linear, attention, tracking, dpt"
    ):
        load_reference("persistence", {}, num_output_frames=3)


def test_training_does_without_the_reference() -> None:
    code = "import readouts.training.loop, sys; sys.exit('readouts.heads.reference' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.golden("readout_attention_novjepa")
def test_the_plain_variant_projects_queries_from_outside_too(golden: Any) -> None:
    """With its own learned query given from outside, through a projection that changes nothing."""
    learned = golden.under("param/")
    n_heads, width = golden.meta["module_kwargs"]["num_heads"], golden.meta["module_kwargs"]["num_params"]
    params = {name: array for name, array in learned.items() if name != "query" and "Dense_0" not in name}
    params |= {f"Dense_1/{name}": learned[f"Dense_0/{name}"] for name in ("kernel", "bias")}
    params |= {"Dense_0/kernel": np.eye(width, dtype=np.float32), "Dense_0/bias": np.zeros(width, np.float32)}
    inputs = torch.from_numpy(golden.arrays["in/inputs"])
    query = torch.from_numpy(learned["query"]).reshape(1, 1, width).expand(len(inputs), -1, -1)
    assert learned["query"].shape[-2:] == (n_heads, width // n_heads)
    found = load_reference("attention", params, **golden.meta["module_kwargs"])(inputs=inputs, queries=query)
    assert error(found.detach(), golden.arrays["out/y"]) < OUT


@pytest.mark.golden("readout_attention_t8")
def test_a_wrong_parameter_set_is_one_error_that_lists_it_all(golden: Any) -> None:
    params = golden.under("param/")
    params["surplus"] = params.pop("query")
    del params["LayerNorm_1/scale"]
    with pytest.raises(CallError, match=r"missing: LayerNorm_1/scale, query; unused: surplus"):
        load_reference("attention", params, **golden.meta["module_kwargs"])


@pytest.mark.golden("readout_attention_t8")
def test_a_parameter_of_another_shape_is_named_with_both_shapes(golden: Any) -> None:
    params = golden.under("param/")
    params["Dense_1/bias"] = params["Dense_1/bias"][:-1]
    with pytest.raises(CallError, match=r"Dense_1/bias is \(3,\), not \(4,\)"):
        load_reference("attention", params, **golden.meta["module_kwargs"])


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"num_classes": 2, "width": 3}, "LinearConfig has no width"),
        ({}, "num_classes"),
        ({"num_classes": 2, "inner_readout": {"num_classes": 2}}, "takes inner_readout alone"),
        (
            {"num_classes": 2, "inner_readout": {"num_classes": 2}, "residual_std": [1.0]},
            "takes inner_readout alone; given were inner_readout, num_classes, residual_std",
        ),
        ({"inner_readout": {"num_classes": 2}}, "lie under inner_readout/; unused: Dense_0/kernel"),
    ],
)
def test_a_wrong_configuration_is_refused(config: dict[str, Any], told: str) -> None:
    params = {"Dense_0/kernel": np.zeros((3, 2), np.float32), "Dense_0/bias": np.zeros(2, np.float32)}
    with pytest.raises(CallError, match=told):
        load_reference("linear", params, **config)


def test_the_linear_reference_keeps_axes_that_it_is_not_told_to_reduce() -> None:
    # Tokens [B=1, T=2, N=1, C=1] of 3 and 5, kernel 2, bias 1: 7 and 11 by step, 9 in the mean.
    params = {"Dense_0/kernel": np.full((1, 1), 2, np.float32), "Dense_0/bias": np.ones(1, np.float32)}
    tokens = torch.tensor([3.0, 5.0]).reshape(1, 2, 1, 1)
    by_token = load_reference("linear", params, num_classes=1)
    by_step = load_reference("linear", params, num_classes=1, reduce_axis=[-2])
    by_clip = load_reference("linear", params, num_classes=1, reduce_axis=[-3, -2])
    assert by_token(inputs=tokens).flatten().tolist() == [7, 11]
    assert by_step(inputs=tokens).tolist() == [[[7], [11]]]
    assert by_clip(inputs=tokens).tolist() == [[9]]


@pytest.mark.golden("readout_attention_t8", "readout_attention_queries")
def test_queries_belong_to_heads_that_project_them(golden: Any) -> None:
    module = load(golden)
    inputs = torch.from_numpy(golden.arrays["in/inputs"])
    if "in/queries" in golden.arrays:
        with pytest.raises(CallError, match="call it with `queries`"):
            module(inputs=inputs)
    else:
        with pytest.raises(CallError, match="call it without `queries`"):
            module(inputs=inputs, queries=inputs[:, 0])
