"""What is told of this machine in words, and what is left of it when they travel."""

from pathlib import Path

import pytest

from featcache.sharing.private import places, without_places


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("/home/alice/data/a.bin: record 3 is cut short", "a.bin: record 3 is cut short"),
        ("cannot read '/mnt/Alice Smith/my data/a.mp4' (3/4 of it)", "cannot read 'a.mp4' (3/4 of it)"),
        (
            "scivid certify --data-dir /data/alice --cache-dir /data/alice/f",
            "scivid certify --data-dir ... --cache-dir ...",
        ),
        ("--weights-dir=~alice/weights/b --steps 2", "--weights-dir=... --steps 2"),
        ("file:///home/alice/a.bin", "file://a.bin"),
        ("/home/alice/x.csv and /home/alice/y.csv differ", "x.csv and y.csv differ"),
        # What leads nowhere here stays.
        ("https://example.org/flies/a.bin", "https://example.org/flies/a.bin"),
        ("gs://scivid/full/stir", "gs://scivid/full/stir"),
        ("train/a.bin has 3/4 frames and/or none", "train/a.bin has 3/4 frames and/or none"),
        ("9 m/s/K", "9 m/s/K"),
    ],
)
def test_of_a_path_a_name_is_left(said: str, left: str) -> None:
    assert without_places(said) == left
    assert places([said]) == ([said] if said != left else [])


def test_the_home_folder_is_known_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/alice"))
    assert without_places("the disk of /alice is full") == "the disk of ~ is full"
    assert without_places("/alicante is another") == "/alicante is another"


def test_all_of_a_document_but_its_keys() -> None:
    before = {
        "a": [{"b": "/x/y/z.bin"}, 3, None, True, 0.5],
        "resumed_with": [{"clip_list": {"path": "/x/y"}}],
    }
    assert without_places(before) == {
        "a": [{"b": "z.bin"}, 3, None, True, 0.5],
        "resumed_with": [{"clip_list": {"path": ""}}],
    }
    assert before["resumed_with"] == [{"clip_list": {"path": "/x/y"}}]
