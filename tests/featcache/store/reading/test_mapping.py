"""Files are mapped where nobody else can cut them."""

from pathlib import Path

import pytest

from featcache.buckets.path import place
from featcache.store.reading import mapping


@pytest.mark.parametrize(
    ("kind", "local"), [("ext4", True), ("nfs4", False), ("lustre", False), (None, False)]
)
def test_a_file_system_is_local_where_it_is_known_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str | None, local: bool
) -> None:
    """The innermost mount counts, and a blank in its name; what the system does not tell is not local."""
    folder = tmp_path / "a b" / "features"
    folder.mkdir(parents=True)
    escaped = str(folder.parent.resolve()).replace(" ", "\\040")
    lines = ["22 1 8:1 / / rw - xfs /dev/a rw", f"30 22 0:9 / {escaped} rw shared:1 - {kind} server:/x rw"]
    read_text = Path.read_text

    def told(path: Path, **options: str) -> str:
        if path != Path("/proc/self/mountinfo"):
            return read_text(path, **options)
        if kind is None:
            raise FileNotFoundError
        return "\n".join(lines)

    monkeypatch.setattr(mapping, "_LOCAL", {})
    monkeypatch.setattr(Path, "read_text", told)
    assert mapping.is_local(folder) is local


def test_nothing_in_a_bucket_is_mapped() -> None:
    assert not mapping.is_local(place("s3://bucket/features"))
