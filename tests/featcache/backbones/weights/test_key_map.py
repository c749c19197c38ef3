"""Tables of released keys: what does not fit is named; each difference that an entry can have."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featcache.backbones.weights.checkpoint import TensorFile
from featcache.backbones.weights.key_map import (
    Entries,
    Entry,
    KeyMap,
    nested,
    renamed,
    stacked,
)
from featcache.errors import WeightsError

WANTED: Entries = {"ours": Entry(("a",), (2, 3)), "bias": Entry(("b",), (4,))}
CPU = torch.device("cpu")


def read(
    entry: Entry, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, **tensors: Tensor
) -> Tensor:
    file = TensorFile({key: tuple(t.shape) for key, t in tensors.items()}, tensors.__getitem__, "file")
    key_map = KeyMap({"p": entry})
    key_map.check(file.shapes, "file")
    return key_map.read(file, {"p": torch.empty(shape, device="meta")}, CPU, lambda _: dtype)["p"]


def test_keys_that_fit() -> None:
    KeyMap(WANTED, ("decoder.",)).check({"a": (2, 3), "b": (4,), "decoder.x": (1,)}, "file")


def test_keys_that_do_not() -> None:
    found = {"a": (3, 2), "c": (1,), "decoder.x": (1,)}
    with pytest.raises(WeightsError) as error:
        KeyMap(WANTED, ("decoder.",)).check(found, "file.npz")
    assert str(error.value) == (
        "file.npz does not fit its model: b missing; c unknown; a (3, 2) instead of (2, 3) of another shape. "
        "Use the files as they were released."
    )


def test_long_lists_are_cut_and_counted() -> None:
    with pytest.raises(WeightsError, match=r"0, 1, 2, 3, 4, 5 and 4 more missing"):
        KeyMap({str(number): Entry((str(number),), (1,)) for number in range(10)}).check({}, "file")


def test_pieces_follow_one_another_and_a_missing_one_is_zeros() -> None:
    found = read(Entry(("q", None, "v"), (2,)), (6,), q=torch.tensor([1.0, 2]), v=torch.tensor([3.0, 4]))
    assert found.tolist() == [1, 2, 0, 0, 3, 4]


def test_axes_are_those_of_ours() -> None:
    kernel = torch.arange(12.0).reshape(2, 3, 2)
    assert torch.equal(
        read(Entry(("w",), (2, 3, 2), "i h d -> (h d) i"), (6, 2), w=kernel), kernel.flatten(1).T
    )
    flat = read(
        Entry(("w",), (4, 3), "(y x) d -> d y x", {"y": 2, "x": 2}), (3, 2, 2), w=kernel.reshape(4, 3)
    )
    assert flat[1].tolist() == [[1, 4], [7, 10]]


def test_a_block_of_a_stack_plus_one() -> None:
    (entry,) = stacked(3, 1, {"p": Entry(("s",), (2,), plus=1.0)}).values()
    assert entry.shape == (3, 2)
    assert read(entry, (2,), s=torch.arange(6.0).reshape(3, 2)).tolist() == [3, 4]


def test_what_is_made_of_a_table_is_made_before_it_is_rounded() -> None:
    entry = Entry(("t",), (2,), then=lambda table: table.mean(0, keepdim=True))
    assert entry.then is not None
    halves = torch.tensor([1.0, 1.0 + 2**-9])
    found = read(entry, (1,), torch.float16, t=halves)
    assert found.dtype == torch.float16 and found.item() == np.float16(1.0 + 2**-10)
    assert read(Entry((), (), then=lambda: torch.ones(2)), (2,)).tolist() == [1, 1]


def test_a_file_of_other_names() -> None:
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(2, 6)]), "norm": nn.LayerNorm(2)})
    entries = renamed(model, {"blocks": "encoder.layer", "0": ("0.q", "0.k", "0.v")}, prefix="model.")
    assert entries == {
        "blocks.0.weight": Entry(tuple(f"model.encoder.layer.0.{one}.weight" for one in "qkv"), (2, 2)),
        "blocks.0.bias": Entry(tuple(f"model.encoder.layer.0.{one}.bias" for one in "qkv"), (2,)),
        "norm.weight": Entry(("model.norm.weight",), (2,)),
        "norm.bias": Entry(("model.norm.bias",), (2,)),
    }
    assert nested("b.", "c/", {"p": Entry(("q", None), (1,))}) == {"b.p": Entry(("c/q", None), (1,))}


@pytest.mark.parametrize(
    ("value", "what"), [(float("nan"), "NaN"), (float("inf"), "infinity"), (-float("inf"), "infinity")]
)
def test_weights_that_are_no_numbers_are_refused_with_the_array_s_name(value: float, what: str) -> None:
    with pytest.raises(WeightsError, match=rf"file holds {what} in v \(1 of 2 numbers\)"):
        read(Entry(("q", "v"), (2,)), (4,), q=torch.ones(2), v=torch.tensor([1.0, value]))
    with pytest.raises(WeightsError, match="holds NaN and infinity in v"):
        read(Entry(("v",), (2,)), (2,), v=torch.tensor([float("nan"), float("inf")]))


def test_numbers_that_only_the_precision_does_not_reach_say_so() -> None:
    with pytest.raises(WeightsError, match=r"numbers of v do not fit torch\.float16: .*--precision float32"):
        read(Entry(("v",), (2,)), (2,), torch.float16, v=torch.tensor([1.0, 1e6]))


def test_another_common_beginning_is_named() -> None:
    with pytest.raises(WeightsError, match=r"every key of it begins with 'teacher'"):
        KeyMap({"p": Entry(("a",), (2,))}).check({"teacher.a": (2,), "teacher.b": (2,)}, "file")
