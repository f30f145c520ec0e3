"""When a failed request may go to another replica.

Owns two rules. Safety: what was sent may have been executed, so only a version that declares itself idempotent is
retried then; what was never sent is retried always. Budget: retries are at most a fifth of the live requests, so that a
failing fleet is not hit harder than it was. Pure.
"""

from __future__ import annotations

from typing import Final

BUDGET_RATIO: Final = 0.2
# A quiet version has saved nothing up, and yet its first failures deserve a retry.
BURST: Final = 5.0
MAX_RETRIES: Final = 2


class RetryBudget:
    """Every request saves a fifth of a retry; a retry spends one. Starts full."""

    __slots__ = ("_saved",)

    def __init__(self) -> None:
        self._saved = BURST

    def save(self) -> None:
        if self._saved < BURST:
            self._saved += BUDGET_RATIO

    def spend(self) -> bool:
        """Takes one retry out; False when there is none left."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True


def may_retry(*, was_sent: bool, is_whole: bool, idempotent: bool, attempts: int) -> bool:
    """`was_sent`: bytes of the request may have reached a replica. `is_whole`: its body is still here to send again."""
    if attempts > MAX_RETRIES:
        return False
    return not was_sent or (is_whole and idempotent)
