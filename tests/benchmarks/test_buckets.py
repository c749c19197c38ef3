"""The measurement runs, and a batch from the bucket is the one from the disk: of times nothing is said."""

from tests.benchmarks import buckets


def test_reading_from_a_bucket_is_measured() -> None:
    claims = buckets.measure(small=True)  # raises where a batch differs
    assert [claim.what.split(" over ")[0] for claim in claims] == [
        "speed of ours", "speed of batches of a training", "speed of what was kept on the disk"
    ]  # fmt: skip
    assert all(claim.ratio > 0 for claim in claims)
