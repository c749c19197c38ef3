"""The measurement runs; that the stores are right is held beside the workers."""

import pytest

from tests.benchmarks import workers


@pytest.mark.slow
def test_one_worker_two_and_none_are_measured() -> None:
    claims = workers.measure(small=True)
    assert [claim.target for claim in claims] == [1.8, None]
    assert all(claim.ratio > 0 for claim in claims)
