"""Counters and histograms."""

from __future__ import annotations

from itertools import pairwise

from router.core.stats import BUCKETS_S, Histogram, VersionStats


class TestHistogram:
    def test_counts_into_the_first_bucket_that_is_not_below(self) -> None:
        histogram = Histogram()
        histogram.add(0.05)
        histogram.add(0.0500001)
        histogram.add(1000)

        assert histogram.counts[BUCKETS_S.index(0.05)] == 1
        assert histogram.counts[BUCKETS_S.index(0.05) + 1] == 1
        assert histogram.counts[-1] == 1

    def test_is_dense_where_objectives_lie(self) -> None:
        assert all(b / a <= 1.51 for a, b in pairwise(BUCKETS_S) if 0.001 <= a < 1)


class TestVersionStats:
    def test_counts_answers_by_status(self) -> None:
        stats = VersionStats()
        for status in (200, 200, 503):
            stats.answered(status, 0.1)

        assert stats.codes == {200: 2, 503: 1}
        assert sum(stats.request_s.counts) == 3
