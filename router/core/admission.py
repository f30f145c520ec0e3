"""Late binding: one queue per version, and a slot for the oldest live request as soon as one is free.

Owns the slots of a version's replicas and its queue. A request either reserves a slot at once, or waits in the queue,
or is refused; whoever reserved a slot gives it back exactly once with `release`, which hands it to the oldest waiter.
Requests never wait at a replica, so none is stuck behind a slow one while another is free. Deadlines are kept by the
caller: a waiter whose time is up calls `leave`. Pure and synchronous.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from router.contract import VersionRoute
from router.core import errors
from router.core.balance import Replica, reserve
from router.core.errors import Refusal
from router.core.retry import RetryBudget
from router.core.stats import VersionStats

# The first word of `VersionRoute.state` that promises a replica soon: worth waiting for within the deadline.
COMING: Final = frozenset(("starting", "waking", "pending", "loading", "warming"))


class Waiter(Protocol):
    """A request in the queue."""

    is_batch: bool  # yields to everything else

    @property
    def tried(self) -> Sequence[Replica]:
        """The replicas that failed it before."""

    def take_slot(self, replica: Replica) -> None:
        """Called once, when a slot was reserved for it. It is out of the queue then."""

    def refuse(self, refusal: Refusal) -> None:
        """Called once instead, when there will be no slot. It is out of the queue then."""


class Lane:
    """One version's way from clients to replicas: it lives from table to table, with its counters and its queue."""

    __slots__ = (
        "_batch", "_below", "_budget", "_live", "_retries", "in_flight", "model", "replicas", "route", "stats",
        "version", "version_bytes",
    )  # fmt: skip

    def __init__(self, model: str, version: str, below: Callable[[int], int]) -> None:
        self.model = model
        self.version = version
        self.version_bytes = version.encode()  # as it goes into every answer
        self.route = VersionRoute()
        self.replicas: tuple[Replica, ...] = ()
        self.in_flight = 0
        self.stats = VersionStats()
        self._budget = RetryBudget()
        self._below = below
        # An OrderedDict pops its oldest and loses any entry in constant time; a dict slows down as its front empties.
        self._live: OrderedDict[Waiter, None] = OrderedDict()
        self._batch: OrderedDict[Waiter, None] = OrderedDict()
        self._retries: OrderedDict[Waiter, None] = OrderedDict()  # waited before, so they come first

    @property
    def queued(self) -> int:
        return len(self._live) + len(self._batch) + len(self._retries)

    @property
    def is_coming(self) -> bool:
        """There is no replica yet, but the table promises one."""
        words = self.route.state.replace(":", " ").split(maxsplit=1)
        return bool(words) and words[0].lower() in COMING

    def reserve(self) -> Replica | None:
        """A slot at once, unless others wait already."""
        self._budget.save()
        if self._live or self._batch or self._retries:
            return None
        return self._reserve(())

    def enqueue(self, waiter: Waiter) -> Refusal | None:
        """Puts `waiter` at the end of the queue, or says why not."""
        if not self.replicas and not self.is_coming:
            self.stats.shed_one("not_ready")
            return errors.not_ready(self.model, self.version, self.route.state)
        if self.queued >= self.route.queue_max:
            self.stats.shed_one("queue_full")
            return errors.overloaded(self.model, self.version, self.route.queue_max)
        (self._batch if waiter.is_batch else self._live)[waiter] = None
        return None

    def retry(self, waiter: Waiter) -> bool:
        """Gives a slot of a replica that `waiter` did not try, now or when one is free.

        False when there is no such replica or the budget is spent. The slot held before must be released first.
        """
        if not self._has_untried(waiter) or not self._budget.spend():
            return False
        self._retries[waiter] = None
        self._serve_retries()
        return True

    def leave(self, waiter: Waiter) -> None:
        """Takes a waiter out: its client left or its time is up. Nothing happens when it does not wait."""
        for queue in (self._live, self._batch, self._retries):
            queue.pop(waiter, None)

    def release(self, replica: Replica) -> None:
        """Gives a slot back; the oldest waiter takes it, unless the replica left the table."""
        replica.in_flight -= 1
        self.in_flight -= 1
        if self._live or self._batch or self._retries:
            self._serve_waiters()

    def update(self, route: VersionRoute, replicas: tuple[Replica, ...]) -> None:
        """Takes over another table's settings and replicas, then serves or refuses those who wait."""
        self.route = route
        self.replicas = replicas
        for waiter in [waiter for waiter in self._retries if not self._has_untried(waiter)]:
            self._refuse(self._retries, waiter)
        if replicas:
            self._serve_waiters()
        elif not self.is_coming:
            for queue in (self._live, self._batch):
                for waiter in list(queue):
                    self._refuse(queue, waiter)

    def _reserve(self, tried: Sequence[Replica]) -> Replica | None:
        replica = reserve(self.replicas, self.route.concurrency, self._below, tried)
        if replica is not None:
            self.in_flight += 1
        return replica

    def _serve_waiters(self) -> None:
        """Hands free slots to waiters: retries, then live requests, then batch, each oldest first."""
        self._serve_retries()
        for queue in (self._live, self._batch):
            while queue:
                replica = self._reserve(())
                if replica is None:
                    return
                waiter, _ = queue.popitem(last=False)
                waiter.take_slot(replica)

    def _serve_retries(self) -> None:
        for waiter in list(self._retries):
            replica = self._reserve(waiter.tried)
            if replica is not None:
                self._retries.pop(waiter, None)
                waiter.take_slot(replica)

    def _has_untried(self, waiter: Waiter) -> bool:
        return any(replica not in waiter.tried for replica in self.replicas)

    def _refuse(self, queue: OrderedDict[Waiter, None], waiter: Waiter) -> None:
        queue.pop(waiter, None)
        self.stats.shed_one("not_ready")
        waiter.refuse(errors.not_ready(self.model, self.version, self.route.state))
