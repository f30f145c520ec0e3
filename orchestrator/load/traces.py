"""Recorded arrivals from a file, as ascending seconds from the first one on. Pure but for reading the file.

Understood are: a CSV with an arrival a line (seconds, or a date and time, in the column `t_seconds`, `timestamp`,
`time` or `ts`, else in the first), the same without a header, counts per second (`second,requests`), and the gateway's
access log (one JSON object a line). Read `arrivals.py` for what is made of them.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from orchestrator.core.errors import UserError
from orchestrator.core.scaling.distributions import chance

FORMS = (
    "a line is an arrival (seconds, or a date and time), with the header t_seconds or without one; or second,requests; "
    "or the gateway's access log"
)
_TIME_COLUMNS = ("t_seconds", "timestamp", "time", "ts", "at")
_MOST_ARRIVALS = 50_000_000
_MOST_LINE_BYTES = 1 << 20


class TraceError(UserError):
    """The file is no trace; the message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Trace:
    """`times` ascend from 0. `grain_s`: within so many seconds the times were drawn, not recorded (0: all are real)."""

    name: str
    times: Sequence[float]
    grain_s: float = 0.0

    @property
    def length_s(self) -> float:
        return self.times[-1] if self.times else 0.0


def read(path: Path, *, model: str = "", seed: int = 0) -> Trace:
    """Raises `TraceError`. `model` chooses lines of an access log; "" takes all."""
    try:
        with path.open(encoding="utf-8", errors="strict", newline="") as lines:
            return parse(lines, str(path), model=model, seed=seed)
    except OSError as exc:
        raise TraceError(f"trace {str(path)!r}: {exc.strerror}; name a file that holds arrivals: {FORMS}") from exc
    except UnicodeDecodeError as exc:
        raise TraceError(f"trace {str(path)!r}: not UTF-8 text; a trace is text in which {FORMS}") from exc


def parse(lines: Iterable[str], name: str, *, model: str = "", seed: int = 0) -> Trace:
    """`read` for lines that are there already."""
    numbered = ((number, line.strip()) for number, line in enumerate(lines, 1))
    filled = ((number, line) for number, line in numbered if line and not line.startswith("#"))
    first = next(filled, None)
    if first is None:
        raise TraceError(f"trace {name!r}: there is no arrival in it; {FORMS}")
    rows = chain([first], filled)
    if first[1].startswith("{"):
        times = [each for number, line in rows for each in _of_log_line(name, number, line, model)]
        return _trace(name, times, "no request of this model is in the log" if model else "")
    header = _cells(first[1])
    if header[:2] == ["second", "requests"]:
        next(rows)
        return _trace(name, list(_of_counts(name, rows, seed)), grain_s=1.0)
    column, has_header = _time_column(header)
    if has_header:
        next(rows)
    return _trace(name, [_moment(name, number, _cell(name, number, line, column)) for number, line in rows])


def _trace(name: str, times: list[float], empty: str = "", grain_s: float = 0.0) -> Trace:
    if not times:
        raise TraceError(f"trace {name!r}: {empty or 'there is no arrival in it'}; {FORMS}")
    if len(times) > _MOST_ARRIVALS:
        raise TraceError(f"trace {name!r}: {len(times):,} arrivals; at most {_MOST_ARRIVALS:,} are read; cut it")
    times.sort()
    first = times[0]
    return Trace(name, [each - first for each in times], grain_s)


def _cells(line: str) -> list[str]:
    return [cell.strip().lower() for cell in next(csv.reader([line[:_MOST_LINE_BYTES]]))]


def _time_column(header: list[str]) -> tuple[int, bool]:
    """Where the times stand, and whether the line is a header at all: what is no moment is one."""
    named = next((header.index(each) for each in _TIME_COLUMNS if each in header), None)
    if named is not None:
        return named, True
    return 0, _seconds(header[0]) is None


def _cell(name: str, number: int, line: str, column: int) -> str:
    cells = _cells(line)
    if column >= len(cells):
        raise TraceError(f"{name}:{number}: {line[:60]!r}: there is no column {column + 1}; every line has the same")
    return cells[column]


def _moment(name: str, number: int, text: str) -> float:
    seconds = _seconds(text)
    if seconds is None:
        raise TraceError(f"{name}:{number}: {text[:60]!r}: neither seconds nor a date and time; {FORMS}")
    return seconds


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
        return seconds if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        # Python reads microseconds; recordings have up to nanoseconds.
        whole, point, fraction = text.upper().partition(".")
        digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))]
        zone = fraction[len(digits) :] or ("Z" if not _has_zone(whole) else "")
        at = datetime.fromisoformat(whole + zone if point else text.upper())
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return at.timestamp() + (float(f"0.{digits}") if point and digits else 0.0)


def _has_zone(whole: str) -> bool:
    clock = whole.partition("T")[2] or whole.partition(" ")[2]
    return any(each in clock for each in "+-Z")


def _of_counts(name: str, rows: Iterator[tuple[int, str]], seed: int) -> Iterator[float]:
    """A second's requests at random moments within it."""
    drawn = 0
    for number, line in rows:
        second = _moment(name, number, _cell(name, number, line, 0))
        text = _cell(name, number, line, 1)
        if not text.isdigit():
            raise TraceError(f"{name}:{number}: {text[:60]!r}: not a whole number of requests; {FORMS}")
        for _ in range(int(text)):
            yield second + chance(seed, drawn)
            drawn += 1


def _of_log_line(name: str, number: int, line: str, model: str) -> list[float]:
    """The arrival of one line of an access log, if it is a request of the model."""
    try:
        entry = json.loads(line)
        if model and entry.get("model") != model:
            return []
        return [_arrived(entry)]
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise TraceError(f"{name}:{number}: {line[:60]!r}: no line of the gateway's access log: {exc}") from exc


def _arrived(entry: dict[str, Any]) -> float:
    """The log is written at a request's end, and says how long all of it took."""
    return datetime.fromisoformat(entry["ts"]).timestamp() - float(entry.get("total_ms", 0.0)) / 1000
