"""Exit codes by class, as the command line uses them, and the phrases of messages."""

import pytest

from featcache.errors import (
    CallError,
    DataError,
    ScividError,
    StoreError,
    WeightsError,
    did_you_mean,
    few,
    listed,
)


@pytest.mark.parametrize(
    ("kind", "code"), [(CallError, 2), (DataError, 1), (WeightsError, 1), (StoreError, 1), (ScividError, 1)]
)
def test_only_a_wrong_call_ends_with_2(kind: type[ScividError], code: int) -> None:
    assert kind("why").exit_code == code
    assert isinstance(kind("why"), ScividError)


def test_a_wrong_call_is_a_value_error_from_python() -> None:
    with pytest.raises(ValueError, match="why"):
        raise CallError("why")


def test_a_few_of_many() -> None:
    assert few([]) == ""
    assert few("ab") == "a, b"
    assert few(range(7)) == "0, 1, 2, 3, 4 and 2 more"
    assert few(range(3), n=1) == "0 and 2 more"


def test_lines_stand_below_a_message() -> None:
    assert "differs:\n" + listed(["a: 1", "b: 2"]) == "differs:\n  a: 1\n  b: 2"


def test_what_resembles_a_name_is_offered() -> None:
    assert did_you_mean("flyvfly", {"flyvsfly": 1, "calms21": 2}) == " Did you mean 'flyvsfly'?"
    assert did_you_mean("x", ["flyvsfly"]) == ""
