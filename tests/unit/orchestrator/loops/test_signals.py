"""Which source counts, what a sample is made of, and what the journal is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.signals import Round, SignalsUnavailable
from orchestrator.adapters.store import Store
from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.facts import Objective
from orchestrator.core.scaling.series import GatewayReadings
from orchestrator.core.scaling.signals import Reading
from orchestrator.loops.journal import Journal
from orchestrator.loops.signals import Signals, SourceState, choose

IRIS = VersionKey("iris", "1")
NOW = 1000.0


def seen(at: float, arrivals: float = 0.0, missing: tuple[str, ...] = ()) -> Round:
    numbers = Reading(at=at, arrivals=arrivals, answered=arrivals, failed=0, shed=0, queued=0, in_flight=0)
    return Round({"gateway": GatewayReadings(at, {IRIS: numbers}, numbers)}, missing)


class Told:
    """A source that says what a test tells it."""

    every_s = 0.01

    def __init__(self, name: str) -> None:
        self.name = name
        self.says: Round | str = "silent"

    async def read(self) -> Round:
        if isinstance(self.says, str):
            raise SignalsUnavailable(self.says)
        return self.says


def state(name: str, *rounds: Round) -> SourceState:
    made = SourceState(Told(name))
    for each in rounds:
        made.take(each)
    return made


class TestChoose:
    def test_takes_nothing_while_nobody_said_anything(self) -> None:
        assert choose([state("direct"), state("prometheus")], None, NOW) is None

    def test_takes_the_fresher(self) -> None:
        direct, prometheus = state("direct", seen(NOW - 1)), state("prometheus", seen(NOW - 4))

        assert choose([direct, prometheus], None, NOW) is direct
        assert choose([direct, prometheus], prometheus, NOW) is direct

    def test_stays_with_one_that_is_little_older(self) -> None:
        direct, prometheus = state("direct", seen(NOW - 1)), state("prometheus", seen(NOW - 2))

        assert choose([direct, prometheus], prometheus, NOW) is prometheus

    def test_takes_one_that_is_whole_before_one_that_misses_a_gateway(self) -> None:
        direct, prometheus = state("direct", seen(NOW - 3)), state("prometheus", seen(NOW - 1, missing=("b",)))

        assert choose([direct, prometheus], prometheus, NOW) is direct

    def test_takes_a_fresh_one_that_misses_a_gateway_before_a_stale_one(self) -> None:
        direct, prometheus = (
            state("direct", seen(NOW - 61), seen(NOW - 60)),
            state("prometheus", seen(NOW - 1, missing=("b",))),
        )

        assert choose([direct, prometheus], direct, NOW) is prometheus


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "state.sqlite")
    yield found
    found.close()


class Running:
    """Signals that read two sources, and what they told the journal."""

    def __init__(self, store: Store) -> None:
        self.direct, self.prometheus = Told("direct"), Told("prometheus")
        self.signals = Signals(Journal(store))
        self.signals.use([self.direct, self.prometheus])
        self._store = store

    async def read(
        self, now: float, *, direct: Round | str = "silent", prometheus: Round | str = "silent", times: int = 2
    ) -> bool:
        """Both sources say this so many times; returns whether there is a new sample."""
        self.direct.says, self.prometheus.says = direct, prometheus
        for state in self.signals.states:
            for _ in range(times):
                await self.signals.read(state)
        return self.signals.advance(now)

    def arrivals(self) -> float | None:
        sample = self.signals.sample(IRIS, Objective())
        return sample and sample.arrivals

    def told(self) -> list[str]:
        return [event.message for event in self._store.events()]


@pytest.fixture
def running(store: Store) -> Running:
    return Running(store)


class TestSignals:
    async def test_a_sample_is_what_happened_since_the_one_before(self, running: Running) -> None:
        assert not await running.read(NOW, direct=seen(NOW, 10))
        assert await running.read(NOW + 1, direct=seen(NOW + 1, 25))
        first = running.arrivals()
        assert not await running.read(NOW + 1.5, direct=seen(NOW + 1, 25))
        assert await running.read(NOW + 2, direct=seen(NOW + 2, 26))

        assert (first, running.arrivals()) == (15, 1)

    async def test_one_that_takes_over_counts_no_request_twice(self, running: Running) -> None:
        await running.read(NOW, direct=seen(NOW, 10), prometheus=seen(NOW - 2, 0))
        await running.read(NOW + 2, direct=seen(NOW + 2, 30), prometheus=seen(NOW, 10))
        await running.read(NOW + 4, direct=seen(NOW + 4, 50), prometheus=seen(NOW + 2, 30))
        assert running.signals.active == "direct"
        await running.read(NOW + 8, direct="gone", prometheus=seen(NOW + 8, 90))

        assert running.signals.active == "prometheus"
        assert running.arrivals() == 90 - 30  # since the round of NOW + 2, which is the newest before NOW + 4

    async def test_says_what_is_wrong_with_a_source_and_what_it_goes_on_with(self, running: Running) -> None:
        await running.read(NOW, direct=seen(NOW), prometheus=seen(NOW))
        await running.read(NOW + 1, direct=seen(NOW + 1), prometheus="Prometheus at http://p does not answer")
        await running.read(NOW + 2, direct=seen(NOW + 2), prometheus="Prometheus at http://p does not answer")
        await running.read(NOW + 3, direct=seen(NOW + 3), prometheus=seen(NOW + 3))

        assert running.told() == [
            "prometheus: Prometheus at http://p does not answer (its last word is 1 s old); goes on with direct",
            "prometheus: its numbers are fresh and whole again",
        ]

    async def test_says_that_numbers_are_old_though_the_source_answers(self, running: Running) -> None:
        await running.read(NOW - 2, direct=seen(NOW - 2), prometheus=seen(NOW - 2))
        await running.read(NOW, direct=seen(NOW), prometheus=seen(NOW))
        await running.read(NOW + 14, direct=seen(NOW + 14), prometheus=seen(NOW))

        assert running.told() == ["prometheus: its newest numbers are 14 s old; goes on with direct"]

    async def test_one_that_scrapes_seldom_is_not_stale_between_two_scrapes(self, running: Running) -> None:
        for at in range(0, 60, 15):
            await running.read(NOW + at + 1, prometheus=seen(NOW + at))
            await running.read(NOW + at + 14, prometheus=seen(NOW + at))

        assert [told for told in running.told() if told.startswith("prometheus")] == []

    async def test_says_that_a_gateway_is_missing(self, running: Running) -> None:
        await running.read(NOW, direct=seen(NOW), prometheus=seen(NOW, missing=("b:8082",)))

        assert running.told() == ["prometheus: has no word from b:8082; goes on with direct"]

    async def test_says_that_nobody_knows_anything(self, running: Running) -> None:
        await running.read(NOW, direct="no gateway", prometheus="no server", times=9)
        soon = running.told()
        await running.read(NOW, direct="no gateway", prometheus="no server", times=1)

        assert soon == []  # they may be about to start
        assert running.told() == [
            "direct: no gateway; counts go up on what is known, and none goes down",
            "prometheus: no server; counts go up on what is known, and none goes down",
        ]
        assert running.signals.sample(IRIS, Objective()) is None

    async def test_reads_by_itself(self, running: Running) -> None:
        running.direct.says = seen(NOW, 1)
        task = asyncio.create_task(running.signals.run())
        await running.signals.changed.wait(0, 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert running.signals.states[0].latest == seen(NOW, 1)
