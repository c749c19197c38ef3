"""Tables: the same rows as CSV and Markdown."""

import csv
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import CallError
from featcache.manifest import load_manifest
from readouts.report.tables import comparison_of, csv_of, markdown_of, put_in_place
from readouts.results.table import SCHEMA, add_run
from readouts.results.task_results import TaskResults, load_task_results

MakeRow = Callable[..., dict[str, Any]]


@pytest.fixture
def tasks(make_row: MakeRow, tmp_path: Path) -> list[TaskResults]:
    for seed, val in enumerate((0.2, 0.4)):
        add_run(tmp_path, str(seed), [make_row(run=str(seed), seed=seed, val=val, backbone="a|b")])
    return load_task_results(tmp_path, [], load_manifest())[0]


def test_csv_has_every_row_and_column(tasks: list[TaskResults]) -> None:
    rows = list(csv.DictReader(StringIO(csv_of(tasks))))
    assert [(row["run"], row["val"], row["test"], row["val_low"], row["kind"]) for row in rows[:2]] == [
        ("0", "0.2", "", "", "frozen"),
        ("1", "0.4", "", "", "frozen"),
    ]
    assert [*rows[0]][: len(SCHEMA.names)] == SCHEMA.names
    published = tasks[0].published
    assert len(rows) == 2 + len(published.rows)
    assert not any(row[name] for row in rows[2:] for name in ("run", "val", "test"))
    said = (
        "backbone",
        "readout",
        "kind",
        "published",
        "published_split",
        "published_in",
        "published_protocol",
    )
    found = [tuple(row[name] for name in said) for row in rows[2:]]
    assert found[0] == ("4DS-e", "attention", "frozen", "0.894", "test", published.source, "")
    summary = published.rows[-1].source
    assert found[-1] == ("VideoPrism-g", "", "domain", "0.92", "unsaid", summary, "unsaid")


def test_markdown_has_configurations_and_published_rows(tasks: list[TaskResults]) -> None:
    text = markdown_of(tasks)
    assert "## Fly behaviour" in text
    assert "mAP, higher is better; 2 rows tried" in text
    assert "| a\\|b | linear | 0.300 ± 0.141 |  | 2 | 1 | exact |" in text
    source = tasks[0].published.source
    assert f"| Resize (published) | attention |  | 0.095 |  |  |  |  | {source} |" in text
    # A table for each group of what was trained.
    _, frozen, domain = text.split("### ")
    assert (frozen.splitlines()[0], domain.splitlines()[0]) == (
        "Readouts of frozen backbones",
        "Models of the domain",
    )
    assert ("0.925" in frozen, "0.920" in frozen, "0.920" in domain) == (True, False, True)
    for table in (frozen, domain):
        widths = {line.replace("\\|", "").count("|") for line in table.splitlines() if line.startswith("|")}
        assert len(widths) == 1


def test_ours_come_first(tasks: list[TaskResults]) -> None:
    first, second, *_ = comparison_of(tasks[0])
    assert (first["backbone"], first["seeds"], first["val"]) == ("a|b", 2, "0.300 ± 0.141")
    source = tasks[0].published.source
    assert second == {
        "group": "readouts of frozen backbones", "backbone": "4DS-e (published)", "readout": "attention",
        "test": "0.894", "published in": source,
    }  # fmt: skip


def test_a_folder_in_the_way_is_said(tmp_path: Path) -> None:
    put_in_place(tmp_path / "deep" / "a.csv", "x")
    assert (tmp_path / "deep" / "a.csv").read_text() == "x"
    with pytest.raises(CallError, match="name another file"):
        put_in_place(tmp_path / "deep", "x")


def test_a_full_disk_leaves_what_was_there_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_place(tmp_path / "page.html", "old")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*page\.html"):
        put_in_place(tmp_path / "page.html", "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("page.html", "old")]


def test_a_link_leads_to_the_file_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    for target in ("public/page.html", "public/deep/new.html"):
        link = tmp_path / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / target)
        put_in_place(link, "page")
        assert link.is_symlink()
        assert (tmp_path / target).read_text() == "page"
    assert [file.name for file in (tmp_path / "public/deep").iterdir()] == ["new.html"]


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE) as reader:
        put_in_place(tmp_path / "pipe", "table")
        assert reader.communicate(timeout=10)[0] == b"table"
    assert (tmp_path / "pipe").is_fifo()


def test_a_device_that_is_full_is_named() -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        put_in_place(Path("/dev/full"), "table")


def test_standard_output_is_written_to_in_its_turn(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from readouts.report.tables import put_in_place as put\n"
        "print('before'); put(Path('/dev/stdout'), 'table\\n'); print('after')"
    )
    with (tmp_path / "log").open("w") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "before\ntable\nafter\n"


def test_a_name_that_is_no_text_is_written_as_digits(tmp_path: Path) -> None:
    put_in_place(tmp_path / "a.csv", "video\udcff.mp4")
    assert (tmp_path / "a.csv").read_text() == "video\\udcff.mp4"
