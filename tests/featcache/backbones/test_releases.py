"""Released files: where they are looked for, what is said without them, and keys that do not fit."""

from pathlib import Path

import pytest

from featcache.backbones.releases import ReleasedFile, check_keys
from featcache.errors import WeightsError

FILE = ReleasedFile(
    file="model.npz",
    url="https://example.org/model.npz",
    n_bytes=1_500_000_000,
    owner="Somebody",
    licence="CC-BY-4.0",
    also=("model.safetensors",),
)
WANTED = {"a": (2, 3), "b": (4,)}


def test_found_in_the_models_own_folder_its_first_name_first(tmp_path: Path) -> None:
    assert FILE.find("mine", None) is None
    assert FILE.find("mine", tmp_path) is None
    (tmp_path / "mine").mkdir()
    for name in ("model.safetensors", "model.npz"):
        (tmp_path / "mine" / name).touch()
        assert FILE.obtain("mine", tmp_path) == tmp_path / "mine" / name


def test_a_missing_file_says_all_there_is_to_know(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as error:
        FILE.obtain("mine", tmp_path)
    place = tmp_path / "mine/model.npz"
    assert str(error.value).splitlines() == [
        "the weights of mine are not here: model.npz (1.50 GB), by Somebody, licence CC-BY-4.0.",
        f"Looked for {place}.",
        f"Where there is a network: scivid data download --weights mine --weights-dir {tmp_path}",
        "(it comes from https://example.org/model.npz)",
    ]
    with pytest.raises(WeightsError, match="SCIVID_WEIGHTS_DIR=<folder>"):
        FILE.obtain("mine", None)


def test_keys_that_fit() -> None:
    check_keys({**WANTED, "decoder.x": (1,)}, WANTED, left_out=("decoder.",), origin="file")


def test_keys_that_do_not() -> None:
    found = {"a": (3, 2), "c": (1,), "decoder.x": (1,)}
    with pytest.raises(WeightsError) as error:
        check_keys(found, WANTED, left_out=("decoder.",), origin="file.npz")
    assert str(error.value) == (
        "file.npz does not fit its model: b missing; c unknown; a (3, 2) instead of (2, 3) of another shape. "
        "Use the files as they were released."
    )


def test_long_lists_are_cut_and_counted() -> None:
    with pytest.raises(WeightsError, match=r"0, 1, 2, 3, 4, 5 and 4 more missing"):
        check_keys({}, {str(number): (1,) for number in range(10)}, left_out=(), origin="file")
