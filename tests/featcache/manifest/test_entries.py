"""Values of a YAML file by kind, and the one message for each wrong one, with its place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from featcache.errors import CallError
from featcache.manifest.entries import Node, overlay, read_entries

ENTRIES = {
    "name": "fly",
    "count": 3,
    "share": 0.5,
    "on": True,
    "nothing": None,
    "sizes": [1, 2],
    "mixed": [1, "two"],
    "splits": {"train": {"files": "a"}, "val": {"files": "b"}},
    "empty": {},
    "rows": [{"value": 1}, {"value": 2}],
}


@dataclass(frozen=True)
class Inner:
    name: str
    count: int = 1


@dataclass(frozen=True)
class Lists:
    mixed: tuple[int, ...]
    level: Literal["high", "low"] = "low"
    least: int = 0
    size: tuple[float, float] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    inner: Inner | None = None
    inners: Mapping[str, Inner] = field(default_factory=dict)


@pytest.fixture
def node() -> Node:
    return Node(ENTRIES, "mine.yaml", "tasks.fly")


def test_values_come_in_the_kind_that_was_asked_for(node: Node) -> None:
    assert node.value("name", str) == "fly"
    assert node.value("count", int) == 3
    assert node.value("share", float) == 0.5
    assert type(node.value("count", float)) is float
    assert node.choice("name", ("fly", "mouse")) == "fly"
    assert [row.value("value", int) for row in node.items("rows")] == [1, 2]
    assert node.items("absent") == []


def test_mappings_are_nodes_that_know_their_place(node: Node) -> None:
    children = node.children("splits")
    assert [name for name, _ in children] == ["train", "val"]
    train = children[0][1]
    assert (train.path, train.value("files", str)) == ("tasks.fly.splits.train", "a")
    assert node.child("absent") == Node({}, "mine.yaml", "tasks.fly.absent")
    assert Node({"tasks": {}}, "mine.yaml").child("tasks").path == "tasks"
    assert node.children("empty", optional=True) == node.children("absent", optional=True) == []


@pytest.mark.parametrize(
    ("key", "kind", "expected"),
    [
        ("name", int, "expected a whole number; found 'fly'"),
        ("share", int, "expected a whole number; found 0.5"),
        ("on", int, "expected a whole number; found True"),
        ("on", float, "expected a number; found True"),
        ("count", str, "expected text; found 3"),
        ("nothing", str, "expected text; found None"),
        ("absent", str, "expected text; found None"),
    ],
)
def test_a_value_of_another_kind_is_named_with_its_place(
    node: Node, key: str, kind: type, expected: str
) -> None:
    with pytest.raises(CallError, match=rf"^mine\.yaml, at tasks\.fly\.{key}: {expected}\.$"):
        node.value(key, kind)


def test_a_value_out_of_range_is_named_with_its_place(node: Node) -> None:
    with pytest.raises(CallError, match=r"at tasks\.fly\.name: expected one of mouse, rat; found 'fly'"):
        node.choice("name", ("mouse", "rat"))
    with pytest.raises(CallError, match=r"at count: expected a number of at least 1; found 0"):
        Node({"count": 0}, "mine.yaml").at_least("count", 1)
    with pytest.raises(CallError, match=r"at tasks\.fly\.mixed\[1\]: expected a whole number; found 'two'"):
        Node({"mixed": [1, "two"]}, "mine.yaml", "tasks.fly").build(Lists)
    with pytest.raises(CallError, match=r"at tasks\.fly\.name: expected a list; found 'fly'"):
        node.items("name")


@pytest.mark.parametrize("key", ["name", "empty", "absent", "sizes"])
def test_names_without_entries_are_refused(node: Node, key: str) -> None:
    with pytest.raises(CallError, match=rf"at tasks\.fly\.{key}: expected a mapping of names to entries"):
        node.children(key)


def test_a_key_nobody_reads_is_refused() -> None:
    node = Node({"spltis": {}}, "mine.yaml", "tasks.fly")
    with pytest.raises(CallError, match=r"tasks\.fly: unknown key 'spltis'\. Did you mean 'splits'\?"):
        node.keys("splits", "clip")
    with pytest.raises(CallError, match=r"unknown key 'spltis'\. Known are clip, kind\."):
        node.keys("clip", "kind")
    with pytest.raises(CallError, match="at the top: expected a mapping with some of clip; found 3"):
        Node(3, "mine.yaml").keys("clip")
    with pytest.raises(CallError, match=r"at the top: unknown key 5\. Known are clip"):
        Node({5: 1}, "mine.yaml").keys("clip")
    node.keys("spltis")


def test_only_a_file_with_a_mapping_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    with pytest.raises(CallError, match=r"mine\.yaml cannot be read \(No such file.*give a manifest that"):
        read_entries(file)
    for text, why in (("[1", "is not YAML"), ("- 1", "found list"), ("", "found NoneType")):
        file.write_text(text)
        with pytest.raises(CallError, match=rf"mine\.yaml.*{why}"):
            read_entries(file)
    file.write_text("a: {b: [1, ä]}", encoding="utf-8")
    assert read_entries(file) == {"a": {"b": [1, "ä"]}}


def test_an_overlay_goes_key_by_key_and_replaces_all_else_whole() -> None:
    under = {"a": {"b": 1, "c": [1, 2]}, "d": 4}
    over = {"a": {"c": [3], "e": 5}, "f": {"g": 6}}
    assert overlay(under, over) == {"a": {"b": 1, "c": [3], "e": 5}, "d": 4, "f": {"g": 6}}
    assert overlay(under, {"a": None}) == {"a": None, "d": 4}
    assert overlay({"a": 1}, {"a": {"b": 2}}) == {"a": {"b": 2}}
    assert under == {"a": {"b": 1, "c": [1, 2]}, "d": 4}


def test_a_dataclass_is_read_by_the_types_of_its_fields() -> None:
    assert Node({"mixed": [1, 2]}, "mine.yaml").build(Lists) == Lists((1, 2))
    entries = {
        "mixed": [],
        "level": "high",
        "least": 0,
        "size": [1, 2.5],
        "names": {"a": "b"},
        "inner": {"count": 2},
        "inners": {"c": {"count": None}},
    }
    with pytest.raises(CallError, match=r"at inner\.name: expected text; found None"):
        Node(entries, "mine.yaml").build(Lists)
    entries["inner"] = None
    assert Node(entries, "mine.yaml").build(Lists) == Lists(
        (), "high", 0, (1.0, 2.5), {"a": "b"}, None, {"c": Inner("c")}
    )
    for key, value, why in (
        ("level", "mid", "one of high, low"),
        ("least", -1, "at least 0"),
        ("names", 3, "a mapping"),
    ):
        with pytest.raises(CallError, match=rf"at {key}: expected .*{why}"):
            Node(entries | {key: value}, "mine.yaml").build(Lists)
    with pytest.raises(CallError, match=r"unknown key 'lest'\. Did you mean 'least'"):
        Node({"lest": 1}, "mine.yaml").build(Lists)
