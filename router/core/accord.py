"""What the processes of a gateway agree on about one version: how full its replicas are, and who has waited longest.

Owns one version's place in the shared page (`rows.py`). Nobody can count and look in one step there, so a process first
writes that it entered a replica, then looks at what all have written, and takes it back when that is too much: of two
that come at once, the later one to look sees both, so a replica never holds more than its limit. It can happen that
both take it back; both look again at once, and the one that waits longer goes first. Who frees a slot while another
process has an older waiter leaves it and rings that process's bell; should that one not come, the slot is taken after
`PATIENCE_S`. Pure. A lane of a gateway with one process never comes here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from router.core.balance import Replica
from router.core.rows import NO_SLOT, Rows

# How long a slot stays free for an older waiter of another process: many times the way of a wake-up (0.1 ms), and less
# than anybody notices when that process is stuck or cannot use the slot.
PATIENCE_S: Final = 0.01
# Added to the time of a batch request, so that it comes after all others.
BATCH_S: Final = 1e9


class Accord:
    """One version, as its processes share it."""

    __slots__ = ("_left_at", "_left_for", "_rows", "slot")

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.slot = NO_SLOT
        self._left_for = 0.0  # since when the one waits that a free slot was left for
        self._left_at = 0.0

    def enter(self, replica: Replica) -> bool:
        """Whether the request that was just counted against `replica` may go there; counts it back when not.

        `capacity` is afterwards what the other processes leave of the limit.
        """
        rows = self._rows
        rows.publish(replica.slot, replica.in_flight)
        replica.capacity = replica.limit - rows.elsewhere(replica.slot)
        if replica.in_flight <= replica.capacity:
            return True
        self.exit(replica)
        return False

    def exit(self, replica: Replica) -> None:
        """Counts a request back, or out."""
        replica.in_flight -= 1
        self.publish_load(replica)

    def publish_load(self, replica: Replica) -> None:
        self._rows.publish(replica.slot, replica.in_flight)

    def look(self, replicas: Iterable[Replica]) -> bool:
        """Looks at what the others have inside `replicas`; whether any has a free slot."""
        is_free = False
        for replica in replicas:
            replica.capacity = replica.limit - self._rows.elsewhere(replica.slot)
            is_free |= replica.in_flight < replica.capacity
        return is_free

    def publish_queue(self, queued: int, since: float) -> None:
        """How many wait here, and since when the next of them does; inf: nobody but retries."""
        self._rows.publish(self.slot, queued, since if since < 2 * BATCH_S else 0.0)

    def queued_elsewhere(self) -> int:
        return self._rows.elsewhere(self.slot)

    def must_yield(self, since: float, replicas: Iterable[Replica], now: float) -> bool:
        """Whether another process's request goes before one that waits `since` then. Wakes it if there is a slot."""
        theirs, number = self._rows.oldest_elsewhere(self.slot)
        if theirs >= since:
            return False
        if not self.look(replicas):
            return True
        if theirs != self._left_for:
            self._left_for, self._left_at = theirs, now
        elif now - self._left_at > PATIENCE_S:
            return False
        self._rows.wake(number)
        return True

    def pass_on(self) -> None:
        """A slot is free and nobody waits here."""
        _, number = self._rows.oldest_elsewhere(self.slot)
        if number != NO_SLOT:
            self._rows.wake(number)
