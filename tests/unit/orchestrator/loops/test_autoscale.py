"""The autoscale loop without an engine: what it puts in force, what it tells, and when it leaves counts alone."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.metrics import Metrics
from orchestrator.adapters.signals import Round, SignalsUnavailable
from orchestrator.adapters.store import Store
from orchestrator.core.entities import (
    ClusterLimits,
    Desired,
    Observed,
    Resources,
    Scaling,
    Target,
    VersionKey,
)
from orchestrator.core.errors import FleetError
from orchestrator.core.plan import Memory, Plan
from orchestrator.core.scaling.facts import Override
from orchestrator.core.scaling.series import GatewayReadings
from orchestrator.core.scaling.signals import Buckets, Reading
from orchestrator.loops.autoscale import Autoscaler
from orchestrator.loops.journal import Journal
from orchestrator.loops.signals import Signals
from orchestrator.loops.targets import Targets
from tests.unit.orchestrator.core.builders import desired, key, replica, version

IRIS, ROSE = key("iris@1"), key("rose@1")
NOW = 1_000_000.0
BOUNDS = (0.05, 0.1, 0.25, math.inf)


class Told:
    """A source that says what a test tells it."""

    name = "direct"
    every_s = 1.0
    says: Round | None = None

    async def read(self) -> Round:
        if self.says is None:
            raise SignalsUnavailable("nothing is said")
        return self.says


class World:
    """What reconcile would know, with replicas that are ready as soon as they are wanted."""

    def __init__(self, targets: Targets, asked: Desired) -> None:
        self._targets = targets
        self.asked = asked
        self.desired = targets.applied(asked, Desired())
        self.observed = Observed()
        self.plan: Plan | None = Plan((), {}, Memory(), {})
        self.engine_error = ""
        self.frozen = False
        self.settle()

    def retarget(self) -> None:
        self.desired = self._targets.applied(self.asked, self.desired)

    def settle(self) -> None:
        found = tuple(
            replica(f"{each.key}-{n}", str(each.key), spec=each.digest)
            for each in self.desired.versions().values()
            for n in range(each.replicas)
        )
        self.observed = Observed(found)


class Fleet:
    """An autoscaler in a made-up world, and a gateway that counts what a test says."""

    def __init__(self, store: Store, asked: Desired) -> None:
        self.targets = Targets(store.scaling)
        self.world = World(self.targets, asked)
        self.source = Told()
        self.fault = ""
        self.ensured: list[VersionKey] = []
        journal = Journal(store)
        signals = Signals(journal)
        signals.use([self.source])
        self.scaler = Autoscaler(
            self.world, self.targets, signals, store.scaling, journal, Metrics(), sources=lambda _: [], ensure=self.ensure
        )  # fmt: skip
        self.now = NOW
        self.counted = dict.fromkeys(self.world.desired.versions(), 0.0)
        self._store = store

    async def ensure(self, which: VersionKey) -> None:
        self.ensured.append(which)
        if self.fault:
            raise FleetError(self.fault)

    async def second(self, **rates: float) -> None:
        """One second with so many requests of each model, of 100 ms each, and one turn of the loop."""
        self.now += 1
        self.counted = {which: count + rates.get(which.model, 0.0) for which, count in self.counted.items()}
        self.source.says = Round({"gateway": self.readings()})
        await self.scaler.signals.refresh()
        await self.turn()

    async def turn(self) -> None:
        await self.scaler.step(self.now)
        await asyncio.sleep(0)  # a look for a runtime that it began ends

    async def seconds(self, count: int, **rates: float) -> None:
        for _ in range(count):
            await self.second(**rates)
            self.world.settle()

    def readings(self) -> GatewayReadings:
        found = {which: self.reading(count) for which, count in self.counted.items()}
        return GatewayReadings(self.now, found, self.reading(0.0))

    def reading(self, count: float) -> Reading:
        times = Buckets(BOUNDS, (0.0, count, count, count), count * 0.1)
        return Reading(
            at=self.now, arrivals=count, answered=count, failed=0.0, shed=0.0, queued=0.0, in_flight=0.0, request=times,
            model=times, began_at=0.0,
        )  # fmt: skip

    def replicas(self, which: VersionKey = IRIS) -> int:
        return self.world.desired.versions()[which].replicas

    def events(self, kind: str) -> list[str]:
        return [event.message for event in self._store.events(limit=1000) if event.kind == kind]


def scaled(name: str = "iris@1", replicas: int = 1, *, cpus: float = 1.0, **settings: Any) -> Any:
    scaling = Scaling(**{"maximum": 8, "latency_s": 1.0, **settings})
    made = version(name, replicas, spec=name[0], scaling=scaling, concurrency=1)
    return replace(made, spec=replace(made.spec, resources=Resources(cpus)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "state.sqlite")
    yield found
    found.close()


class TestAStep:
    async def test_changes_the_count_and_nothing_else_and_is_told_once(self, store: Store) -> None:
        fleet = Fleet(store, desired(scaled()))
        before = fleet.world.desired.versions()[IRIS]
        await fleet.seconds(20, iris=5)

        await fleet.seconds(3, iris=50)

        count = fleet.replicas()
        assert count > 4
        assert replace(fleet.world.desired.versions()[IRIS], replicas=1) == before
        assert fleet.targets.get(IRIS) == Target(count)
        (told,) = fleet.events("scaled")
        assert told.startswith(f"1 -> {count}: ")
        assert [d.reason for d in store.scaling.decisions("iris")] == [f"iris@1: {told}"]

    async def test_waits_until_what_replicas_run_in_is_there(self, store: Store) -> None:
        fleet = Fleet(store, desired(scaled()))
        fleet.fault = "image gone: it is being built"
        await fleet.seconds(20, iris=5)
        await fleet.seconds(3, iris=50)
        without = fleet.replicas(), fleet.events("scale_up_waits")

        fleet.fault = ""
        await fleet.seconds(20, iris=50)

        assert without == (1, ["no more replicas until image gone: it is being built"])
        assert fleet.replicas() > 4
        assert set(fleet.ensured) == {IRIS}


class TestUnknown:
    async def test_decides_nothing_before_the_world_was_observed(self, store: Store) -> None:
        fleet = Fleet(store, desired(scaled()))
        fleet.world.plan = None

        await fleet.seconds(5, iris=50)

        assert (fleet.replicas(), fleet.scaler.last) == (1, {})

    async def test_lowers_nothing_while_nobody_says_anything(self, store: Store) -> None:
        fleet = Fleet(store, desired(scaled(replicas=4)))
        await fleet.seconds(100, iris=20)
        held = fleet.replicas()

        for _ in range(400):
            fleet.now += 1
            await fleet.turn()

        assert fleet.replicas() == held
        assert "the newest signals are 400 s old" in fleet.scaler.last[IRIS].inputs.hold

    async def test_another_control_plane_goes_on_with_the_count(self, store: Store) -> None:
        first = Fleet(store, desired(scaled()))
        await first.seconds(20, iris=5)
        await first.seconds(5, iris=50)
        count = first.replicas()

        second = Fleet(store, desired(scaled()))
        await second.seconds(30, iris=0)

        assert second.replicas() == count > 1
        assert "signals are read since" in second.scaler.last[IRIS].inputs.hold


class TestLimits:
    async def test_what_is_fixed_is_taken_out_first(self, store: Store) -> None:
        asked = replace(desired(scaled(), version("rose@1", 3)), limits=ClusterLimits(max_cpus=5.0))
        fleet = Fleet(store, asked)
        await fleet.seconds(20, iris=5)

        await fleet.seconds(5, iris=60)

        assert (fleet.replicas(IRIS), fleet.replicas(ROSE)) == (2, 3)
        assert "limited to 2 of " in fleet.events("scaled")[-1]
        assert "by cluster.max_cpus 5" in fleet.events("scaled")[-1]

    async def test_priority_says_who_gets_what(self, store: Store) -> None:
        asked = replace(desired(scaled(), scaled("rose@1", priority=1)), limits=ClusterLimits(max_cpus=5.0))
        fleet = Fleet(store, asked)
        await fleet.seconds(20, iris=5, rose=5)

        await fleet.seconds(5, iris=60, rose=60)

        assert (fleet.replicas(IRIS), fleet.replicas(ROSE)) == (1, 4)


class TestByHand:
    async def test_a_word_counts_at_once_and_ends_by_itself(self, store: Store) -> None:
        fleet = Fleet(store, desired(version("iris@1", 2)))
        fleet.scaler.set_by_hand(IRIS, Override(5, until=fleet.now + 4))
        await fleet.seconds(2)
        during = fleet.replicas()

        await fleet.seconds(4)

        assert (during, fleet.replicas()) == (5, 2)
        assert fleet.events("scale_override_ended") == ["what was set by hand is over"]
        assert dict(fleet.targets.overrides) == {}

    async def test_taking_it_back_gives_a_fixed_version_its_count_again(self, store: Store) -> None:
        fleet = Fleet(store, desired(version("iris@1", 2)))
        fleet.scaler.set_by_hand(IRIS, Override(0))
        await fleet.seconds(1)
        during = fleet.replicas()

        fleet.scaler.set_by_hand(IRIS, None)

        assert (during, fleet.replicas()) == (0, 2)


class TestSleep:
    async def test_one_that_was_woken_is_not_put_back_by_what_was_seen_before(self, store: Store) -> None:
        fleet = Fleet(store, desired(scaled(minimum=0, idle_after_s=30.0)))
        await fleet.seconds(100)
        asleep = fleet.replicas()

        fleet.targets.set({IRIS: Target(1)})  # as `waking.py` does
        fleet.world.retarget()
        fleet.world.settle()
        await fleet.turn()

        assert (asleep, fleet.replicas()) == (0, 1)

    async def test_a_burst_on_one_that_is_asleep_gets_more_than_one(self, store: Store) -> None:
        fleet = Fleet(store, desired(scaled(minimum=0, idle_after_s=30.0)))
        await fleet.seconds(40, iris=10)
        await fleet.seconds(200)
        assert fleet.replicas() == 0

        wanted = fleet.world.desired.versions()[IRIS]

        assert fleet.scaler.wake(wanted, 1) in (1, 2)
        assert fleet.scaler.wake(wanted, 500) == 8
        assert [(d.before, d.target) for d in store.scaling.decisions("iris")][-1] == (0, 8)
