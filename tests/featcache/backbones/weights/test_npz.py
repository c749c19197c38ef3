"""npz members as views of the file, and what is refused."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from featcache.backbones.weights.npz import npz_arrays
from featcache.errors import WeightsError

ARRAYS: dict[str, np.ndarray] = {
    "params/a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "params/b": np.array(2.5, np.float64),
    "params/c": np.asfortranarray(np.arange(6, dtype=np.float16).reshape(3, 2)),
    "params/empty": np.zeros((0, 4), np.float32),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_array_comes_back(tmp_path: Path, save: object) -> None:
    save(tmp_path / "a.npz", **ARRAYS)  # type: ignore[operator]
    found = npz_arrays(tmp_path / "a.npz")
    assert {name: array.shape for name, array in found.items()} == {
        name: array.shape for name, array in ARRAYS.items()
    }
    for name, array in ARRAYS.items():
        read = found[name].read()
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)


def test_stored_members_are_mapped_and_compressed_ones_are_not(tmp_path: Path) -> None:
    array = ARRAYS["params/a/kernel"]
    np.savez(tmp_path / "stored.npz", a=array)
    np.savez_compressed(tmp_path / "packed.npz", a=array)
    assert isinstance(npz_arrays(tmp_path / "stored.npz")["a"].read(), np.memmap)
    assert not isinstance(npz_arrays(tmp_path / "packed.npz")["a"].read(), np.memmap)


def test_writes_do_not_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **ARRAYS)  # type: ignore[arg-type]
    before = path.read_bytes()
    npz_arrays(path)["params/a/kernel"].read()[:] = 7
    assert path.read_bytes() == before


@pytest.mark.parametrize("array", [np.array([{}], object), np.arange(3), np.array(["a"]), np.zeros(2, "V2")])
def test_what_is_no_floating_point_array_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", x=array)
    with pytest.raises(WeightsError, match=r"a\.npz holds x\.npy of type"):
        npz_arrays(tmp_path / "a.npz")


def test_a_header_that_promises_more_than_the_member_holds(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.zeros((4, 4), np.float32))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x.npy", content.getvalue().replace(b"(4, 4)", b"(4, 9)"))
        file.writestr("y.npy", content.getvalue())
    with pytest.raises(ValueError, match=r"x\.npy is not as long as its header says"):
        npz_arrays(tmp_path / "a.npz")


def test_other_files_in_the_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match="magic"):
        npz_arrays(tmp_path / "a.npz")
