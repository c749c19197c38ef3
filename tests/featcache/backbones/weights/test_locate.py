"""Where weights are looked for, and what a user without them is told."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError

from featcache.backbones import backbone_table, load_backbone
from featcache.backbones.weights import locate as weights
from featcache.backbones.weights.locate import HubWeights, file_digest, find_weights, obtain_weights
from featcache.errors import WeightsError

HUB = HubWeights(
    hub_id="Somebody/model",
    revision="0" * 40,
    owner="Somebody",
    licence="CC-BY-NC-4.0",
    commercial=False,
    n_bytes=377_000_000,
)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache of our own, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
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
        "config.json and model.safetensors (377 MB) of MCG-NJU/videomae-base",
        "by the Multimedia Computing Group of Nanjing University",
        "licence CC-BY-NC-4.0, not for commercial use",
        f"the folder {tmp_path / 'weights/videomae_b'} and in the Hugging Face cache {tmp_path / 'hub'}",
        "HF_HUB_OFFLINE is set",
        f"scivid data download --weights videomae_b --weights-dir {tmp_path / 'weights'}\n",
        "pytorch_model.bin",
    ):
        assert part in message
    with pytest.raises(WeightsError, match=r"(?s)2\.53 GB.*SCIVID_WEIGHTS_DIR"):
        load_backbone("videomae_h").architecture()


def test_what_nobody_may_fetch_for_you_says_how_to_ask(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as error:
        load_backbone("dinov3_b", tmp_path).weights_digest()
    asked = "Accept the licence at https://huggingface.co/facebook/dinov3-vitb16-pretrain-lvd1689m "
    assert asked in str(error.value)
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
    assert found is not None and found.weights == folder / "pytorch_model.bin"
    fill(folder, "model.safetensors")
    found = find_weights("mine", HUB, tmp_path / "weights")
    assert found is not None and found.weights == folder / "model.safetensors"


def test_cache_is_found_at_the_pinned_revision_only(empty_cache: Path) -> None:
    fill(empty_cache / f"models--Somebody--model/snapshots/{'1' * 40}", "config.json", "model.safetensors")
    assert find_weights("mine", HUB, None) is None
    snapshot = fill(empty_cache / f"models--Somebody--model/snapshots/{HUB.revision}", "config.json")
    assert find_weights("mine", HUB, None) is None
    fill(snapshot, "pytorch_model.bin")
    found = obtain_weights("mine", HUB, None)
    assert (found.config, found.weights) == (snapshot / "config.json", snapshot / "pytorch_model.bin")


def test_an_incomplete_folder_is_not_passed_over(tmp_path: Path) -> None:
    fill(tmp_path / "mine", "config.json")
    with pytest.raises(WeightsError, match=r"mine lacks model\.safetensors or pytorch_model\.bin"):
        find_weights("mine", HUB, tmp_path)
    fill(tmp_path / "yours")
    with pytest.raises(WeightsError, match=r"lacks config\.json and model\.safetensors or"):
        find_weights("yours", HUB, tmp_path)


def test_no_network_is_one_question_and_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def nobody(url: str, **_: Any) -> None:
        asked.append(url)
        raise ConnectionError("Name or service not known\nand a page more")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights, "get_hf_file_metadata", nobody)
    monkeypatch.setattr(weights, "hf_hub_download", lambda *_, **__: pytest.fail("asked again"))
    with pytest.raises(WeightsError, match=r"the hub gave no answer \(Name or service not known\)"):
        obtain_weights("mine", HUB, None)
    assert len(asked) == 1


def test_download_takes_the_pinned_revision_and_the_file_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taken: list[tuple[str, str, str]] = []

    def no_such_file(url: str, **_: Any) -> None:
        raise EntryNotFoundError(f"404: {url}")

    def download(hub_id: str, file: str, *, revision: str) -> str:
        taken.append((hub_id, file, revision))
        return str(tmp_path / file)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights, "get_hf_file_metadata", no_such_file)
    monkeypatch.setattr(weights, "hf_hub_download", download)
    assert obtain_weights("mine", HUB, None).weights == tmp_path / "pytorch_model.bin"
    assert taken == [(HUB.hub_id, name, HUB.revision) for name in ("config.json", "pytorch_model.bin")]


def test_digest_of_bytes_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = fill(tmp_path, "model.safetensors") / "model.safetensors"
    reads: list[object] = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda f, name: reads.append(f) or digest(f, name))
    expected = hashlib.sha256(b"model.safetensors").hexdigest()
    assert file_digest(file) == file_digest(file) == expected
    assert len(reads) == 1
    file.write_bytes(b"other, longer content")
    assert file_digest(file) == hashlib.sha256(b"other, longer content").hexdigest()


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
    assert rows["videomae_b"].mb_per_clip == pytest.approx(2.408448)
