"""Late binding: one queue per version, and a slot for whose turn it is as soon as one is free.

Owns the slots of a version's replicas and its queue. A request either reserves a slot at once, or waits in the queue,
or is refused; whoever reserved a slot gives it back exactly once with `release`, which hands it to the next waiter
(`queue.py` says who that is). Requests never wait at a replica, so none is stuck behind a slow one while another is
free. Deadlines are kept by the caller: a waiter whose time is up calls `leave`. Pure and synchronous.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from router.contract import VersionRoute
from router.core import errors
from router.core.accord import BATCH_S, Accord
from router.core.balance import Balancer, Replica, balancer, reserve, reserve_for
from router.core.ejection import is_certain
from router.core.errors import Refusal
from router.core.queue import WaitingRoom
from router.core.retry import RetryBudget
from router.core.rows import NO_SLOT, Rows, alone
from router.core.shadow import Copies, ShadowRule
from router.core.stats import Exemplar, VersionStats, bucket_of
from router.core.sticky import Sticky

# The first word of `VersionRoute.state` that promises a replica soon: worth waiting for within the deadline.
COMING: Final = frozenset(("asleep", "starting", "waking", "pending", "loading", "warming"))
# The one that comes when somebody says that it is asked for.
ASLEEP: Final = "asleep"

# A queue's length in seconds is predicted from so many requests on; each new one weighs a tenth.
ENOUGH: Final = 20
# A queue is never exactly as fast as predicted: who is let in should make it.
MARGIN: Final = 1.1
SMOOTHING: Final = 0.1


class Waiter(Protocol):
    """A request in the queue."""

    is_batch: bool  # yields to everything else
    deadline: float

    @property
    def caller(self) -> object:
        """The API key that it came with, None without: slots are shared out between them."""

    @property
    def tried(self) -> Sequence[Replica]:
        """The replicas that failed it before."""

    def wait_on(self, is_promised: bool) -> None:
        """All replicas of the new table failed it. Another is promised: it may wait as long as any other in the queue.
        None is: it waits a moment longer for a table that names one."""

    def take_slot(self, replica: Replica) -> None:
        """Called once, when a slot was reserved for it. It is out of the queue then."""

    def refuse(self, refusal: Refusal) -> None:
        """Called once instead, when there will be no slot. It is out of the queue then."""


class Lane:
    """One version's way from clients to replicas: it lives from table to table, with its counters and its queue."""

    __slots__ = (
        "_able", "_accord", "_balancer", "_below", "_budget", "_is_impaired", "_retries", "_room", "_rows", "_served",
        "_service_s", "_slots", "_wake", "copies", "exemplars", "in_flight", "model", "replicas", "route", "shadow",
        "stats", "sticky", "version", "version_bytes",
    )  # fmt: skip

    def __init__(
        self,
        model: str,
        version: str,
        below: Callable[[int], int],
        rows: Rows | None = None,
        wake: Callable[[Lane], object] = lambda _: None,
    ) -> None:
        """`wake` is called while it is asleep and somebody waits, at each one who comes."""
        self._rows = rows or alone()
        self._accord = Accord(self._rows)  # with the other processes, if there are any
        self.model = model
        self.version = version
        self.version_bytes = version.encode()  # as it goes into every answer
        self.route = VersionRoute()
        self.replicas: tuple[Replica, ...] = ()
        self.in_flight = 0
        self.stats = VersionStats()
        self.exemplars: dict[int, Exemplar] | None = None  # of `stats.request_s`, by bucket: of recorded traces
        self.sticky: Sticky | None = None  # how the model's callers are told apart, if they are
        self.shadow: ShadowRule | None = None  # where copies of its requests go, if they are copied
        self.copies: Copies | None = None  # those that came here, if the version is or was a shadow
        self._able: tuple[Replica, ...] = ()  # those that are not ejected, or all when there are no others
        self._slots = 0  # of those
        self._is_impaired = False  # some are ejected or returning: to be looked at again as time goes by
        self._budget = RetryBudget()
        self._below = below
        self._wake = wake
        self._balancer: Balancer | None = None  # None: the default way, which remembers nothing
        self._service_s = 0.0  # how long a request holds a slot, smoothed
        self._served = 0
        self._room: WaitingRoom[Waiter] = WaitingRoom()
        self._retries: OrderedDict[Waiter, None] = OrderedDict()  # waited before, so they come first

    @property
    def queued(self) -> int:
        return self._room.size + len(self._retries)

    def oldest_wait_s(self, now: float) -> float:
        """How long the one has waited that waits longest for its first slot; 0 when nobody does."""
        return max(0.0, now - self._room.oldest) if self._room.size else 0.0

    @property
    def is_coming(self) -> bool:
        """There is no replica yet, but the table promises one."""
        return self._state_word in COMING

    @property
    def is_asleep(self) -> bool:
        """There is no replica, and there will be one for whoever asks."""
        return not self.replicas and self._state_word == ASLEEP

    @property
    def queued_everywhere(self) -> int:
        """In all processes of the gateway."""
        return self.queued + (self._accord.queued_elsewhere() if self._rows.others else 0)

    def note_exemplar(self, trace_id: str, seconds: float, at: float) -> None:
        """The newest request of each bucket that one can look at."""
        if self.exemplars is None:
            self.exemplars = {}
        self.exemplars[bucket_of(seconds)] = Exemplar(trace_id, seconds, at)

    # requests

    def reserve(self, now: float, affinity: int | None = None) -> Replica | None:
        """A slot at once, unless others wait already: of the replica that a caller with an `affinity` keeps, if it can.

        Who has waited takes whichever slot is free.
        """
        self._budget.save()
        if self._is_impaired:
            self._refresh(now)
        if self._room.size or self._retries:
            return None
        if self._rows.others and self._accord.must_yield(now, self._able, now):
            return None
        return self._reserve((), now, affinity)

    def enqueue(self, waiter: Waiter, now: float) -> Refusal | None:
        """Puts `waiter` at the end of the queue, or says why not."""
        if not self.replicas and not self.is_coming:
            self.stats.shed_one("not_ready")
            return errors.not_ready(self.model, self.version, self.route.state)
        gives_way = None
        elsewhere = self._accord.queued_elsewhere() if self._rows.others else 0
        if self.queued + elsewhere >= self.route.queue_max:
            gives_way = self._room.gives_way_to(waiter)
            if gives_way is None:
                self.stats.shed_one("queue_full")
                return errors.overloaded(self.model, self.version, self.route.queue_max)
        wait_s, left_s = self._wait_s(self._room.ahead(waiter) + elsewhere), waiter.deadline - now
        if wait_s and (wait_s * MARGIN + self._service_s > left_s or wait_s * 1000 > self.route.queue_timeout_ms):
            self.stats.shed_one("deadline")
            left_s = min(left_s - self._service_s, self.route.queue_timeout_ms / 1000)
            return errors.cannot_make_it(self.model, self.version, wait_s, left_s)
        self._room.push(waiter, now)
        if gives_way is not None:
            self._room.remove(gives_way)
            self.stats.shed_one("fair_share")
            gives_way.refuse(errors.gave_way(self.model, self.version, self.route.queue_max))
        if not self.replicas and self.is_asleep:
            self._wake(self)
        if self._rows.others:
            # A slot may have been freed by one who did not see this waiter yet.
            self._publish()
            self._serve_waiters(now)
        return None

    def predicted_wait_s(self, is_batch: bool = False) -> float:
        """How long a request would wait for a slot behind all that wait now; 0: too little was seen to say."""
        return self._wait_s(self._room.size if is_batch else self._room.live)

    def may_retry(self, tried: Sequence[Replica], *, was_sent: bool) -> bool:
        """Takes a retry out of the budget, if there is a replica besides those `tried`."""
        return self._has_untried(tried) and self._budget.spend(was_sent=was_sent)

    def retry(self, waiter: Waiter, now: float) -> None:
        """Gives a slot of a replica that `waiter` did not try, now or when one is free, before all others."""
        if self._is_impaired:
            self._refresh(now)
        self._retries[waiter] = None
        self._serve_retries(now)
        self._publish()

    def park(self, waiter: Waiter) -> bool:
        """Keeps a request whose replicas all failed it for one that is still to come; False when there is no room.

        It costs no retry: it goes to a replica that the failure has nothing to do with, or to none.
        """
        if self.queued >= self.route.queue_max:
            return False
        self._retries[waiter] = None
        self._publish()
        return True

    def leave(self, waiter: Waiter) -> None:
        """Takes a waiter out: its client left or its time is up. Nothing happens when it does not wait."""
        if not self._room.remove(waiter):
            self._retries.pop(waiter, None)
        self._publish()

    def release(self, replica: Replica, now: float) -> None:
        """Gives a slot back; the oldest waiter takes it, unless the replica left the table."""
        replica.in_flight -= 1
        self.in_flight -= 1
        if self._rows.others:
            self._accord.publish_load(replica)
            if not self._room.size:
                self._accord.pass_on()
        if self._room.size or self._retries:
            if self._is_impaired:
                self._refresh(now)
            self._serve_waiters(now)
        if self.copies is not None:
            self.copies.serve(self, now)

    # copies: they hold slots, and count for nothing else

    def reserve_for_copy(self, now: float) -> Replica | None:
        """A slot that no request waits for, to be given back with `release_copy`."""
        replica = self.reserve(now)
        if replica is not None:
            self.in_flight -= 1
        return replica

    def release_copy(self, replica: Replica, now: float) -> None:
        self.in_flight += 1
        self.release(replica, now)

    def look(self, now: float) -> None:
        """Serves who waits by what the other processes have written since."""
        if self._is_impaired:
            self._refresh(now)
        self._serve_waiters(now)

    # what was seen of replicas

    def served(self, held_s: float) -> None:
        """A request held its slot for so long until its answer was complete."""
        self._served += 1
        self._service_s += (held_s - self._service_s) * (SMOOTHING if self._served > 1 else 1.0)

    def saw_answer(self, replica: Replica, status: int, seconds: float, now: float) -> None:
        """A replica answered after `seconds`."""
        if status >= 500:
            self.saw_failure(replica, "5xx", now)
            return
        if self._balancer is not None:
            self._balancer.saw(replica, seconds, now)
        if replica.health.succeed(seconds):
            others = [other.health for other in self._able if other is not replica]
            if replica.health.is_slow_beside(others):
                self._eject(replica, "latency", now)

    def saw_failure(self, replica: Replica, kind: str, now: float) -> None:
        """`kind` is one of `ejection.WEIGHT`."""
        if replica.health.fail(kind):
            self._eject(replica, kind, now)

    # tables

    def update(self, route: VersionRoute, replicas: tuple[Replica, ...], now: float) -> None:
        """Takes over another table's settings and replicas, then serves or refuses those who wait."""
        if route.balance != self.route.balance:
            self._balancer = balancer(route.balance, self._below)
        self.route = route
        self.replicas = replicas
        self._budget.update(route.retry_budget, route.concurrency)
        self._refresh(now)
        for waiter in [waiter for waiter in self._retries if not self._has_untried(waiter.tried)]:
            if replicas or self.is_coming:
                waiter.wait_on(is_promised=not replicas)
            else:
                self._refuse_not_ready(waiter)
        if replicas:
            self._serve_waiters(now)
            if self.copies is not None:
                self.copies.serve(self, now)
        elif self.is_asleep:
            if self.queued:
                self._wake(self)
        elif not self.is_coming:
            for waiter in list(self._room):
                self._refuse_not_ready(waiter)

    def meet(self, now: float) -> None:
        """Other processes are there, or gone: tells them who waits here, and looks anew at what there is to share."""
        if self._accord.slot == NO_SLOT and self._rows.others:
            self._accord.slot = self._rows.claim(f"version\0{self.model}\0{self.version}")
        self._refresh(now)
        self._serve_waiters(now)

    def give_up_place(self) -> None:
        """It is forgotten: its place among the processes is free."""
        self._rows.free(self._accord.slot)
        self._accord.slot = NO_SLOT

    @property
    def is_idle(self) -> bool:
        """Nothing of it is under way: no request, and no copy of one."""
        return not (self.in_flight or self.queued or (self.copies is not None and self.copies.alive))

    # steps

    @property
    def _state_word(self) -> str:
        words = self.route.state.replace(":", " ").split(maxsplit=1)
        return words[0].lower() if words else ""

    def _reserve(self, tried: Sequence[Replica], now: float, affinity: int | None = None) -> Replica | None:
        way = self._balancer
        if affinity is not None:
            replica = reserve_for(self._able, affinity)
        elif way is None:
            replica = reserve(self._able, self._below, tried)
        else:
            replica = way.reserve(self._able, tried, now)
        if self._rows.others:
            replica = self._agree_on(replica, lambda: self._choose(tried, now, affinity))
        if replica is not None:
            self.in_flight += 1
        return replica

    def _choose(self, tried: Sequence[Replica], now: float, affinity: int | None) -> Replica | None:
        """As `_reserve` does, which every request takes and which therefore spares itself this call."""
        if affinity is not None:
            return reserve_for(self._able, affinity)
        way = self._balancer
        return reserve(self._able, self._below, tried) if way is None else way.reserve(self._able, tried, now)

    def _agree_on(self, replica: Replica | None, choose: Callable[[], Replica | None]) -> Replica | None:
        """The replica that the other processes leave room in: `replica` or another choice, counted as it is."""
        for has_looked in (False, True):
            while replica is not None and not self._accord.enter(replica):
                replica = choose()
            if replica is not None or has_looked or not self._accord.look(self._able):
                break
            replica = choose()
        return replica

    def _must_yield(self, now: float) -> bool:
        since, is_batch = self._room.turn
        return self._accord.must_yield(since + BATCH_S if is_batch else since, self._able, now)

    def _publish(self) -> None:
        """Tells the other processes who waits here."""
        if not self._rows.others:
            return
        since, is_batch = self._room.turn
        self._accord.publish_queue(self.queued, since + BATCH_S if is_batch else since)
        self._rows.watch(self, is_waiting=self.queued > 0)

    def _eject(self, replica: Replica, reason: str, now: float) -> None:
        """Takes a replica out: never the last one, never more than half of them.

        Beyond that a certain failure takes the place of the one that would return first: what is known of that is old,
        and it may serve again by now.
        """
        if not self.route.eject or replica not in self._able:
            return
        out = [other for other in self.replicas if other is not replica and other.health.share(now) == 0.0]
        if len(out) + 1 > len(self.replicas) // 2:
            if not out or not is_certain(reason):
                return
            min(out, key=lambda other: other.health.ejected_until).health.forgive(now)
        replica.health.eject(reason, now)
        self.stats.ejected(reason)
        self._refresh(now)

    def _refresh(self, now: float) -> None:
        """Looks again at who is able, and how much each may be given."""
        concurrency = self.route.concurrency
        able = []
        self._is_impaired = False
        for replica in self.replicas:
            share = replica.health.share(now)
            self._is_impaired |= share < 1.0
            replica.limit = replica.capacity = concurrency if share >= 1.0 else max(1, int(concurrency * share))
            if share > 0.0:
                able.append(replica)
        self._able = tuple(able) or self.replicas
        self._slots = sum(replica.limit for replica in self._able)

    def _wait_s(self, ahead: int) -> float:
        """How long a request with so many before it will wait; 0: too little was seen to say."""
        if self._served < ENOUGH or not self._slots:
            return 0.0
        return (ahead + len(self._retries) + 1) * self._service_s / self._slots

    def _serve_waiters(self, now: float) -> None:
        """Hands free slots to waiters: retries, then live requests, then batch, each by turns between callers."""
        self._serve_retries(now)
        while self._room.size:
            if self._rows.others and self._must_yield(now):
                break
            replica = self._reserve((), now)
            if replica is None:
                break
            self._next(now).take_slot(replica)
        self._publish()

    def _next(self, now: float) -> Waiter:
        """Takes out whose turn it is. Under overload the oldest may have less time left than the model takes: it is
        refused, and its slot serves another in time."""
        needed_s = self._service_s if self._served >= ENOUGH else 0.0
        room = self._room
        waiter = room.pop()
        while waiter.deadline - now < needed_s and room.size:
            room.return_turn(waiter)
            self._refuse_too_late(waiter, waiter.deadline - now)
            waiter = room.pop()
        return waiter

    def _serve_retries(self, now: float) -> None:
        for waiter in list(self._retries):
            replica = self._reserve(waiter.tried, now)
            if replica is not None:
                self._retries.pop(waiter, None)
                waiter.take_slot(replica)

    def _has_untried(self, tried: Sequence[Replica]) -> bool:
        return any(replica not in tried for replica in self._able)

    def _refuse_too_late(self, waiter: Waiter, left_s: float) -> None:
        self.stats.shed_one("deadline")
        waiter.refuse(errors.too_late(self.model, self.version, left_s, self._service_s))

    def _refuse_not_ready(self, waiter: Waiter) -> None:
        self.leave(waiter)
        self.stats.shed_one("not_ready")
        waiter.refuse(errors.not_ready(self.model, self.version, self.route.state))
