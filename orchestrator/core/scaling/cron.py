"""Schedules: `{cron, min}` raises or lowers a version's minimum from one moment on, until another schedule's moment.

The five fields of cron (minute, hour, day of month, month, day of week) with lists, ranges, steps and English names, in
a time zone. As in Vixie cron a day fits when either of its two fields does, unless one of them begins with `*`; then
both must. Where clocks skip an hour a moment in it comes an hour later, where they repeat one the first counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# 29 February can be eight years away (1896 to 1904); a cron that fits no day in that time fits none.
LONGEST_DAYS = 366 * 8 + 2


class CronError(ValueError):
    """The text is no cron expression; the message is one sentence for its author."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()
    named_from: int = 0


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, MONTHS, 1),
    _Field("day of week", 0, 7, DAYS),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed expression. Minutes and hours descend, for the question is always which moment was last."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    is_either_day: bool

    def fits_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_month or by_week if self.is_either_day else by_month and by_week

    def last_before(self, now: float, zone: tzinfo) -> float | None:
        """The last moment at or before `now` (seconds since the epoch), None if there never was one."""
        today = datetime.fromtimestamp(now, zone).date()
        # A moment that the clocks skipped can be on the next day by its name.
        for back in range(-1, LONGEST_DAYS):
            day = today - timedelta(days=back)
            if self.fits_day(day):
                for moment in self._moments(day, zone):
                    if moment <= now:
                        return moment
        return None

    def _moments(self, day: date, zone: tzinfo) -> Iterable[float]:
        for hour in self.hours:
            for minute in self.minutes:
                yield datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone).timestamp()


@dataclass(frozen=True, slots=True)
class Schedule:
    """From each moment of `cron` on, `minimum` is the least number of replicas, until another schedule's moment."""

    cron: Cron
    minimum: int
    zone: tzinfo


def minimum_at(schedules: Iterable[Schedule], otherwise: int, now: float) -> tuple[int, str]:
    """The minimum in force, and the cron whose it is ("": none of the schedules has begun, it is `otherwise`).

    Of two that begin at the same moment the larger minimum counts.
    """
    begun = [(s.cron.last_before(now, s.zone), s.minimum, s.cron.text) for s in schedules]
    known = [(moment, minimum, text) for moment, minimum, text in begun if moment is not None]
    if not known:
        return otherwise, ""
    _, minimum, text = max(known)
    return minimum, text


def parse_zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise CronError(f"{name!r} is no time zone of this machine; write one such as UTC or Europe/Berlin") from None


def parse_cron(text: str) -> Cron:
    """Raises CronError with a sentence that says which field is wrong and what it may be."""
    parts = text.split()
    if len(parts) != len(_FIELDS):
        wanted = ", ".join(f.name for f in _FIELDS)
        raise CronError(f"{text!r} has {len(parts)} fields; a cron has five: {wanted}")
    minutes, hours, days, months, weekdays = (_numbers(p, f) for p, f in zip(parts, _FIELDS, strict=True))
    cron = Cron(
        text=" ".join(parts),
        minutes=tuple(sorted(minutes, reverse=True)),
        hours=tuple(sorted(hours, reverse=True)),
        days=frozenset(days),
        months=frozenset(months),
        weekdays=frozenset(d % 7 for d in weekdays),
        is_either_day=not parts[2].startswith("*") and not parts[4].startswith("*"),
    )
    if not cron.is_either_day and not any(d <= _LONGEST[m] for d in days for m in months):
        raise CronError(f"{text!r} fits no day of any year; mend its day of month or its month")
    return cron


_LONGEST = dict(enumerate((31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), start=1))


def _numbers(text: str, field: _Field) -> set[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        spread, slash, step_text = part.partition("/")
        step = _number(step_text, field, text) if slash else 1
        if step == 0:
            raise CronError(f"{text!r} is no {field.name}; a step is at least 1")
        first, last = _ends(spread, field, text, is_open=bool(slash))
        found.update(range(first, last + 1, step))
    return found


def _ends(spread: str, field: _Field, text: str, is_open: bool) -> tuple[int, int]:
    if spread == "*":
        return field.least, 6 if field.names is DAYS else field.most
    low, dash, high = spread.partition("-")
    first = _number(low, field, text)
    last = _number(high, field, text) if dash else (field.most if is_open else first)
    for number in (first, last):
        if not field.least <= number <= field.most:
            raise CronError(f"{text!r} is no {field.name}; it goes from {field.least} to {field.most}")
    if first > last:
        raise CronError(f"{text!r} is no {field.name}; a range goes upwards")
    return first, last


def _number(text: str, field: _Field, whole: str) -> int:
    if text in field.names:
        return field.names.index(text) + field.named_from
    if not (text.isascii() and text.isdigit()):
        names = f", or {field.names[0]} to {field.names[-1]}" if field.names else ""
        raise CronError(
            f"{whole!r} is no {field.name}; write *, a number from {field.least} to {field.most}{names}, "
            "a range (1-5), a step (*/10) or a list of those"
        )
    return int(text)
