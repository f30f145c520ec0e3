"""When a failed request may be sent again."""

from __future__ import annotations

import pytest

from router.core.retry import BURST, MAX_RETRIES, RetryBudget, may_retry


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
        assert may_retry(was_sent=was_sent, is_whole=is_whole, idempotent=idempotent, attempts=1) is allowed

    def test_not_for_ever(self) -> None:
        assert not may_retry(was_sent=False, is_whole=True, idempotent=True, attempts=MAX_RETRIES + 1)


class TestRetryBudget:
    def test_starts_with_a_burst(self) -> None:
        budget = RetryBudget()

        assert sum(budget.spend() for _ in range(100)) == BURST

    def test_allows_one_retry_for_five_requests(self) -> None:
        budget = RetryBudget()
        while budget.spend():
            pass

        retries = 0
        for _ in range(1000):
            budget.save()
            retries += budget.spend()

        assert 195 <= retries <= 200
