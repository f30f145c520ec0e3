"""The referee's simulator: one version's replicas behind a gateway, event by event, under any policy.

It shares nothing with `orchestrator/core/scaling/simulation.py`, which is held to it in the tests. What it does:

- one central queue, late binding: a request gets the slot of the replica with the lowest id that has one free
- a replica is `slots` independent slots; service times are drawn once and the same for every policy
- a replica asked for at t serves from t + cold × U(0.85, 1.15) and costs from t; scaling down cancels those that start
  (the youngest first), then drains those with the least in flight, which cost until their last request ends
- a request that waited `timeout` is shed
- each `TICK_S` the policy sees an `Obs` and answers with a number of replicas
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TICK_S = 2.0
# Latencies that the policy sees are of the last half minute; the first two minutes of a run do not count.
LATENCY_WINDOW_S = 30.0
WARM_UP_S = 120.0
MOST_REPLICAS = 400


@dataclass(slots=True)
class Obs:
    """What a policy sees: counts since the last tick, levels now, the exact service times, and the setting."""

    t: float
    dt: float
    arrivals: int
    sheds: int
    done: int
    viol: int
    inflight: int
    queued: int
    conc: float
    p50: float | None
    p95: float | None
    n_lat: int
    mean_s: float
    scv_s: float
    p95_s: float
    ready: int
    starting: int
    cold: float
    c: int
    slo: float
    oldest_wait: float


class Policy(Protocol):
    def decide(self, obs: Obs, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """`violations` in percent of the requests after the warm-up, without those whose own service time is beyond the
    objective; `cost` and `work` in replica-seconds."""

    violations: float
    shed: float
    cost: float
    work: float
    actions: int
    wait_p95_s: float


@dataclass(slots=True)
class _Replica:
    id: int
    born: float
    ready_at: float
    in_flight: int = 0
    is_ready: bool = False
    is_draining: bool = False


class Simulator:
    """One run. Call `run` once."""

    def __init__(
        self,
        arrivals: Floats,
        services: Floats,
        *,
        slots: int,
        slo_s: float,
        cold_s: float,
        first: int,
        seed: int,
        lag: int,
    ) -> None:
        self._arrivals: list[float] = arrivals.tolist()
        self._services: list[float] = services.tolist()
        self._slots, self._slo_s, self._cold_s, self._lag = slots, slo_s, cold_s, lag
        self._timeout_s = 2 * slo_s
        self._rng = np.random.default_rng(seed + 7)
        self._mean_s = float(services.mean())
        self._scv = float(services.std() / services.mean()) ** 2
        self._p95_s = float(np.percentile(services, 95))
        self._replicas: dict[int, _Replica] = {}
        self._ids = 0
        self._free: list[int] = []
        self._ending: list[tuple[float, int, int]] = []
        self._starting: list[tuple[float, int]] = []
        self._queue: deque[int] = deque()
        self._recent: deque[tuple[float, float]] = deque()
        self._waits = np.zeros(len(arrivals))
        self._latencies = np.full(len(arrivals), np.inf)
        self._late: deque[Obs] = deque()
        self._in_flight = self._ready = self._coming = self._actions = 0
        self._cost = self._area = self._last = 0.0
        self._arrived = self._shed = self._done = self._violated = 0
        for _ in range(first):
            self._add(0.0, is_warm=True)

    def run(self, policy: Policy) -> Outcome:
        arrivals, index, tick = self._arrivals, 0, TICK_S
        never = math.inf
        while index < len(arrivals) or self._ending or self._queue:
            arrival = arrivals[index] if index < len(arrivals) else never
            ending = self._ending[0][0] if self._ending else never
            starting = self._starting[0][0] if self._starting else never
            now = min(arrival, ending, starting, tick)
            self._area += (self._in_flight + len(self._queue)) * (now - self._last)
            self._last = now
            if now == ending:
                self._end(now)
            elif now == arrival:
                self._arrived += 1
                self._queue.append(index)
                index += 1
                self._dispatch(now)
            elif now == starting:
                self._begin_serving(now)
            else:
                self._decide(policy, now)
                tick += TICK_S
        return self._outcome()

    def _add(self, now: float, is_warm: bool = False) -> None:
        ready_at = now if is_warm else now + self._cold_s * (0.85 + 0.3 * self._rng.random())
        replica = _Replica(self._ids, now, ready_at)
        self._ids += 1
        self._replicas[replica.id] = replica
        self._coming += 1
        if is_warm:
            self._make_ready(replica)
        else:
            heappush(self._starting, (ready_at, replica.id))

    def _make_ready(self, replica: _Replica) -> None:
        replica.is_ready = True
        self._coming -= 1
        self._ready += 1
        for _ in range(self._slots):
            heappush(self._free, replica.id)

    def _begin_serving(self, now: float) -> None:
        replica = self._replicas.get(heappop(self._starting)[1])
        if replica is not None:
            self._make_ready(replica)
            self._dispatch(now)

    def _remove(self, replica: _Replica, now: float) -> None:
        self._cost += now - replica.born
        del self._replicas[replica.id]

    def _end(self, now: float) -> None:
        _, number, index = heappop(self._ending)
        self._in_flight -= 1
        replica = self._replicas[number]
        replica.in_flight -= 1
        latency = now - self._arrivals[index]
        self._latencies[index] = latency
        self._recent.append((now, latency))
        self._done += 1
        self._violated += latency > self._slo_s
        if not replica.is_draining:
            heappush(self._free, number)
            self._dispatch(now)
        elif replica.in_flight == 0:
            self._remove(replica, now)

    def _dispatch(self, now: float) -> None:
        while self._queue:
            index = self._queue[0]
            if now - self._arrivals[index] >= self._timeout_s:
                self._give_up(self._queue.popleft())
                continue
            while self._free and not self._can_take(self._free[0]):
                heappop(self._free)
            if not self._free:
                return
            replica = self._replicas[heappop(self._free)]
            self._queue.popleft()
            replica.in_flight += 1
            self._in_flight += 1
            self._waits[index] = now - self._arrivals[index]
            heappush(self._ending, (now + self._services[index], replica.id, index))

    def _can_take(self, number: int) -> bool:
        replica = self._replicas.get(number)
        return replica is not None and not replica.is_draining

    def _give_up(self, index: int) -> None:
        self._waits[index] = self._timeout_s
        self._shed += 1
        self._violated += 1

    def _decide(self, policy: Policy, now: float) -> None:
        while self._queue and now - self._arrivals[self._queue[0]] >= self._timeout_s:
            self._give_up(self._queue.popleft())
        while self._recent and self._recent[0][0] < now - LATENCY_WINDOW_S:
            self._recent.popleft()
        want = policy.decide(self._delayed(self._observe(now)))
        self._go_to(max(1, min(MOST_REPLICAS, int(want))), now)

    def _observe(self, now: float) -> Obs:
        latencies = sorted(latency for _, latency in self._recent)
        count = len(latencies)
        obs = Obs(
            t=now,
            dt=TICK_S,
            arrivals=self._arrived,
            sheds=self._shed,
            done=self._done,
            viol=self._violated,
            inflight=self._in_flight,
            queued=len(self._queue),
            conc=self._area / TICK_S,
            p50=latencies[count // 2] if count else None,
            p95=latencies[min(count - 1, int(0.95 * count))] if count else None,
            n_lat=count,
            mean_s=self._mean_s,
            scv_s=self._scv,
            p95_s=self._p95_s,
            ready=self._ready,
            starting=self._coming,
            cold=self._cold_s,
            c=self._slots,
            slo=self._slo_s,
            oldest_wait=now - self._arrivals[self._queue[0]] if self._queue else 0.0,
        )
        self._arrived = self._shed = self._done = self._violated = 0
        self._area = 0.0
        return obs

    def _delayed(self, obs: Obs) -> Obs:
        """What was observed `lag` ticks ago, with the counts of replicas that are known without any signal."""
        if not self._lag:
            return obs
        self._late.append(obs)
        old = self._late.popleft() if len(self._late) > self._lag else self._late[0]
        late = Obs(*(getattr(old, name) for name in Obs.__slots__))
        late.t, late.ready, late.starting = obs.t, obs.ready, obs.starting
        return late

    def _go_to(self, want: int, now: float) -> None:
        there = self._ready + self._coming
        self._actions += want != there
        for _ in range(want - there):
            self._add(now)
        surplus = there - want
        if surplus <= 0:
            return
        coming = [r for r in self._replicas.values() if not r.is_ready]
        for replica in sorted(coming, key=lambda r: -r.ready_at)[:surplus]:
            self._coming -= 1
            surplus -= 1
            self._remove(replica, now)
        serving = [r for r in self._replicas.values() if r.is_ready and not r.is_draining]
        for replica in sorted(serving, key=lambda r: (r.in_flight, -r.id))[:surplus]:
            self._ready -= 1
            replica.is_draining = True
            if replica.in_flight == 0:
                self._remove(replica, now)

    def _outcome(self) -> Outcome:
        end = self._arrivals[-1] + 1.0
        until = min(self._last, end)
        for replica in self._replicas.values():
            self._cost += until - min(replica.born, until)
        counted = np.asarray(self._arrivals) >= WARM_UP_S
        latencies, services = self._latencies[counted], np.asarray(self._services)[counted]
        is_violated = ~(latencies <= self._slo_s) & (services <= self._slo_s)
        return Outcome(
            violations=100 * float(is_violated.mean()),
            shed=100 * float((~np.isfinite(latencies)).mean()),
            cost=self._cost,
            work=float(np.sum(self._services)) / self._slots,
            actions=self._actions,
            wait_p95_s=float(np.percentile(self._waits[counted], 95)),
        )
