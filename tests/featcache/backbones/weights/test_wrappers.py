"""Where a model is in a file: wrappers of training, nested state dicts, a model beside others."""

import pytest
import torch
from torch import Tensor

from featcache.backbones.weights.checkpoint import Shapes, TensorFile
from featcache.backbones.weights.key_map import Entry, KeyMap
from featcache.backbones.weights.wrappers import found_in, unwrapped
from featcache.errors import WeightsError

MODEL = {f"blocks.{number}.w": (number + 1,) for number in range(9)}
"""A model of nine tensors."""


def key_map(_: Shapes) -> KeyMap:
    return KeyMap({name: Entry((name,), shape) for name, shape in MODEL.items()})


def file_of(*prefixes: str, **more: tuple[int, ...]) -> TensorFile:
    shapes = {prefix + name: shape for prefix in prefixes for name, shape in MODEL.items()} | more
    tensors: dict[str, Tensor] = {name: torch.ones(shape) for name, shape in shapes.items()}
    return TensorFile(shapes, tensors.__getitem__, "file.pth")


def found(file: TensorFile, *preferred: str) -> TensorFile:
    return found_in(file, key_map, what="a model", preferred=preferred)[0]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module.model.", "state_dict.module._orig_mod."])
def test_keys_inside_a_wrapper_of_training_are_read_and_told(
    prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = {f"{prefix}net.a": torch.ones(2), f"{prefix}head.b": torch.zeros(1)}
    file = TensorFile({key: tuple(t.shape) for key, t in tensors.items()}, tensors.__getitem__, "file.pth")

    def key_map(_: object) -> KeyMap:
        return KeyMap({"p": Entry(("net.a",), (2,))}, ("head.",))

    found, table = unwrapped(file, key_map)
    assert table == key_map(file) and found.shapes == {"net.a": (2,), "head.b": (1,)}
    assert torch.equal(found.read("net.a"), torch.ones(2))
    (said,) = caplog.messages
    assert said.startswith(f"file.pth: every key begins with {prefix!r}, ") and "read without it" in said
    caplog.clear()
    assert unwrapped(found, key_map)[0] is found and not caplog.messages, "what fits stays as it is"


@pytest.mark.parametrize("keys", [("module.a", "a"), ("module.c",), ("module",), ()])
def test_keys_that_no_wrapper_explains_are_refused_as_they_are(
    keys: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    file = TensorFile(dict.fromkeys(keys, (2,)), lambda _: torch.ones(2), "file")

    def key_map(_: object) -> KeyMap:
        return KeyMap({"p": Entry(("a",), (2,))})

    found, table = unwrapped(file, key_map)
    assert found is file and not caplog.messages
    with pytest.raises(WeightsError, match="does not fit its model"):
        table.check(file.shapes, "file")


def test_keys_below_a_word_that_may_be_another_model_s_are_refused_in_one_line() -> None:
    file = TensorFile({"module.teacher.a": (2,)}, lambda _: torch.ones(2), "file")
    with pytest.raises(WeightsError, match=r"begins with 'module\.teacher\.', and without it all"):
        unwrapped(file, lambda _: KeyMap({"p": Entry(("a",), (2,))}))


@pytest.mark.parametrize(
    ("prefixes", "read_from"),
    [
        (("",), ""),
        (("module.",), "module."),
        (("state_dict.module.encoder.",), "state_dict.module.encoder."),
        (("student.backbone.", "teacher.backbone."), "teacher.backbone."),
        (("encoder.module.", "target_encoder.module.", "predictor."), "target_encoder.module."),
        (("model.", "aux.net."), "model."),
    ],
)
def test_a_user_s_model_is_found_and_told(
    prefixes: tuple[str, ...], read_from: str, caplog: pytest.LogCaptureFixture
) -> None:
    part = found(file_of(*prefixes, **({"epoch": (1,)} if read_from else {})))
    assert (
        part.shapes == {**MODEL, **({"epoch": (1,)} if read_from == "" else {})} or "epoch" not in part.shapes
    )
    assert part.read("blocks.3.w").shape == (4,)
    (line,) = caplog.messages or [""]
    assert (f"read from under {read_from!r}" in line) == bool(read_from)
    others = [prefix for prefix in prefixes if prefix != read_from]
    assert all(repr(prefix) in line for prefix in others)


def test_a_name_of_the_family_s_goes_first() -> None:
    file = file_of("teacher.", "ema_encoder.")
    assert found(file, "ema_encoder").read("blocks.0.w") is file.read("ema_encoder.blocks.0.w")


def test_heads_beside_the_blocks_are_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    part = found(file_of("", **{"head.weight": (3, 9), "decoder.blocks.0.w": (4,)}))
    assert part.shapes == MODEL
    assert caplog.messages == ["file.pth: a model is read without head.weight, decoder.blocks.0.w"]


def test_another_architecture_is_refused_by_name_and_shape() -> None:
    shapes = {f"module.{name}": (1, *shape) for name, shape in MODEL.items()}
    other = TensorFile(shapes | {"module.registers": (4,)}, {}.__getitem__, "file.pth")
    with pytest.raises(WeightsError) as error:
        found(other)
    assert "file.pth is not a model: registers unknown; blocks.0.w (1, 1) instead of (1,)" in str(error.value)
    assert "under 'module.'" in str(error.value)
    with pytest.raises(WeightsError, match="holds no tensors that could be a model"):
        found(TensorFile({"x": (1,)}, {}.__getitem__, "file.pth"))


def test_several_models_that_fit_are_not_guessed_from() -> None:
    with pytest.raises(WeightsError, match=r"several models that fit, under 'a\.', 'b\.': save the one"):
        found(file_of("a.", "b."))
