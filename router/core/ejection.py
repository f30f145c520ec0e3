"""Passive health: what a replica's answers say of it, and how long it is left alone for that.

Owns one replica's `Health`. Failures in a row, weighed by how little doubt they leave, take it out; the time doubles
with every ejection soon after the last, and it comes back with a few requests first (slow start). Who must not be taken
out, because too few would be left, is decided by `admission.py`. Probing is the control plane's; draining is another
thing.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

# Five points in a row take a replica out. A refused connection, an answer that is not HTTP, or none to the question
# whether it is alive is proof; a reset may be one crashed worker of many; a 5xx may be the model's word on one request.
WEIGHT: Final = {"connect": 5, "invalid": 5, "silent": 5, "reset": 2, "timeout": 2, "5xx": 1}
LIMIT: Final = 5
FIRST_S: Final = 1.0
LONGEST_S: Final = 30.0
SLOW_START_S: Final = 5.0
# After this long without another ejection the next one is short again.
FORGIVEN_S: Final = 60.0

# Latency is an outlier above five times the others' median; below 50 ms the network and the scheduler decide.
SLOW_FACTOR: Final = 5.0
SLOW_FLOOR_S: Final = 0.05
SAMPLES: Final = 32
_SMOOTHING: Final = 0.1
# A deadline that passed in the model says something of the replica only if it was no impatient client's. A request
# that has no answer for so long, and for SLOW_FACTOR times what is usual, has the replica asked whether it is alive.
PATIENT_S: Final = 1.0


class Health:
    """What was seen of one replica. It starts healthy."""

    __slots__ = ("_points", "ejected_until", "ejections", "latency_s", "reason", "samples")

    def __init__(self) -> None:
        self._points = 0
        self.ejections = 0
        self.ejected_until = -inf
        self.reason = ""
        self.latency_s = 0.0  # smoothed, of answers
        self.samples = 0

    def succeed(self, seconds: float) -> bool:
        """Counts a good answer. True now and then: time to compare its latency with the others'."""
        self._points = 0
        self.samples += 1
        self.latency_s += (seconds - self.latency_s) * (_SMOOTHING if self.samples > 1 else 1.0)
        return self.samples % SAMPLES == 0

    def fail(self, kind: str) -> bool:
        """Counts a failure. True: enough of them in a row."""
        self._points += WEIGHT[kind]
        return self._points >= LIMIT

    def eject(self, reason: str, now: float) -> None:
        if now - self.ejected_until > FORGIVEN_S:
            self.ejections = 0
        self.ejections += 1
        self.ejected_until = now + min(LONGEST_S, FIRST_S * 2.0 ** (self.ejections - 1))
        self.reason = reason
        self._points = 0
        self.latency_s = 0.0
        self.samples = 0

    def forgive(self, now: float) -> None:
        """Ends the ejection, without a slow start: it is needed."""
        self.ejected_until = now - SLOW_START_S

    def is_known_silent(self, now: float) -> bool:
        """It is left alone because it did not answer when it was asked whether it is alive."""
        return self.reason == "silent" and now < self.ejected_until

    def patience_s(self) -> float:
        """How long a request may go without an answer before the replica is asked whether it is alive."""
        return max(PATIENT_S, SLOW_FACTOR * self.latency_s)

    def share(self, now: float) -> float:
        """How much of its concurrency it may be given: 0 ejected, 1 healthy, between them returning."""
        since = now - self.ejected_until
        if since < 0:
            return 0.0
        return min(1.0, since / SLOW_START_S)

    def is_slow_beside(self, others: Iterable[Health]) -> bool:
        known = sorted(other.latency_s for other in others if other.samples >= SAMPLES)
        if not known or self.samples < SAMPLES:
            return False
        return self.latency_s > max(SLOW_FLOOR_S, SLOW_FACTOR * known[len(known) // 2])


def is_certain(kind: str) -> bool:
    """Whether one failure of this kind is proof enough."""
    return WEIGHT.get(kind, 0) >= LIMIT
