"""A report says whether there is a way out, and which."""

from pathlib import Path

from featcache.store.validation.report import Report


def test_only_damaged_shards_are_to_be_removed() -> None:
    assert Report(path=Path("s"), problems=()).ok
    unreadable = Report(path=Path("s"), problems=("s/c.0 cannot be read (Input/output error)",))
    assert not unreadable.ok
    assert unreadable.way_out is None
    damaged = Report(path=Path("s"), problems=("s/c.0 ...",), damaged=(Path("s/c.0"), Path("s/c.1")))
    assert damaged.way_out is not None
    assert damaged.way_out.startswith("rm s/c.0 s/c.1\n")
