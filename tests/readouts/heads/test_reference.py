"""Heads with the reference's parameters against its own outputs and gradients."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featcache.errors import CallError
from readouts.heads import HEADS, build_head, load_reference, to_reference
from readouts.heads.reference import gradients_to_reference

OUT, GRAD = 1e-5, 1e-4


def error(found: np.ndarray | Tensor, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest value of the reference."""
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


def load(golden: Any) -> nn.Module:
    kind = "linear" if "linear" in golden.name else "attention"
    return load_reference(kind, golden.under("param/"), **golden.meta["module_kwargs"])


def outputs_of(module: nn.Module, golden: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs by the fixture's names, and the inputs they came from, ready for gradients."""
    inputs = {name: torch.from_numpy(array).requires_grad_() for name, array in golden.under("in/").items()}
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


@pytest.mark.golden("readout_linear*", "readout_attention*", "readout_shift*")
def test_outputs_are_the_references(golden: Any) -> None:
    outputs, _ = outputs_of(load(golden), golden)
    for name, output in outputs.items():
        assert error(output.detach(), golden.arrays[f"out/{name}"]) < OUT, name


@pytest.mark.golden("readout_linear*", "readout_attention*", "readout_shift*")
def test_gradients_are_the_references(golden: Any) -> None:
    module = load(golden)
    outputs, inputs = outputs_of(module, golden)
    sum(
        (out * torch.from_numpy(golden.arrays[f"ct/{name}"])).sum() for name, out in outputs.items()
    ).backward()

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


@pytest.mark.golden("readout_attention*dropout_train*")
def test_dropout_acts_on_the_pooled_token_of_each_head(golden: Any) -> None:
    module = load(golden)
    seen: list[Tensor] = []
    (dropout,) = [part for part in module.modules() if isinstance(part, nn.Dropout)]
    dropout.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    outputs_of(module, golden)
    assert error(seen[0], golden.arrays["out/attention_after_dropout"]) < OUT


@pytest.mark.golden("readout_linear*", "readout_attention*", "readout_shift*")
def test_parameters_come_back_unchanged(golden: Any) -> None:
    given, returned = golden.under("param/"), to_reference(load(golden))
    assert returned.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(returned[name], array, err_msg=name)


@pytest.mark.golden("readout_linear", "readout_attention_t8", "readout_shift_linear")
def test_the_heads_name_may_lead_every_path(golden: Any) -> None:
    kind = "attention" if "attention" in golden.name else "linear"
    named = {f"readout_heads_any/{name}": array for name, array in golden.under("param/").items()}
    module = load_reference(kind, named, **golden.meta["module_kwargs"])
    assert to_reference(module).keys() == golden.under("param/").keys()


@pytest.mark.golden("readout_linear", "readout_attention_t8")
def test_training_and_reference_are_one_class(golden: Any) -> None:
    kind = golden.name.split("_")[1]
    head = load(golden).head
    assert type(head) is HEADS[kind]
    fresh = build_head(kind, channels=24, steps=8, n_outputs=7, **({} if kind == "linear" else {"width": 32}))
    assert type(fresh) is type(head)


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
