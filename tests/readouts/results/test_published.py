"""Published numbers in groups: kinds, splits and tables are not mixed, of readouts the better one counts."""

import pytest

from featcache.manifest import Published, PublishedResult
from readouts.results.published import by_kind, figures_of, models_of

ROWS = (
    PublishedResult(backbone="a", readout="linear", value=0.25),
    PublishedResult(backbone="a", readout="attention", value=0.5),
    PublishedResult(backbone="a", value=0.75, split="unsaid", source="summary", protocol="unsaid"),
    PublishedResult(backbone="a", value=0.625, split="val", source="summary", protocol="its own"),
    PublishedResult(backbone="b", value=0.9, kind="domain"),
    PublishedResult(backbone="a", value=0.8, kind="fine-tuned"),
)
PUBLISHED = Published(source="table 1", metric="mAP", rows=ROWS)


def test_kinds_come_in_the_order_of_the_tables() -> None:
    assert {kind: len(rows) for kind, rows in by_kind(PUBLISHED).items()} == {
        "frozen": 4,
        "fine-tuned": 1,
        "domain": 1,
    }
    assert [*by_kind(PUBLISHED)] == ["frozen", "fine-tuned", "domain"]
    assert models_of([PUBLISHED, PUBLISHED], "frozen") == ["a"]


@pytest.mark.parametrize(
    ("role", "higher", "values"),
    [("test", True, ["0.500", "0.625", "0.750"]), ("val", False, ["0.625", "0.250", "0.750"])],
)
def test_every_table_and_split_is_a_figure(role: str, higher: bool, values: list[str]) -> None:
    found = figures_of("a", "frozen", PUBLISHED, role=role, higher_is_better=higher)
    assert [one.value for one in found] == values
    said = {one.value: (one.split, one.about) for one in found}
    assert said["0.750"] == ("split not said", "summary, protocol not said")
    assert said["0.625"] == ("val", "summary, protocol: its own")
    assert found[values.index("0.750")].is_elsewhere
