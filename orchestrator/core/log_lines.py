"""Lines of logs: what a structured one says, which ones somebody wants, and their order by time.

Pure. Gateway, control plane and model server write one JSON event a line with the same keys (docs/LOGS.md); what a
model prints is a line as it is. Lines of several sources come late and out of order: `Reordered` keeps each for a
moment.
"""

from __future__ import annotations

import datetime
import heapq
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

LEVELS: Final = ("debug", "info", "warning", "error")
_RANKS: Final = {**{level: rank for rank, level in enumerate(LEVELS)}, "critical": 3, "fatal": 3, "exception": 3}
# A line that says no level is somebody's print.
_PLAIN: Final = "info"

Line = TypeVar("Line")


@dataclass(frozen=True, slots=True)
class Said:
    """One line, read. `event` is "" for one that is no event of ours; `fields` are its other keys. `at`: its own time,
    None when it says none."""

    level: str = ""
    event: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    at: float | None = None


def read(text: str) -> Said:
    """Never raises: whatever is not an event is a plain line."""
    if not text.startswith("{"):
        return Said()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return Said()
    if not isinstance(found, dict):
        return Said()
    at = _time(found.pop("ts", None))
    if "event" not in found and {"method", "path", "status"} <= found.keys():  # of the access log
        level = "error" if isinstance(found["status"], int) and found["status"] >= 500 else _PLAIN
        event = " ".join(str(found.pop(key)) for key in ("method", "path", "status"))
        return Said(level, event, found, at)
    if not isinstance(found.get("event"), str):
        return Said()
    # "model failed", the last word of a model server, has no level.
    level = str(found.pop("level", "error"))
    return Said(level, found.pop("event"), found, at)


def _time(text: object) -> float | None:
    try:
        return datetime.datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asked for. `since` is a moment, `level` the least, `request_id` a request's or its trace's id."""

    since: float = 0.0
    level: str = ""
    pattern: re.Pattern[str] | None = None
    request_id: str = ""

    def takes(self, at: float, text: str, level: str, fields: dict[str, Any]) -> bool:
        if at < self.since or (self.level and _rank(level) < _RANKS[self.level]):
            return False
        if self.pattern is not None and not self.pattern.search(text):
            return False
        return not self.request_id or self._names_request(fields)

    def _names_request(self, fields: dict[str, Any]) -> bool:
        ids = (fields.get("request_id"), fields.get("trace_id"), *fields.get("request_ids", ()))
        return self.request_id in ids


def _rank(level: str) -> int:
    return _RANKS.get((level or _PLAIN).lower(), _RANKS[_PLAIN])


class Reordered(Generic[Line]):
    """Lines that come, each kept for `window_s` so that an older one which comes later is before it.

    What was given out is never taken back: a line that comes later than the window is out of order.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._heap: list[tuple[float, int, float, Line]] = []  # time, order of coming, when it came, line
        self._came = 0

    def push(self, at: float, line: Line, now: float) -> None:
        heapq.heappush(self._heap, (at, self._came, now, line))
        self._came += 1

    def ripe(self, now: float) -> Iterator[Line]:
        """Those that have waited long enough, and all that are older than one of them."""
        latest = max((at for at, _, came, _ in self._heap if came <= now - self._window_s), default=None)
        while latest is not None and self._heap and self._heap[0][0] <= latest:
            yield heapq.heappop(self._heap)[3]

    def rest(self) -> Iterator[Line]:
        while self._heap:
            yield heapq.heappop(self._heap)[3]
