"""When a failed request may be sent again."""

from __future__ import annotations

import pytest

from router.contract import VersionRoute
from router.core.retry import BURST, RetryBudget, may_retry


class TestMayRetry:
    @pytest.mark.parametrize(
        ("was_sent", "is_whole", "idempotent", "allowed"),
        [
            (False, False, False, True),
            (False, True, True, True),
            (True, True, True, True),
            (True, True, False, False),
            (True, False, True, False),
        ],
    )
    def test_only_what_cannot_have_been_executed_or_is_idempotent_and_still_here(
        self, was_sent: bool, is_whole: bool, idempotent: bool, allowed: bool
    ) -> None:
        route = VersionRoute(idempotent=idempotent)

        assert may_retry(route, "reset", was_sent=was_sent, is_whole=is_whole, attempts=1) is allowed

    def test_not_more_often_than_the_version_allows(self) -> None:
        route = VersionRoute(retry_max=1)

        assert may_retry(route, "connect", was_sent=False, is_whole=True, attempts=1)
        assert not may_retry(route, "connect", was_sent=False, is_whole=True, attempts=2)

    def test_only_for_the_causes_that_the_version_names(self) -> None:
        assert not may_retry(VersionRoute(), "503", was_sent=True, is_whole=True, attempts=1)
        assert may_retry(VersionRoute(retry_on=("503",)), "503", was_sent=True, is_whole=True, attempts=1)


class TestRetryBudget:
    def test_starts_with_a_burst(self) -> None:
        budget = RetryBudget()

        assert sum(budget.spend(was_sent=True) for _ in range(100)) == BURST

    def test_covers_all_that_one_replica_holds(self) -> None:
        """A replica that dies takes all of its requests along at once."""
        budget = RetryBudget()
        budget.update(0.2, concurrency=32)

        assert sum(budget.spend(was_sent=True) for _ in range(100)) == 32

    def test_holds_no_more_than_before_after_the_same_table_again(self) -> None:
        budget = RetryBudget()
        for _ in range(10):
            budget.update(0.2, concurrency=32)

        assert sum(budget.spend(was_sent=True) for _ in range(100)) == 32

    def test_of_nothing_allows_nothing(self) -> None:
        budget = RetryBudget()
        budget.update(0.0, concurrency=1)

        assert not budget.spend(was_sent=True)
        assert not budget.spend(was_sent=False)

    def test_allows_one_retry_for_five_requests(self) -> None:
        budget = RetryBudget()
        while budget.spend(was_sent=True):
            pass

        retries = 0
        for _ in range(1000):
            budget.save()
            retries += budget.spend(was_sent=True)

        assert 195 <= retries <= 200

    def test_takes_nothing_for_what_was_never_sent(self) -> None:
        budget = RetryBudget()

        assert all(budget.spend(was_sent=False) for _ in range(100))
        assert sum(budget.spend(was_sent=True) for _ in range(100)) == BURST
