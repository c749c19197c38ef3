"""Weights in several files: found, whole, and the same weights."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from featcache.backbones import load_backbone
from featcache.backbones.release import INDEX_FILE, Release
from featcache.backbones.weights.checkpoint import open_tensors, tensor_shapes
from featcache.backbones.weights.digest import checked_digest, file_digest
from featcache.backbones.weights.key_map import Entry, KeyMap
from featcache.backbones.weights.locate import find_weights, folder_weights
from featcache.backbones.weights.shard_index import files_of, files_of_tensors
from featcache.errors import WeightsError

TENSORS = {name: torch.full((2, 3), float(i)) for i, name in enumerate(("a.weight", "b.weight", "c.bias"))}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Three tensors in two files, as the hub keeps large models."""
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    save_file({"a.weight": TENSORS["a.weight"], "c.bias": TENSORS["c.bias"]}, tmp_path / names[0])
    save_file({"b.weight": TENSORS["b.weight"]}, tmp_path / names[1])
    (tmp_path / "config.json").write_text("{}")
    path = tmp_path / INDEX_FILE
    home = {"a.weight": names[0], "b.weight": names[1], "c.bias": names[0]}
    path.write_text(json.dumps({"metadata": {"total_size": 72}, "weight_map": home}))
    return path


def test_tensors_come_from_the_files_that_hold_them(index: Path) -> None:
    assert tensor_shapes(index) == dict.fromkeys(TENSORS, (2, 3))
    with open_tensors(index) as file:
        assert all(torch.equal(file.read(name), tensor) for name, tensor in TENSORS.items())
    assert [path.name for path in files_of(index)] == [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    assert files_of(index.with_name("model.safetensors")) == (index.with_name("model.safetensors"),)


def test_a_tensor_that_the_index_leaves_out_is_told_of(index: Path) -> None:
    content = json.loads(index.read_text())
    del content["weight_map"]["c.bias"]
    index.write_text(json.dumps(content))
    # So whoever accounts for every key meets it.
    assert tensor_shapes(index).keys() == TENSORS.keys()
    with open_tensors(index) as file:
        assert torch.equal(file.read("c.bias"), TENSORS["c.bias"])


def test_a_file_that_lacks_what_the_index_says_is_refused(index: Path) -> None:
    save_file({"a.weight": TENSORS["a.weight"]}, files_of(index)[0])
    with (
        pytest.raises(WeightsError, match=r"model-00001-of-00002\.safetensors lacks c\.bias"),
        open_tensors(index),
    ):
        pass


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"a": "../../secret"}}',
        '{"weight_map": {"a": 3}}',
    ],
)
def test_what_is_no_index_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / INDEX_FILE
    path.write_text(content)
    with pytest.raises(WeightsError, match="is not an index of weight files"):
        files_of_tensors(path)


def test_the_digest_is_of_every_file(index: Path) -> None:
    before = file_digest(index)
    save_file({"b.weight": TENSORS["b.weight"] + 1}, files_of(index)[1])
    assert file_digest(index) != before


def test_a_file_that_the_index_names_and_is_not_there_is_told_with_both_names(index: Path) -> None:
    index.write_text(index.read_text().replace("00002-of", "00003-of"))
    with pytest.raises(WeightsError, match=r"index\.json names model-00003-of-00002\.safetensors, which is"):
        checked_digest(index)


def test_weights_that_are_no_numbers_are_named_with_their_own_file(index: Path) -> None:
    save_file({"b.weight": torch.full((2, 3), torch.nan)}, files_of(index)[1])
    key_map = KeyMap({"p": Entry(("b.weight",), (2, 3))})
    with (
        open_tensors(index) as file,
        pytest.raises(WeightsError, match=r"model-00002-of-00002\.safetensors holds NaN in b\.weight"),
    ):
        key_map.read(file, {"p": torch.empty(2, 3)}, torch.device("cpu"), lambda _: torch.float32)


def test_a_folder_without_all_of_the_files_says_which(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder_weights(index.parent) == index
    files_of(index)[1].unlink()
    with pytest.raises(WeightsError, match=r"lacks model-00002-of-00002\.safetensors"):
        folder_weights(index.parent)


def test_a_download_that_was_broken_off_is_not_there(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Release(
        owner="Somebody",
        licence="MIT",
        n_bytes=72,
        config=True,
        sharded=True,
        hub_id="Somebody/large",
        revision="0" * 40,
    )
    cache = tmp_path / "hub"
    snapshot = cache / "models--Somebody--large" / "snapshots" / hub.revision
    snapshot.mkdir(parents=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    for path in (index, index.with_name("config.json"), files_of(index)[0]):
        (snapshot / path.name).write_bytes(path.read_bytes())
    assert find_weights("large", hub, None) is None
    (snapshot / files_of(index)[1].name).write_bytes(files_of(index)[1].read_bytes())
    assert find_weights("large", hub, None) == snapshot / INDEX_FILE


def test_what_is_missing_is_asked_for_with_all_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as problem:
        load_backbone("dinov3_7b", tmp_path).weights_digest()
    message = str(problem.value)
    assert f"config.json and {INDEX_FILE}, and the files it names (26.86 GB)" in message
    assert (
        'dinov3-vit7b16-pretrain-lvd1689m --include config.json "model*.safetensors*" --revision' in message
    )
