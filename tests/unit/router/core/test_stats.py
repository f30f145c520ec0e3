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

    def test_counts_a_served_request_as_its_steps_would(self) -> None:
        at_once, in_steps = VersionStats(), VersionStats()

        at_once.served(200, 0.1, 0.02)
        in_steps.answered(200, 0.1)
        in_steps.model_s.add(0.02)

        assert at_once.codes == in_steps.codes
        for name in ("request_s", "model_s", "queue_s"):
            one, other = getattr(at_once, name), getattr(in_steps, name)
            assert (one.counts, one.total_s) == (other.counts, other.total_s)
