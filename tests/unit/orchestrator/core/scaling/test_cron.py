"""Cron expressions: what they mean, minute by minute, and what is said of those that mean nothing."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.scaling.cron import CronError, Schedule, minimum_at, parse_cron, parse_zone

BERLIN = parse_zone("Europe/Berlin")


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def last(cron: str, now: str, zone: str = "UTC") -> str | None:
    moment = parse_cron(cron).last_before(at(now), parse_zone(zone))
    return None if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")


class TestCron:
    @pytest.mark.parametrize(
        ("cron", "now", "expected"),
        [
            ("* * * * *", "2026-03-04T05:06:07Z", "2026-03-04 05:06"),
            ("*/15 * * * *", "2026-03-04T05:29:59Z", "2026-03-04 05:15"),
            ("0 8 * * *", "2026-03-04T07:59:00Z", "2026-03-03 08:00"),
            ("0 8 * * *", "2026-03-04T08:00:00Z", "2026-03-04 08:00"),
            ("30 8 * * mon-fri", "2026-03-08T12:00:00Z", "2026-03-06 08:30"),
            ("0 0 1 * *", "2026-03-04T00:00:00Z", "2026-03-01 00:00"),
            ("0 0 1 1 *", "2026-03-04T00:00:00Z", "2026-01-01 00:00"),
            ("5,35 9-17/4 * * *", "2026-03-04T13:20:00Z", "2026-03-04 13:05"),
            ("0 12 * JAN,jul Sun", "2026-03-04T00:00:00Z", "2026-01-25 12:00"),
            ("0 0 * * 7", "2026-03-04T00:00:00Z", "2026-03-01 00:00"),
            ("0 0 29 2 *", "2026-03-04T00:00:00Z", "2024-02-29 00:00"),
            ("0 0 13 * 5", "2026-03-12T00:00:00Z", "2026-03-06 00:00"),
            ("0 0 */2 * 5", "2026-03-12T00:00:00Z", "2026-02-27 00:00"),
        ],
    )
    def test_finds_its_last_moment(self, cron: str, now: str, expected: str) -> None:
        assert last(cron, now) == expected

    def test_is_read_in_its_time_zone(self) -> None:
        assert last("0 8 * * *", "2026-07-01T12:00:00Z", "Europe/Berlin") == "2026-07-01 06:00"

    def test_a_moment_that_the_clocks_skip_comes_an_hour_later(self) -> None:
        """On 29 March 2026 it was 01:59 and then 03:00 in Berlin."""
        assert last("30 2 * * *", "2026-03-29T02:00:00Z", "Europe/Berlin") == "2026-03-29 01:30"

    def test_of_an_hour_that_the_clocks_repeat_the_first_counts(self) -> None:
        assert last("30 2 * * *", "2026-10-25T12:00:00Z", "Europe/Berlin") == "2026-10-25 00:30"

    @settings(max_examples=60)
    @given(
        minute=st.sampled_from(["*", "0", "*/7", "3-50/9", "59", "1,2,58"]),
        hour=st.sampled_from(["*", "0", "*/5", "8-18", "23"]),
        day=st.sampled_from(["*", "1", "*/10", "28-31"]),
        month=st.sampled_from(["*", "2", "1-6"]),
        weekday=st.sampled_from(["*", "0", "mon-wed", "6,7"]),
        now=st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31)),
    )
    def test_agrees_with_trying_every_minute_before(
        self, minute: str, hour: str, day: str, month: str, weekday: str, now: datetime
    ) -> None:
        cron = parse_cron(f"{minute} {hour} {day} {month} {weekday}")
        moment = now.replace(second=0, microsecond=0, tzinfo=UTC)
        # A day of single minutes is enough to tell right from wrong in most of the cases.
        tried = (moment - timedelta(minutes=back) for back in range(24 * 60))

        found = cron.last_before(moment.timestamp(), UTC)

        fits = next((m.timestamp() for m in tried if matches(f"{minute} {hour} {day} {month} {weekday}", m)), None)
        assert found == fits if fits is not None else found is None or found < moment.timestamp() - 86_400 + 60

    @pytest.mark.parametrize(
        ("cron", "message"),
        [
            ("* * * *", "'* * * *' has 4 fields; a cron has five: minute, hour, day of month, month, day of week"),
            ("60 * * * *", "'60' is no minute; it goes from 0 to 59"),
            ("* 5-2 * * *", "'5-2' is no hour; a range goes upwards"),
            ("*/0 * * * *", "'*/0' is no minute; a step is at least 1"),
            ("0 0 31 2 *", "'0 0 31 2 *' fits no day of any year; mend its day of month or its month"),
            (
                "0 0 * * monday",
                "'monday' is no day of week; write *, a number from 0 to 7, or sun to sat, a range (1-5), "
                "a step (*/10) or a list of those",
            ),
        ],
    )
    def test_says_what_is_wrong(self, cron: str, message: str) -> None:
        with pytest.raises(CronError) as refused:
            parse_cron(cron)

        assert str(refused.value) == message

    @given(st.text("0123456789*/,- jafmsun", max_size=24))
    def test_of_any_text_is_understood_or_refused(self, text: str) -> None:
        with suppress(CronError):
            moment = parse_cron(text).last_before(1_770_000_000, UTC)

            assert moment is None or moment <= 1_770_000_000

    def test_says_when_a_zone_is_unknown(self) -> None:
        with pytest.raises(CronError, match="'Mars/Olympus' is no time zone of this machine; write one such as UTC"):
            parse_zone("Mars/Olympus")


def matches(cron: str, moment: datetime) -> bool:
    """Another reading of the five fields, one value at a time."""
    values = (moment.minute, moment.hour, moment.day, moment.month, moment.isoweekday() % 7)
    fits = [
        any(_fits(part, value, place) for part in field.split(","))
        for place, (field, value) in enumerate(zip(cron.split(), values, strict=True))
    ]
    _, _, day, _, weekday = cron.split()
    is_either = not day.startswith("*") and not weekday.startswith("*")
    days = fits[2] or fits[4] if is_either else fits[2] and fits[4]
    return fits[0] and fits[1] and fits[3] and days


def _fits(part: str, value: int, place: int) -> bool:
    names = {"mon": 1, "wed": 3}
    spread, _, step = part.partition("/")
    least = 1 if place in (2, 3) else 0
    low, _, high = ("0-99" if spread == "*" else spread).partition("-")
    first = max(least, names.get(low) if low in names else int(low))
    end = (names.get(high) if high in names else int(high)) if high else first
    sevens = {7} if place == 4 and value == 0 and end >= 7 and spread != "*" else set()
    return any(first <= v <= end and (v - first) % int(step or 1) == 0 for v in {value} | sevens)


class TestMinimumAt:
    DAY = Schedule(parse_cron("0 8 * * *"), 5, BERLIN)
    NIGHT = Schedule(parse_cron("0 20 * * *"), 0, BERLIN)

    @pytest.mark.parametrize(
        ("now", "expected"),
        [
            ("2026-07-01T05:59:59Z", (0, "0 20 * * *")),
            ("2026-07-01T06:00:00Z", (5, "0 8 * * *")),
            ("2026-07-01T17:59:59Z", (5, "0 8 * * *")),
            ("2026-07-01T18:00:00Z", (0, "0 20 * * *")),
        ],
    )
    def test_is_of_the_schedule_that_began_last(self, now: str, expected: tuple[int, str]) -> None:
        assert minimum_at([self.DAY, self.NIGHT], 2, at(now)) == expected

    def test_without_schedules_is_the_models(self) -> None:
        assert minimum_at([], 2, at("2026-07-01T06:00:00Z")) == (2, "")

    def test_may_have_begun_with_the_epoch(self) -> None:
        assert minimum_at([Schedule(parse_cron("0 0 1 1 *"), 3, UTC)], 1, 100.0) == (3, "0 0 1 1 *")

    def test_of_two_that_begin_together_is_the_larger(self) -> None:
        both = [Schedule(parse_cron("0 8 * * *"), 3, BERLIN), self.DAY]

        assert minimum_at(both, 2, at("2026-07-01T07:00:00Z"))[0] == 5
