"""What a release says of itself."""

from dataclasses import replace

import pytest

from featcache.backbones.release import Release

FILE = Release(owner="Somebody", licence="CC-BY-4.0", n_bytes=1_500_000_000, files=("m.npz", "m.safetensors"))
URL = "https://example.org/m.npz"


@pytest.mark.parametrize(
    ("change", "source", "public", "names"),
    [
        ({}, "not public", False, ("m.npz",)),
        ({"url": URL}, URL, True, ("m.npz",)),
        ({"hub_id": "A/b"}, "https://huggingface.co/A/b/resolve/main/m.npz", True, ("m.npz",)),
        (
            {"hub_id": "A/b", "config": True},
            "https://huggingface.co/A/b", True, ("config.json", "model.safetensors"),
        ),
        (
            {"hub_id": "A/b", "config": True, "sharded": True, "gated": True},
            "https://huggingface.co/A/b", False, ("config.json", "model.safetensors.index.json"),
        ),
    ],
)  # fmt: skip
def test_where_it_is(change: dict[str, object], source: str, public: bool, names: tuple[str, ...]) -> None:
    release = replace(FILE, **change)  # type: ignore[arg-type]
    assert (release.source, release.public, release.names) == (source, public, names)


def test_size_and_terms_for_people() -> None:
    assert (FILE.size, FILE.terms) == ("1.50 GB", "CC-BY-4.0")
    other = replace(FILE, n_bytes=377_000_000, licence="CC-BY-NC-4.0", commercial=False)
    assert (other.size, other.terms) == ("377 MB", "CC-BY-NC-4.0, not for commercial use")
