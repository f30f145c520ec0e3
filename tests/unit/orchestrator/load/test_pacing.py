"""An alarm rings at its moment, again when it is set again, and never after it was closed."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from orchestrator.load.pacing import Alarm


class Bell:
    """When the alarm rang, in nanoseconds."""

    def __init__(self) -> None:
        self.rung: list[int] = []
        self.heard = asyncio.Event()

    def ring(self) -> None:
        self.rung.append(time.monotonic_ns())
        self.heard.set()

    async def next(self) -> int:
        await asyncio.wait_for(self.heard.wait(), 10)
        self.heard.clear()
        return self.rung[-1]


@pytest.fixture(params=["linux", "elsewhere"])
def _platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With timerfd, and with the loop's own timers where there is none."""
    if request.param == "elsewhere":
        monkeypatch.setattr(sys, "platform", "elsewhere")


@pytest.mark.usefixtures("_platform")
class TestAlarm:
    async def test_rings_at_its_moment_and_not_before(self) -> None:
        bell = Bell()
        alarm = Alarm(bell.ring)

        for _ in range(3):
            due = time.monotonic_ns() + 20_000_000
            alarm.set(due)
            assert await bell.next() >= due - 1_000_000  # the loop's own timers round to milliseconds
        alarm.close()

        assert len(bell.rung) == 3

    async def test_rings_at_once_for_a_moment_that_has_passed(self) -> None:
        bell = Bell()
        alarm = Alarm(bell.ring)

        alarm.set(time.monotonic_ns() - 5_000_000_000)

        assert await bell.next()
        alarm.close()

    async def test_is_silent_once_closed(self) -> None:
        bell, later = Bell(), Bell()
        alarm, other = Alarm(bell.ring), Alarm(later.ring)
        now = time.monotonic_ns()
        alarm.set(now + 10_000_000)
        other.set(now + 50_000_000)

        alarm.close()
        await later.next()
        other.close()

        assert bell.rung == []
