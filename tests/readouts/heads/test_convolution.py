"""Convolutions against Flax's, whatever sizes and strides the fixtures have."""

import re
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from readouts.heads.convolution import SameConv, SameConvTranspose, same_conv
from readouts.heads.reference.parameters import conv_parameters


def load(golden: Any) -> nn.Module:
    transposed = "convtranspose" in golden.name
    n_in, n_out = golden.arrays["param/kernel"].shape[2:]
    kernel, stride = len(golden.arrays["param/kernel"]), stride_of(golden)
    if transposed:
        layer: nn.Module = same_conv(
            SameConvTranspose, n_in, n_out, kernel=kernel, stride=stride, generator=None
        )
    else:
        layer = same_conv(SameConv, n_in, n_out, kernel=kernel, stride=stride, generator=None)
    parameters = conv_parameters("", "", transposed=transposed)
    layer.load_state_dict(
        {
            entry.name: entry.from_reference(golden.arrays[f"param/{path}"])
            for path, entry in parameters.items()
        }
    )
    return layer


def stride_of(golden: Any) -> int:
    """The fixture prints its module: `strides = (2, 2)`, or `strides = 1`."""
    found = re.search(r"strides = \(?(\d+)", golden.meta["module_kwargs"])
    assert found
    return int(found[1])


def error(found: Any, expected: Any) -> float:
    difference = torch.as_tensor(found) - torch.as_tensor(expected)
    return float(difference.abs().max() / torch.as_tensor(expected).abs().max())


@pytest.mark.golden("flax_conv_same*", "flax_convtranspose_same*")
def test_outputs_and_gradients_are_flaxs(golden: Any) -> None:
    layer = load(golden)
    inputs = torch.from_numpy(golden.arrays["in/inputs"]).requires_grad_()
    outputs: Tensor = rearrange(layer(rearrange(inputs, "b y x c -> b c y x")), "b c y x -> b y x c")
    outputs.backward(torch.from_numpy(golden.arrays["ct/y"]))
    assert error(outputs.detach(), golden.arrays["out/y"]) < 1e-5
    assert error(inputs.grad, golden.arrays["grad/in/inputs"]) < 1e-4
    for path, entry in conv_parameters("", "", transposed="convtranspose" in golden.name).items():
        gradient = layer.get_parameter(entry.name).grad
        assert gradient is not None
        assert error(entry.to_reference(gradient), golden.arrays[f"grad/param/{path}"]) < 1e-4, path


def test_an_odd_padding_is_smaller_in_front() -> None:
    layer = same_conv(SameConv, 1, 1, kernel=3, stride=2, generator=None)
    nn.init.ones_(layer.weight)
    line = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    # Windows start at rows and columns 0 and 2; the last ones reach one zero behind.
    found = layer(line.expand(1, 1, 4, 4))[0, 0]
    assert found.tolist() == [[333.0, 3300.0], [222.0, 2200.0]]


def test_a_transposed_kernel_is_not_turned() -> None:
    layer = same_conv(SameConvTranspose, 1, 1, kernel=3, stride=4, generator=None)
    kernel = torch.arange(9.0).reshape(3, 3, 1, 1).numpy()
    entry = conv_parameters("", "", transposed=True)["kernel"]
    layer.load_state_dict({"weight": entry.from_reference(kernel), "bias": torch.zeros(1)})
    # One pixel spread by four: Flax's kernel slides over it, so it is met by the kernel's far end first.
    found = layer(torch.ones(1, 1, 1, 1))[0, 0]
    assert found.tolist() == [[8, 7, 6, 0], [5, 4, 3, 0], [2, 1, 0, 0], [0, 0, 0, 0]]


def test_without_a_stride_flaxs_two_convolutions_are_one() -> None:
    plain = same_conv(SameConv, 2, 3, kernel=3, generator=torch.Generator().manual_seed(0))
    transposed = same_conv(SameConvTranspose, 2, 3, kernel=3, stride=1, generator=None)
    kernel = conv_parameters("", "", transposed=False)["kernel"].to_reference(plain.weight.detach())
    weight = conv_parameters("", "", transposed=True)["kernel"].from_reference(kernel)
    transposed.load_state_dict({"weight": weight, "bias": torch.zeros(3)})
    maps = torch.randn(1, 2, 4, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(transposed(maps), plain(maps))
