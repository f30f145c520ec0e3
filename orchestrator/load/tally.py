"""What is counted of a run: latencies from the moment a request was due, errors by kind, lateness of the generator.

Pure: moments are passed in, as nanoseconds of a monotonic clock. Percentiles are of the requests that were answered
with a status below 400; all others are errors, and none is forgotten: sent = answered + errors + unfinished.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestrator.load.histogram import Histogram

_CODE = re.compile(rb'"code"\s*:\s*"([A-Z][A-Z0-9_]{1,40})"')


@dataclass(slots=True)
class Second:
    """The requests that were due within one second. `most_ns`: the slowest of those answered."""

    sent: int = 0
    answered: int = 0
    failed: int = 0
    late: int = 0
    most_ns: int = 0


class Tally:
    """`slo_ns`: what is answered later, or not at all, counts as late."""

    def __init__(self, began_ns: int, slo_ns: int | None = None) -> None:
        self.began_ns = began_ns
        self.ended_ns = began_ns
        self.slo_ns = slo_ns
        self.sent = 0
        self.late = 0
        self.errors: dict[str, int] = {}
        self.latency = Histogram()
        self.lag = Histogram()
        self.seconds: list[Second] = []

    @property
    def answered(self) -> int:
        return self.latency.count

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    @property
    def unfinished(self) -> int:
        return self.sent - self.answered - self.failed

    @property
    def elapsed_s(self) -> float:
        return max(1e-9, (self.ended_ns - self.began_ns) / 1e9)

    def note_sent(self, due_ns: int, now_ns: int) -> None:
        self.sent += 1
        self.lag.add(now_ns - due_ns)
        self._second(due_ns).sent += 1

    def note_answer(self, due_ns: int, now_ns: int, status: int, body: bytes) -> None:
        if status >= 400:
            self.note_failure(due_ns, now_ns, named(status, body))
            return
        took_ns = now_ns - due_ns
        self.latency.add(took_ns)
        self.ended_ns = max(self.ended_ns, now_ns)
        second = self._second(due_ns)
        second.answered += 1
        if took_ns > second.most_ns:
            second.most_ns = took_ns
        if self.slo_ns is not None and took_ns > self.slo_ns:
            second.late += 1
            self.late += 1

    def note_failure(self, due_ns: int, now_ns: int, kind: str) -> None:
        self.errors[kind] = self.errors.get(kind, 0) + 1
        self.ended_ns = max(self.ended_ns, now_ns)
        second = self._second(due_ns)
        second.failed += 1
        second.late += 1
        self.late += 1

    def _second(self, due_ns: int) -> Second:
        index = max(0, due_ns - self.began_ns) // 1_000_000_000
        while index >= len(self.seconds):
            self.seconds.append(Second())
        return self.seconds[index]


def named(status: int, body: bytes) -> str:
    """An error's kind: the status, with the gateway's code where the body has one."""
    code = _CODE.search(body)
    return f"{status} {code[1].decode()}" if code else str(status)
