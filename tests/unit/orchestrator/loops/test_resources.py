"""What is known of replicas' CPU and memory, and when it is not."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from orchestrator.adapters.engine import Launch, ReplicaUsage
from orchestrator.core.entities import ReplicaSpec
from orchestrator.loops.resources import EVERY_S, SELDOM_S, ResourceWatch, pause_s
from tests.fakes.fake_engine import FakeEngine

SPEC = ReplicaSpec(model="m", version="1", backend="python", artifact="", runtime="r")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(clock: Clock) -> FakeEngine:
    engine = FakeEngine(clock=clock)
    engine.start(Launch("r1", SPEC, SPEC.digest(), 1, None))
    return engine


async def test_cores_are_the_average_between_two_readings(
    engine: FakeEngine, clock: Clock, threads: ThreadPoolExecutor
) -> None:
    watch = ResourceWatch(engine, threads, lambda: True)
    await watch.read()
    assert watch.cores("r1") is None, "one reading says nothing of a rate"

    clock.now += 4
    await watch.read()

    assert watch.cores("r1") == pytest.approx(0.5)
    assert watch.cores("r2") is None


async def test_an_engine_that_is_away_makes_all_of_it_unknown(
    engine: FakeEngine, clock: Clock, threads: ThreadPoolExecutor
) -> None:
    watch = ResourceWatch(engine, threads, lambda: True)
    await watch.read()
    engine.go_away()
    await watch.read()
    assert watch.usages == {}

    engine.come_back()
    clock.now += 100
    await watch.read()

    assert list(watch.usages) == ["r1"]
    assert watch.cores("r1") is None


async def test_asks_nobody_before_replicas_were_observed(engine: FakeEngine, threads: ThreadPoolExecutor) -> None:
    watch = ResourceWatch(engine, threads, lambda: False)

    await watch.read()

    assert watch.usages == {}
    assert "usage" not in engine.calls


async def test_a_counter_that_fell_gives_no_rate(threads: ThreadPoolExecutor) -> None:
    class Falling(FakeEngine):
        left = iter((5.0, 2.0))

        def usage(self) -> list[ReplicaUsage]:
            used = next(self.left)
            found = ReplicaUsage("r1", 10.0 - used, used, None, None, None, None)
            return [replace(found)]

    watch = ResourceWatch(Falling(), threads, lambda: True)
    await watch.read()
    await watch.read()

    assert watch.cores("r1") is None


def test_reads_seldom_where_reading_takes_long() -> None:
    assert pause_s(0.005) == EVERY_S
    assert pause_s(2.0) == pytest.approx(20.0)
    assert pause_s(60.0) == SELDOM_S
