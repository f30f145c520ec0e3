"""A simulated pool: one queue in front of replicas with `slots` slots each, moved on from tick to tick.

A request takes the slot that is free first or, where replicas slow each other, the replica with the fewest inside.
Requests are assigned in the order of their arrival, but only those whose service begins before the present: what would
begin later stays queued, for the next decision may add slots. So a request costs one heap operation. Who decides and
what it costs is `simulation.py`'s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace

from orchestrator.core.scaling.distributions import Service, chance

NEVER = math.inf
NOBODY = (NEVER, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is simulated. `latency_s` is the objective: an answer after it is a violation, and so is a request shed
    after `queue_timeout_s` (None: twice the objective) in the queue.

    With `cores`, replicas share a host: more requests at a time than cores take longer in proportion. `batch_rise` is
    by how much of its own time each other request inside the same replica lengthens one: 0 for independent slots, 1
    for a model that computes one after the other, in between for batches. `first` replicas are there at the start.
    """

    service: Service
    slots: int = 1
    latency_s: float = 1.0
    percentile: float = 95.0
    cold_start_s: float = 5.0
    wake_s: float = 0.05
    queue_timeout_s: float | None = None
    tick_s: float = 2.0
    first: int = 1
    cores: float | None = None
    batch_rise: float = 0.0
    seed: int = 0

    @property
    def timeout_s(self) -> float:
        return 2 * self.latency_s if self.queue_timeout_s is None else self.queue_timeout_s


@dataclass(slots=True)
class Replica:
    """An awake replica, which began to cost at `began` and serves from `serves_from` on."""

    number: int
    began: float
    serves_from: float


@dataclass(slots=True)
class Tick:
    """What ended within one tick: the service times of what was answered, and how many were late."""

    services: list[float] = field(default_factory=list)
    late: int = 0


