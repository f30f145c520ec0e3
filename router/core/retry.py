"""When a failed request may go to another replica.

Owns two rules. Safety: what was sent may have been executed, so only a version that declares itself idempotent is
retried then; what was never sent is retried always. Budget: what is sent again is at most a share of the live requests,
so that a failing fleet is not hit harder than it was. Both within what the version allows (`VersionRoute.retry_*`).
Pure.
"""

from __future__ import annotations

from typing import Final

from router.contract import VersionRoute

# A quiet version has saved nothing up, and yet its first failures deserve a retry.
BURST: Final = 5.0


class RetryBudget:
    """Every request saves a share of a retry; a retry spends one. Starts full."""

    __slots__ = ("_burst", "_saved", "share")

    def __init__(self) -> None:
        self._burst = BURST
        self._saved = BURST
        self.share = 0.2

    def update(self, share: float, concurrency: int) -> None:
        """As much is saved up as one replica holds: when it dies, all of its requests may be sent again at once."""
        self.share = share
        burst = max(BURST, float(concurrency))
        self._saved += burst - self._burst
        self._burst = burst

    def save(self) -> None:
        if self._saved < self._burst:
            self._saved += self.share

    def spend(self, *, was_sent: bool) -> bool:
        """Takes one retry out; False when there is none left, or none are allowed.

        What was not sent costs nothing: no replica has worked for it, so that sending it elsewhere adds no load.
        """
        if not self.share:
            return False
        if was_sent:
            if self._saved < 1.0:
                return False
            self._saved -= 1.0
        return True


def may_retry(route: VersionRoute, cause: str, *, was_sent: bool, is_whole: bool, attempts: int) -> bool:
    """`was_sent`: bytes of the request may have reached a replica. `is_whole`: its body is still here to send again."""
    if attempts > route.retry_max or cause not in route.retry_on:
        return False
    return not was_sent or (is_whole and route.idempotent)
