"""A timeline as text: columns of blocks for a terminal, of # where it has no Unicode. Pure: points in, lines out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.scaling.simulation import Point
from orchestrator.whatif.words import clock

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:#"
_LABEL = 9


@dataclass(frozen=True, slots=True)
class Column:
    """Some seconds of a timeline: requests per second, the share of them that was late, and the most replicas."""

    rate: float
    late: float
    ready: int
    standby: int


def columns(timeline: Sequence[Point], count: int) -> list[Column]:
    """The timeline in at most `count` columns of equal length."""
    if not timeline:
        return []
    size = max(1, math.ceil(len(timeline) / count))
    tick_s = timeline[0].at
    made = []
    for start in range(0, len(timeline), size):
        part = timeline[start : start + size]
        arrived, late = sum(p.arrivals for p in part), sum(p.late for p in part)
        made.append(
            Column(
                rate=arrived / (len(part) * tick_s),
                late=min(1.0, late / arrived) if arrived else float(late > 0),
                ready=max(p.ready for p in part),
                standby=max(p.standby for p in part),
            )
        )
    return made


def draw(timeline: Sequence[Point], *, width: int, height: int = 6, unicode: bool = True) -> list[str]:
    """Requests per second above, replicas below, between them where requests were late."""
    made = columns(timeline, max(10, width - _LABEL - 1))
    if not made:
        return []
    marks = _BLOCKS if unicode else _ASCII
    lines = ["requests/s", *_bars([each.rate for each in made], height, marks)]
    lines.append(f"{'late':>{_LABEL}} " + "".join(_late(each.late, marks) for each in made))
    lines += ["replicas ready", *_bars([float(each.ready) for each in made], height, marks)]
    if any(each.standby for each in made):
        lines.append(f"{'standby':>{_LABEL}} " + "".join(_digit(each.standby) for each in made))
    return [*lines, _axis(timeline[-1].at, len(made))]


def _bars(values: Sequence[float], height: int, marks: str) -> list[str]:
    top = max(values) or 1.0
    steps = len(marks) - 1
    lines = []
    for row in range(height - 1, -1, -1):
        fills = [min(steps, max(0, math.ceil(value / top * height * steps - row * steps))) for value in values]
        label = f"{top:.3g}" if row == height - 1 else "0" if row == 0 else ""
        lines.append(f"{label:>{_LABEL}} " + "".join(marks[fill] for fill in fills).rstrip())
    return lines


def _late(share: float, marks: str) -> str:
    """Nothing for none, the lowest block for any, a full one for all."""
    return marks[math.ceil(share * (len(marks) - 1))]


def _digit(count: int) -> str:
    return "·" if not count else str(count) if count < 10 else "+"


def _axis(length_s: float, count: int) -> str:
    left, right = "0", clock(length_s)
    return " " * (_LABEL + 1) + left + " " * max(1, count - len(left) - len(right)) + right