class Pool:
    """The replicas, their slots and the queue at one moment. `cost_s` are the seconds of awake replicas that ended."""

    def __init__(self, arrivals: Sequence[float], setup: Setup) -> None:
        self._arrivals, self._setup = arrivals, setup
        self._is_plain = setup.cores is None and setup.batch_rise == 0
        # Of each slot of a replica that takes requests: when it is free, and whose it is.
        self._slots: list[tuple[float, int]] = []
        self._leaving: list[float] = []
        self._under_way: list[tuple[float, int]] = []
        self._inside: dict[int, int] = {}
        self._ticks: dict[int, Tick] = {}
        self._numbers = 0
        self._next = 0
        self.replicas: dict[int, Replica] = {}
        self.arrived = 0
        self.shed = 0
        self.late = 0
        self.waited_s = 0.0
        self.worked_s = 0.0
        self.cost_s = 0.0

    @property
    def queued(self) -> int:
        return self.arrived - self._next

    @property
    def is_done(self) -> bool:
        return self._next >= len(self._arrivals)

    def ready(self, now: float) -> int:
        return sum(replica.serves_from <= now for replica in self.replicas.values())

    def in_flight(self, now: float) -> int:
        if not self._is_plain:
            return sum(ends > now for ends, _ in self._under_way)
        self._leaving = [ends for ends in self._leaving if ends > now]
        return len(self._busy(now)) + len(self._leaving)

    def tick(self, number: int) -> Tick:
        """What ended in a tick that has passed; it is forgotten."""
        return self._ticks.pop(number, None) or Tick()

    def add(self, count: int, now: float, delay_s: float) -> None:
        for _ in range(count):
            replica = Replica(self._numbers, now, now + delay_s)
            self._numbers += 1
            self.replicas[replica.number] = replica
            for _ in range(self._setup.slots):
                heappush(self._slots, (replica.serves_from, replica.number))

    def remove(self, count: int, now: float) -> list[float]:
        """Takes out `count` replicas: the youngest that start, then those with the least in flight. When each ends."""
        busy = dict.fromkeys(self.replicas, 0)
        last = dict.fromkeys(self.replicas, now)
        for ends, number in self._busy(now):
            busy[number] += 1
            last[number] = max(last[number], ends)

        def order(replica: Replica) -> tuple[bool, float, int]:
            is_ready = replica.serves_from <= now
            return is_ready, busy[replica.number] if is_ready else -replica.serves_from, -replica.number

        gone = {replica.number for replica in sorted(self.replicas.values(), key=order)[:count]}
        if self._is_plain:
            self._leaving += [ends for ends, number in self._busy(now) if number in gone]
        self._slots = [slot for slot in self._slots if slot[1] not in gone]
        heapify(self._slots)
        for number in gone:
            self.cost_s += last[number] - self.replicas.pop(number).began
        return [last[number] for number in gone]

    def _busy(self, now: float) -> list[tuple[float, int]]:
        """Ends of what the replicas work on, and whose it is. A slot of a replica that starts is taken by nobody."""
        taken = self._slots if self._is_plain else self._under_way
        serving = {number for number, replica in self.replicas.items() if replica.serves_from <= now}
        return [(ends, number) for ends, number in taken if ends > now and number in serving]

    def serve(self, now: float) -> None:
        """Everything that begins until `now`."""
        arrivals, slots, setup = self._arrivals, self._slots, self._setup
        values, timeout_s, seed = setup.service.values, setup.timeout_s, setup.seed
        count, is_plain = len(values), self._is_plain
        index, total = self._next, len(arrivals)
        while index < total and (arrived := arrivals[index]) <= now:
            free_at, number = (slots[0] if slots else NOBODY) if is_plain else self._place(arrived, now)
            begins = max(arrived, free_at)
            if begins - arrived >= timeout_s:
                if arrived + timeout_s > now:
                    break
                self.shed += 1
                self._tick(arrived + timeout_s).late += 1
                index += 1
                continue
            if begins > now:
                break
            service_s = values[int(chance(seed, index) * count)]
            if is_plain:
                heapreplace(slots, (begins + service_s, number))
            else:
                service_s *= self._slowed(number)
                heappush(self._under_way, (begins + service_s, number))
            self._end(arrived, begins, service_s)
            index += 1
        self._next = index
        while self.arrived < total and arrivals[self.arrived] <= now:
            self.arrived += 1

    def _end(self, arrived: float, begins: float, service_s: float) -> None:
        ends = begins + service_s
        tick = self._tick(ends)
        tick.services.append(service_s)
        if ends - arrived > self._setup.latency_s:
            tick.late += 1
            self.late += 1
        self.waited_s += begins - arrived
        self.worked_s += service_s

    def _place(self, arrived: float, now: float) -> tuple[float, int]:
        """Where replicas slow each other: the one with the fewest inside, as soon as one has a free slot."""
        at = arrived
        while at <= now:
            while self._under_way and self._under_way[0][0] <= at:
                self._inside[heappop(self._under_way)[1]] -= 1
            serving = [r for r in self.replicas.values() if r.serves_from <= at]
            fewest, number = min(((self._inside.get(r.number, 0), r.number) for r in serving), default=(0, -1))
            if number >= 0 and fewest < self._setup.slots:
                return at, number
            coming = [r.serves_from for r in self.replicas.values() if r.serves_from > at]
            ends = [self._under_way[0][0]] if self._under_way else []
            at = min(coming + ends, default=NEVER)
        return NOBODY

    def _tick(self, at: float) -> Tick:
        number = int(at / self._setup.tick_s)
        tick = self._ticks.get(number)
        if tick is None:
            tick = self._ticks[number] = Tick()
        return tick

    def _slowed(self, number: int) -> float:
        """How much longer a request takes for what else is being computed when it begins."""
        inside = self._inside.get(number, 0)
        self._inside[number] = inside + 1
        slower = 1.0 + self._setup.batch_rise * inside
        if self._setup.cores is not None:
            slower *= max(1.0, (len(self._under_way) + 1) / self._setup.cores)
        return slower
