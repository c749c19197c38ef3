"""The table of coverage can be made, and its columns are what they say."""

import pytest

from tests.benchmarks.coverage import SCORES, coverage


@pytest.mark.parametrize("name", SCORES)
def test_clusters_cover_more_often_than_clips(name: str) -> None:
    over_clusters, over_clips = coverage(SCORES[name], 20, n_sets=20, n=40)
    assert over_clips <= over_clusters
    assert over_clusters >= 0.7
