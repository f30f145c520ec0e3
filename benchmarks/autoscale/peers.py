"""The rules of other autoscalers, as their sources have them, to be judged beside the project's own.

Each has `decide(obs) -> replicas`, called each two seconds. Defaults are those of the systems.
"""

from __future__ import annotations

import math
from collections import deque

from benchmarks.autoscale.simulator import Obs


class Static:
    """A fixed count."""

    def __init__(self, count: int) -> None:
        self._count = count

    def decide(self, _obs: Obs) -> int:
        return self._count


class Hpa:
    """Kubernetes' HPA (autoscaling/v2) on p95 latency with the objective as its target: every 15 s the count in
    proportion, within a tolerance; at most the larger of twice and 4 more; down to the most of the last 300 s."""

    SYNC_S, TOLERANCE, STABLE_S = 15.0, 0.1, 300.0

    def __init__(self) -> None:
        self._next = 0.0
        self._recent: deque[tuple[float, int]] = deque()
        self._count: int | None = None

    def decide(self, obs: Obs) -> int:
        there = obs.ready + obs.starting
        if self._count is None:
            self._count = there
        if obs.t < self._next:
            return self._count
        self._next = obs.t + self.SYNC_S
        want = self._proportional(obs, there)
        self._recent.append((obs.t, want))
        while self._recent[0][0] < obs.t - self.STABLE_S:
            self._recent.popleft()
        if want < there:
            want = min(there, max(count for _, count in self._recent))
        self._count = max(1, min(want, max(2 * there, there + 4)))
        return self._count

    def _proportional(self, obs: Obs, there: int) -> int:
        if obs.p95 is None or not obs.ready:
            return there
        ratio = obs.p95 / obs.slo
        want = math.ceil(ratio * obs.ready) if abs(ratio - 1) > self.TOLERANCE else there
        return min(want, there) if ratio < 1 else want


class Kpa:
    """Knative's pod autoscaler on concurrency (in flight and queued): pkg/autoscaler/scaling/autoscaler.go with the
    defaults of config-autoscaler. Panics when the 6 s mean asks for twice what is ready, and then does not go down."""

    UTILISATION, STABLE_S, PANIC_S, PANIC_AT, MOST_UP, MOST_DOWN = 0.7, 60.0, 6.0, 2.0, 1000.0, 2.0

    def __init__(self) -> None:
        self._history: deque[tuple[float, float]] = deque()
        self._panicked_at: float | None = None
        self._most = 0

    def decide(self, obs: Obs) -> int:
        self._history.append((obs.t, obs.conc))
        while self._history[0][0] <= obs.t - self.STABLE_S:
            self._history.popleft()
        target = self.UTILISATION * obs.c
        ready = max(1, obs.ready)
        most, least = math.ceil(self.MOST_UP * ready), math.floor(ready / self.MOST_DOWN)
        stable = math.ceil(self._mean(-math.inf) / target)
        panic = math.ceil(self._mean(obs.t - self.PANIC_S) / target)
        if panic / ready >= self.PANIC_AT:
            self._panicked_at = obs.t
        elif self._panicked_at is not None and self._panicked_at + self.STABLE_S < obs.t:
            self._panicked_at, self._most = None, 0
        want = min(max(stable, least), most)
        if self._panicked_at is not None:
            self._most = want = max(self._most, want, min(max(panic, least), most))
        return max(1, want)

    def _mean(self, since: float) -> float:
        values = [value for t, value in self._history if t > since]
        return sum(values) / len(values)


class Ray:
    """Ray Serve's default policy: the 30 s mean of ongoing requests, pushed each 10 s, over a target of 2; acts when
    the same direction held for 30 s up, 600 s down."""

    TARGET, LOOK_BACK_S, PUSH_S, UP_DELAY_S, DOWN_DELAY_S = 2.0, 30.0, 10.0, 30.0, 600.0

    def __init__(self) -> None:
        self._history: deque[tuple[float, float]] = deque()
        self._pushed, self._next_push = 0.0, 0.0
        self._direction, self._since = 0, 0.0
        self._count: int | None = None

    def decide(self, obs: Obs) -> int:
        if self._count is None:
            self._count = obs.ready + obs.starting
        self._history.append((obs.t, obs.conc))
        while self._history[0][0] <= obs.t - self.LOOK_BACK_S:
            self._history.popleft()
        if obs.t >= self._next_push:
            self._pushed = sum(value for _, value in self._history) / len(self._history)
            self._next_push = obs.t + self.PUSH_S
        want = max(1, math.ceil(self._pushed / self.TARGET))
        direction = (want > self._count) - (want < self._count)
        if direction != self._direction:
            self._direction, self._since = direction, obs.t
        delay_s = self.UP_DELAY_S if direction > 0 else self.DOWN_DELAY_S
        if direction and obs.t - self._since >= delay_s:
            self._count, self._direction = want, 0
        return self._count
