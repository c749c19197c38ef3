"""The measurement runs, and every reader gives the same tokens and labels: of times nothing is said."""

import pytest

from tests.benchmarks import reading
from tests.benchmarks.rivals import OWN_COPY, SAME_STORE
from tests.benchmarks.stores import SMALL


@pytest.mark.filterwarnings("ignore")  # of the rivals
def test_every_reader_gives_the_same_batches() -> None:
    claims = reading.measure(small=True)  # raises where a reader differs
    names = {claim.what.split(" / ")[0] for claim in claims}
    floors = {"memory copy", "bare preadv", "bare preadv + crc32c"}
    assert {*floors, "np.memmap", "np.take, threads", "torch.from_file", "zarr-python"} <= names
    assert names <= {"opened", "opened, a batch", *floors, *SAME_STORE, *OWN_COPY}


def test_a_reader_that_differs_is_refused(tmp_path) -> None:
    store = reading.write_store(tmp_path, SMALL)
    right = reading.ours(store, SMALL)

    def wrong(clips):
        drawn, tokens, labels = right(clips)
        return drawn, tokens + 1, labels

    with pytest.raises(AssertionError, match="wrong"):
        reading.refuse_differences({"ours": right, "wrong": wrong}, SMALL)
