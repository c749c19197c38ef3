"""Layers that heads share: the reference's MLP, its initial values, dropout from a generator of one's own."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from readouts.heads import AttentionReadout, DPTReadout, LinearReadout, TrackingReadout
from readouts.heads.convolution import SameConv, SameConvTranspose, same_conv
from readouts.heads.layers import Dropout, mlp
from readouts.heads.reference.parameters import conv_parameters, parameters_of
from tests.readouts.heads.reference.flax import to_reference


def init_statistics(folder: Path) -> dict[str, Any]:
    path = folder / "golden" / "reference" / "readout_init_stats.json"
    return json.loads(path.read_text())["evals"]  # type: ignore[no-any-return]


def check_initial(array: np.ndarray, expected: dict[str, Any], name: str) -> None:
    slack = 5.0 / array.size**0.5
    assert list(array.shape) == expected["shape"], name
    assert abs(array.std() - expected["std"]) <= slack * expected["std"], name
    assert abs(array.mean() - expected["mean"]) <= 2 * slack * expected["std"], name
    if name.endswith("kernel"):
        # Cut at two deviations of the uncut normal: 2 / 0.8796 = 2.2737 of what is left.
        fan_in = np.prod(array.shape[:1] if array.ndim < 4 else array.shape[:3])
        assert np.abs(array).max() <= 2.2738 * fan_in**-0.5, name


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("task", "name", "module"),
    [
        ("flyvsfly_classification", "linear_classification", partial(LinearReadout, n_outputs=7)),
        (
            "flyvsfly_classification",
            "attn_classification",
            partial(AttentionReadout, steps=16, width=128, n_outputs=7),
        ),
        ("calms21_classification", "attn_classification", partial(AttentionReadout, steps=16, n_outputs=4)),
        ("stir_2d_tracking", "points", partial(TrackingReadout, steps=16)),
    ],
)
def test_initial_values_have_the_references_shapes_and_statistics(
    shared: Path, task: str, name: str, module: Callable[..., nn.Module]
) -> None:
    reference = init_statistics(shared)[task][name]
    found = to_reference(module(channels=768, generator=torch.Generator().manual_seed(0)))
    assert found.keys() == reference["params"].keys()
    assert sum(array.size for array in found.values()) == reference["total_params"]
    for name, array in found.items():
        check_initial(array, reference["params"][name], name)


def test_dense_prediction_has_the_references_shapes_at_real_size(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 182 M parameters: their memory is reserved and, as nothing is drawn, never touched.
    monkeypatch.setattr("readouts.heads.layers.lecun_normal_", lambda *_, **__: None)
    reference = init_statistics(shared)["weatherbench_future_pred"]["future_rgb"]
    head = DPTReadout(channels=768, rows=14, columns=14)
    assert sum(parameter.numel() for parameter in head.parameters()) == reference["total_params"]
    ours = dict(head.decoder.named_parameters())
    found = {
        f"inner_readout/{path}": list(rearrange(ours[entry.name], entry.pattern).shape)
        for path, entry in parameters_of(head.decoder).items()
    }
    assert found == {path: entry["shape"] for path, entry in reference["params"].items()}
    zero = {path for path, entry in reference["params"].items() if not entry["max"]}
    assert {path for path in zero if path.endswith("kernel")} == {
        "inner_readout/DensePredictionTransformer_0/conv_head_2/kernel"
    }


@pytest.mark.parametrize("transposed", [False, True])
def test_kernels_have_the_references_statistics(shared: Path, transposed: bool) -> None:
    block = "ReassembleBlock4" if transposed else "ReassembleBlock16"
    path = f"inner_readout/DensePredictionTransformer_0/{block}/conv_resample_1/kernel"
    expected = init_statistics(shared)["weatherbench_future_pred"]["future_rgb"]["params"][path]
    generator = torch.Generator().manual_seed(0)
    if transposed:
        layer: nn.Module = same_conv(SameConvTranspose, 1024, 1024, kernel=3, stride=4, generator=generator)
    else:
        layer = same_conv(SameConv, 1024, 1024, kernel=3, generator=generator)
    assert not layer.bias.any()
    kernel = conv_parameters("", "", transposed=transposed)["kernel"]
    check_initial(kernel.to_reference(layer.weight.detach()), expected, path)


def test_the_mlp_is_the_references(shared: Path) -> None:
    for path in (shared / "golden" / "reference").glob("mlp*.npz"):
        with np.load(path, allow_pickle=False) as arrays:
            golden = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        kernels = [golden[f"param/Dense_{i}/kernel"] for i in (0, 1)]
        module = mlp(*kernels[0].shape, kernels[1].shape[1], generator=None)
        state = {f"{2 * i}.weight": kernel.T for i, kernel in enumerate(kernels)}
        module.load_state_dict(state | {f"{2 * i}.bias": golden[f"param/Dense_{i}/bias"] for i in (0, 1)})
        inputs = golden["in/inputs"].requires_grad_()
        outputs = module(inputs)
        outputs.backward(golden["ct/y"])
        close(outputs, golden["out/y"], 5e-6)
        close(inputs.grad, golden["grad/in/inputs"], 5e-5)
        close(module[0].weight.grad.T, golden["grad/param/Dense_0/kernel"], 5e-5)


def test_dropout_drops_what_torch_does_with_the_same_seed() -> None:
    values, ours = torch.randn(5, 300), Dropout(0.3)
    ours.generator = torch.Generator().manual_seed(11)
    torch.manual_seed(11)
    assert torch.equal(ours(values), nn.Dropout(0.3)(values))
    assert torch.equal(ours.eval()(values), values)
