"""What a run has to reach: `p99<100ms,errors<0.1%`. Read from text, held against a tally. Pure.

    limits = limit {"," limit}         limit = measure ("<" | "<=" | ">" | ">=") value
    measure = pN (p50, p99.9) | mean | min | max | lag | errors | late | rate
    value = number ("us" | "ms" | "s") of a length, number ["%"] of errors and late, number ["/s"] of rate

`lag` is the 99th percentile of how late requests left, `rate` the answers per second. What is unknown reaches nothing.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.core.errors import UserError
from orchestrator.load.tally import Tally

EXAMPLE = "p99<100ms,errors<0.1%"
_LENGTHS_S = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_NAMED = ("mean", "min", "max", "lag", "errors", "late", "rate")
_PERCENTILE = re.compile(r"p(\d+(?:\.\d+)?)")
_MEASURE = re.compile(r"[A-Za-z][\w.]*")
_COMPARISON = re.compile(r"<=|>=|<|>")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_UNIT = re.compile(r"[A-Za-zµ%/]*")
MEASURES = "a percentile such as p50 or p99.9, mean, min, max, lag, errors, late, rate"


class LimitError(UserError):
    """The text is no list of limits; the message says at which column and what may stand there."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One bound. `value` is in seconds, a count, a share from 0 to 1, or answers per second, by measure and unit."""

    text: str
    measure: str
    comparison: str
    value: float
    unit: str

    def verdict(self, tally: Tally) -> Verdict:
        seen = self._seen(tally)
        return Verdict(self.text, seen is not None and _COMPARE[self.comparison](seen, self.value), self._said(seen))

    def _seen(self, tally: Tally) -> float | None:
        if self.measure in ("errors", "late"):
            if self.measure == "late" and tally.slo_ns is None:
                return None
            count = tally.failed if self.measure == "errors" else tally.late
            return float(count) if self.unit != "%" else count / tally.sent if tally.sent else None
        if self.measure == "rate":
            return tally.answered / tally.elapsed_s
        if self.measure == "lag":
            return tally.lag.percentile_s(99)
        exact = {"mean": tally.latency.mean_s, "min": tally.latency.least_s, "max": tally.latency.most_s}
        if self.measure in exact:
            return exact[self.measure]
        return tally.latency.percentile_s(float(self.measure[1:]))

    def _said(self, seen: float | None) -> str:
        if seen is None:
            return "unknown: no objective was named (--slo)" if self.measure == "late" else "unknown: nothing answered"
        if self.measure in ("errors", "late"):
            return f"{seen:.4%}".replace("%", " %") if self.unit == "%" else f"{seen:.0f}"
        return f"{seen:.1f}/s" if self.measure == "rate" else f"{seen * 1000:.3f} ms"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a limit was kept, and what was seen, in words."""

    text: str
    ok: bool
    seen: str


def parse(text: str) -> tuple[Limit, ...]:
    """Raises `LimitError`."""
    reader = _Reader(text)
    limits = [reader.limit()]
    while not reader.is_at_end:
        reader.take(re.compile(","), "a comma, or nothing more")
        limits.append(reader.limit())
    return tuple(limits)


class _Reader:
    """The text and how far it was read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._skip()

    @property
    def is_at_end(self) -> bool:
        return self._at >= len(self._text)

    def limit(self) -> Limit:
        began = self._at
        measure = self._measure()
        comparison = self.take(_COMPARISON, "<, <=, > or >=")
        number = float(self.take(_NUMBER, "a number, such as 100"))
        at = self._at
        unit = self.take(_UNIT, "a unit")
        value = number * self._factor(measure, unit, at)
        return Limit(self._text[began : self._at].strip(), measure, comparison, value, unit)

    def take(self, pattern: re.Pattern[str], wanted: str) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._error(self._at, wanted)
        self._at = found.end()
        self._skip()
        return found[0]

    def _measure(self) -> str:
        at = self._at
        name = self.take(_MEASURE, MEASURES)
        percentile = _PERCENTILE.fullmatch(name)
        if (percentile and float(percentile[1]) <= 100) or name in (
            "mean",
            "min",
            "max",
            "lag",
            "errors",
            "late",
            "rate",
        ):
            return name
        self._at = at
        raise self._error(at, MEASURES)

    def _factor(self, measure: str, unit: str, at: int) -> float:
        if measure in ("errors", "late"):
            allowed = {"": 1.0, "%": 0.01}
        elif measure == "rate":
            allowed = {"": 1.0, "/s": 1.0}
        else:
            allowed = _LENGTHS_S
        if unit not in allowed:
            units = " or ".join(each or "nothing" for each in allowed if each != "µs")
            raise self._error(at, f"the unit of {measure}: {units}")
        return allowed[unit]

    def _skip(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def _error(self, at: int, wanted: str) -> LimitError:
        got = re.match(r"[\w.%/]+|.", self._text[at:])
        found = repr(got[0]) if got else "the end"
        return LimitError(f"{self._text!r}: column {at + 1}: {found}; here stands {wanted}; for example {EXAMPLE!r}")
