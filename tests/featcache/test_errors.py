"""Exit codes by class, as the command line uses them."""

import pytest

from featcache.errors import CallError, DataError, ScividError, StoreError, WeightsError


@pytest.mark.parametrize(
    ("kind", "code"), [(CallError, 2), (DataError, 1), (WeightsError, 1), (StoreError, 1), (ScividError, 1)]
)
def test_only_a_wrong_call_ends_with_2(kind: type[ScividError], code: int) -> None:
    assert kind("why").exit_code == code
    assert isinstance(kind("why"), ScividError)


def test_a_wrong_call_is_a_value_error_from_python() -> None:
    with pytest.raises(ValueError, match="why"):
        raise CallError("why")
