"""YAML without its traps: every file is values or one message with its line, and none takes long."""

import os
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from featcache.errors import CallError
from featcache.manifest.loading import load_manifest, shipped_manifest
from featcache.manifest.yaml_text import MOST_BYTES, MOST_ENTRIES, read_yaml


def read(folder: Path, content: str | bytes) -> object:
    path = folder / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_yaml(path)


def nine_of_each(levels: int, entry: str) -> str:
    """Aliases of aliases: every level has nine times what stands below it."""
    names = [f"n{level}" for level in range(levels + 1)]
    lines = [f"{name}: &{name} {entry % ','.join([f'*{below}'] * 9)}" for below, name in pairwise(names)]
    return "\n".join(["n0: &n0 {x: 1}", *lines])


def test_keys_and_dates_are_texts_and_numbers_decimal(tmp_path: Path) -> None:
    text = """
2017: {yes: 1, 010: 2, 2018-01-02: 3, ~: 4}
date: 2018-01-02
octal: 010
hours: 1:30
grouped: 1_000
numbers: [12, -3, 0, 1.5, 1e3, .5, +7]
others: [true, null, ~, "12", 1979-01-02T00]
empty:
"""
    assert read(tmp_path, text) == {
        "2017": {"yes": 1, "010": 2, "2018-01-02": 3, "~": 4},
        "date": "2018-01-02",
        "octal": "010",
        "hours": "1:30",
        "grouped": "1_000",
        "numbers": [12, -3, 0, 1.5, 1000.0, 0.5, 7],
        "others": [True, None, None, "12", "1979-01-02T00"],
        "empty": None,
    }


def test_aliases_and_merges_are_what_they_were(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: [2]}\nb: *a\nc: {<<: *a, x: 3}\nd: {<<: [*a, {z: 4}]}\ne: {<<: *a}"
    a = {"x": 1, "y": [2]}
    assert read(tmp_path, text) == {"a": a, "b": a, "c": a | {"x": 3}, "d": a | {"z": 4}, "e": a}


def test_a_mark_of_utf_8_is_no_part_of_the_text(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfa: \xc3\xa4") == {"a": "ä"}


KINDS: dict[str, tuple[str | bytes, str]] = {
    "latin-1": ("a: 1\nb: café".encode("latin-1"), "line 2: byte 0xe9 is not UTF-8: save the file as UTF-8"),
    "utf-16": ("a: 1".encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
    "a zero byte": ("a: 1\nb: \0", "line 2: is not YAML: character '.x00' is not allowed"),
    "all bytes": (bytes(range(256)), "line 2: byte 0x80 is not UTF-8"),
    "nested lists": ("a: " + "[" * 3_000, "line 1, column 35: is not YAML: nested more than 32 deep"),
    "nested keys": ("\n".join("  " * i + "a:" for i in range(300)), "line 32, .* nested more than 32 deep"),
    "a tab": ("a:\n\tb: 1", r"line 2, column 1: is not YAML: .*\\t.* Indent with spaces"),
    "a key twice": (
        "a: 1\nb: 2\na: 3",
        "line 3, column 1: is not YAML: the key 'a' stands twice, first in line 1",
    ),
    "a key twice in a line": ("c: {a: 1, a: 1}", "line 1, column 11: .* the key 'a' stands twice"),
    "a list as key": ("? [a]\n: 1", "line 1, column 3: .* a key must be a word"),
    "not closed": ("a: [1", "line 1, column 6: is not YAML"),
    "two documents": ("a: 1\n---\nb: 2", "line 2, column 1: .* found another document"),
    "code": ("a: !!python/object/apply:os.system [ls]", "line 1, .* could not determine a constructor"),
    "a bad number": ("a: !!int many", "line 1, .* cannot be read .invalid literal"),
    "no number": ("a: !!int", "line 1, .* cannot be read"),
    "a bad date": ("a: !!timestamp 2018-13-45", "line 1, .* cannot be read .month must be in"),
    "an alias of nothing": ("a: *b", "line 1, .* undefined alias 'b'"),
    "an alias of itself": ("a: &a [*a]", r"line 1, .* \*a stands within what it stands for"),
    "a bomb of lists": (nine_of_each(9, "[%s]"), f"line 5, .* more than {MOST_ENTRIES} values"),
    "a bomb of merges": (nine_of_each(9, "{<<: [%s]}"), f"line 5, .* more than {MOST_ENTRIES} values"),
    "many values": (f"[{'1,' * (MOST_ENTRIES + 1)}]", "line 1, .* more than"),
    "a large file": ("#" * (MOST_BYTES + 1), r"cannot be read \(longer than the 1,048,576 bytes"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_manifest_is_one_message(tmp_path: Path, kind: str) -> None:
    content, message = KINDS[kind]
    with pytest.raises(CallError, match=message) as problem:
        read(tmp_path, content)
    assert str(problem.value).startswith(str(tmp_path / "mine.yaml"))
    assert "\n" not in str(problem.value)
    assert len(str(problem.value)) < 400
    assert problem.value.exit_code == 2


def test_only_a_regular_file_is_a_manifest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "none.yaml", "."):
        with pytest.raises(CallError, match="cannot be read"):
            read_yaml(tmp_path / name)
    with pytest.raises(CallError, match=r"not a regular file"):
        read_yaml(Path("/dev/zero"))


def test_changed_bytes_never_crash(tmp_path: Path) -> None:
    """Bytes of the shipped manifest's first data set, each time one to three of them changed."""
    good = shipped_manifest().read_bytes().partition(b"\n  calms21:")[0] + b"\n"
    random, path, refused = Random(7), tmp_path / "mine.yaml", 0
    pieces = [
        b"\xe9",
        b"\0",
        b"\t",
        b"[",
        b"*a",
        b"&a ",
        b"!!int ",
        b"9" * 5000,
        b"2018-13-45",
        b": ",
        b".nan",
    ]
    for _ in range(25):
        content = bytearray(good)
        for _ in range(random.randint(1, 3)):
            place = random.randrange(len(content))
            content[place : place + random.randrange(4)] = random.choice(pieces)
        path.write_bytes(content)
        try:
            load_manifest(path)
        except CallError as problem:
            refused += 1
            assert str(problem).startswith(str(path)), problem
    assert refused > 10
