"""Room on a disk, asked for before the first byte."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from featcache.errors import StoreError, WeightsError
from featcache.system.files import require_room, size


def test_what_does_not_fit_is_refused_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=2_000_000)

    monkeypatch.setattr("shutil.disk_usage", usage)
    folder = tmp_path / "not" / "there"
    require_room(folder, 2_000_000, what="features", way_out="go.")
    # In bytes, where two figures that read alike would explain nothing.
    with pytest.raises(
        StoreError, match=r"features needs 2,000,001 bytes more and .* has 2,000,000 free: .* or go\."
    ):
        require_room(folder, 2_000_001, what="features", way_out="go.")
    with pytest.raises(StoreError, match=r"features needs 2\.10 MB more and .* has 2\.00 MB free"):
        require_room(folder, 2_100_000, what="features", way_out="go.")
    with pytest.raises(WeightsError):
        require_room(folder, 3_000_000, what="w", way_out="", error=WeightsError)
    assert set(asked) == {tmp_path}


@pytest.mark.parametrize(
    ("n_bytes", "said"),
    [(0, "0 bytes"), (999_999, "999,999 bytes"), (10**6, "1.00 MB"), (5_996_585_000_000, "6.00 TB")],
)
def test_sizes_as_people_read_them(n_bytes: int, said: str) -> None:
    assert size(n_bytes) == said
