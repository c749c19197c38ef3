"""Where weights are looked for, and what a user without them is told."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from featcache.backbones import backbone_table, load_backbone
from featcache.backbones.release import Release
from featcache.backbones.weights.locate import find_weights, obtain_weights
from featcache.buckets.path import place
from featcache.errors import WeightsError

HUB = Release(
    owner="Somebody", licence="L", n_bytes=30, config=True, hub_id="Somebody/model", revision="0" * 40
)
FILE = Release(
    owner="Somebody",
    licence="CC-BY-4.0",
    n_bytes=1_500_000_000,
    files=("model.npz", "model.safetensors"),
    url="https://example.org/model.npz",
)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache of our own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


def test_missing_weights_say_what_whose_and_how(tmp_path: Path) -> None:
    backbone = load_backbone("videomae_b", tmp_path / "weights")
    with pytest.raises(WeightsError) as error:
        backbone.weights_digest()
    message = str(error.value)
    for part in (
        "weights of videomae_b are not here",
        "config.json and model.safetensors (377 MB), by",
        "(from https://huggingface.co/MCG-NJU/videomae-base)",
        "by the Multimedia Computing Group of Nanjing University",
        "licence CC-BY-NC-4.0, not for commercial use",
        f"Looked in {tmp_path / 'weights/videomae_b'} and in the Hugging Face cache {tmp_path / 'hub'}",
        f"scivid data download --weights videomae_b --weights-dir {tmp_path / 'weights'}\n",
        "pytorch_model.bin",
    ):
        assert part in message
    with pytest.raises(WeightsError, match=r"(?s)2\.53 GB.*SCIVID_WEIGHTS_DIR"):
        load_backbone("videomae_h").architecture()


def test_what_nobody_may_fetch_for_you_says_how_to_ask(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as error:
        load_backbone("dinov3_b", tmp_path).weights_digest()
    source = "https://huggingface.co/facebook/dinov3-vitb16-pretrain-lvd1689m"
    assert f"Accept the licence (DINOv3 License, Meta AI) at {source} " in str(error.value)
    assert "hf auth login && hf download facebook/dinov3-vitb16-pretrain-lvd1689m config.json" in str(
        error.value
    )
    assert "scivid data download" not in str(error.value)


def test_folder_of_weights_comes_first(tmp_path: Path, empty_cache: Path) -> None:
    fill(
        empty_cache / f"models--Somebody--model/snapshots/{HUB.revision}", "config.json", "model.safetensors"
    )
    folder = fill(tmp_path / "weights/mine", "config.json", "pytorch_model.bin")
    found = find_weights("mine", HUB, tmp_path / "weights")
    assert found == folder / "pytorch_model.bin"
    fill(folder, "model.safetensors")
    assert find_weights("mine", HUB, tmp_path / "weights") == folder / "model.safetensors"


def test_cache_is_found_at_the_pinned_revision_only(empty_cache: Path) -> None:
    fill(empty_cache / f"models--Somebody--model/snapshots/{'1' * 40}", "config.json", "model.safetensors")
    assert find_weights("mine", HUB, None) is None
    snapshot = fill(empty_cache / f"models--Somebody--model/snapshots/{HUB.revision}", "config.json")
    assert find_weights("mine", HUB, None) is None
    fill(snapshot, "pytorch_model.bin")
    assert obtain_weights("mine", HUB, None) == snapshot / "pytorch_model.bin"
    single = replace(FILE, url=None, hub_id=HUB.hub_id, revision=HUB.revision)
    assert find_weights("mine", single, None) is None
    fill(snapshot, "model.npz")
    assert find_weights("mine", single, None) == snapshot / "model.npz"


def test_an_incomplete_folder_is_not_passed_over(tmp_path: Path) -> None:
    fill(tmp_path / "mine", "config.json")
    with pytest.raises(WeightsError, match=r"mine lacks model\.safetensors or pytorch_model\.bin"):
        find_weights("mine", HUB, tmp_path)
    fill(tmp_path / "yours")
    with pytest.raises(WeightsError, match=r"lacks config\.json and model\.safetensors or"):
        find_weights("yours", HUB, tmp_path)


def test_nothing_is_asked_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was asked"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("the network was asked"))
    with pytest.raises(WeightsError, match="scivid data download --weights mine --weights-dir <folder>"):
        obtain_weights("mine", HUB, None)


def test_a_single_file_is_found_its_first_name_first(tmp_path: Path) -> None:
    assert find_weights("mine", FILE, None) is None
    assert find_weights("mine", FILE, tmp_path) is None
    for name in ("model.safetensors", "model.npz"):
        fill(tmp_path / "mine", name)
        assert obtain_weights("mine", FILE, tmp_path) == tmp_path / "mine" / name


def test_a_missing_single_file_says_all_there_is_to_know(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as error:
        obtain_weights("mine", FILE, tmp_path)
    assert str(error.value).splitlines() == [
        "the weights of mine are not here: model.npz (1.50 GB), by Somebody, licence CC-BY-4.0.",
        f"Looked in {tmp_path / 'mine'}.",
        f"Where there is a network: scivid data download --weights mine --weights-dir {tmp_path}",
        f"(from https://example.org/model.npz). Or put the files into {tmp_path / 'mine'} yourself.",
    ]
    with pytest.raises(WeightsError, match="SCIVID_WEIGHTS_DIR=<folder>"):
        obtain_weights("mine", FILE, None)
    with pytest.raises(WeightsError, match=r"(?s)never released by Somebody.*mine/model\.npz"):
        obtain_weights("mine", replace(FILE, url=None), tmp_path)


def test_the_one_pickle_of_any_name(tmp_path: Path) -> None:
    release = replace(FILE, any_pickle=True)
    path = fill(tmp_path / "mine", "other.pth") / "other.pth"
    assert find_weights("mine", FILE, tmp_path) is None
    assert find_weights("mine", release, tmp_path) == path
    fill(tmp_path / "mine", "another.bin")
    with pytest.raises(WeightsError, match=r"another\.bin, other\.pth: leave the one that is mine"):
        find_weights("mine", release, tmp_path)


def test_table_says_what_is_here(tmp_path: Path) -> None:
    fill(tmp_path / "videomae_b", "config.json", "model.safetensors")
    fill(tmp_path / "videomae_l", "config.json")
    rows = {row.info.name: row for row in backbone_table(tmp_path)}
    assert {name: row.weights for name, row in rows.items() if row.weights != "missing"} == {
        "resize": "none needed",
        "videomae_b": "here",
        "videomae_l": "incomplete",
        "videomae_random": "none needed",
        "videomae_random_s": "none needed",
        "videomae_random_b": "none needed",
    }
    assert rows["videomae_h"].weights == rows["4ds_e"].weights == "missing"
    assert rows["videomae_b"].info.grid.nbytes / 1e6 == pytest.approx(2.408448)


def test_weights_in_a_bucket_are_brought_here(bucket: Path, tmp_path: Path) -> None:
    there = place(f"s3://{bucket.name}/weights")
    fill(bucket / "weights/vit", "model.npz")
    fill(bucket / "weights/other", "model.npz")
    assert find_weights("vit", FILE, there) == there / "vit/model.npz"
    found = obtain_weights("vit", FILE, there)
    assert found.read_bytes() == b"model.npz"
    assert found.is_relative_to(tmp_path / "fetched")
    assert [path.parent.name for path in (tmp_path / "fetched").rglob("*.npz")] == ["vit"]
    with pytest.raises(WeightsError, match=f"(?s)weights of none are not here.*Looked in {there}/none"):
        obtain_weights("none", FILE, there)
    states = {row.info.name: row.weights for row in backbone_table(there)}
    assert states["videomae_b"] == "missing"
