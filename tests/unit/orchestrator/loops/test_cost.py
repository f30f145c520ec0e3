"""Counting what replicas take, with control planes that end and are killed."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.adapters.metrics import Metrics, VersionLevels
from orchestrator.adapters.signals import Round
from orchestrator.adapters.store import Store
from orchestrator.core.cost.amounts import GIB, Amounts
from orchestrator.core.entities import Desired, Observed, Pricing, Replica, ReplicaSpec, Resources, VersionKey
from orchestrator.core.plan import Plan
from orchestrator.core.scaling.series import ANSWERED, BEGAN_AT, Series, readings
from orchestrator.loops.cost import WRITE_EVERY_S, CostKeeper
from router.contract import GatewayReport
from tests.unit.orchestrator.core.builders import decide, desired, replica, version

IRIS = VersionKey("iris", "1")
PRICES = Pricing(cpu_hour=0.5, memory_gib_hour=0.25, currency="EUR")
BEGAN = 1_700_000_000.0
PER_S = 2.0 / 3600  # of a replica of 2 cores and 4 GiB


def wanted(pricing: Pricing = PRICES) -> Desired:
    spec = ReplicaSpec("iris", "1", "sklearn", "a", "runtime", resources=Resources(2.0, 4 * GIB))
    return replace(desired(replace(version("iris@1"), spec=spec)), pricing=pricing)


@dataclass
class World:
    """What the control plane sees; `busy` are the replicas with a request inside."""

    desired: Desired = field(default_factory=wanted)
    observed: Observed = field(default_factory=Observed)
    plan: Plan | None = field(default_factory=lambda: decide(Desired()))
    engine_error: str = ""
    frozen: bool = False
    busy: set[str] = field(default_factory=set)
    gateway_answers: bool = True
    answered: float | None = None
    at: float = BEGAN

    def run(self, *replicas: Replica) -> None:
        self.observed = Observed(replicas)

    def report(self) -> GatewayReport | None:
        counts = dict.fromkeys(self.busy, 1)
        return GatewayReport(1, "t", 0.0, counts) if self.gateway_answers else None

    def readings(self) -> Round | None:
        if self.answered is None:
            return None
        values = [(Series(BEGAN_AT), BEGAN + 0.5), (Series(ANSWERED, IRIS, "200"), self.answered)]
        return Round({"g": readings(values, self.at)})


@contextlib.contextmanager
def keeping(
    world: World, directory: Path, metrics: Metrics | None = None, *, killed: bool = False
) -> Iterator[CostKeeper]:
    """One control plane's life. `killed`: it does not write at its end."""
    store = Store(directory / "state.sqlite")
    keeper = CostKeeper(
        world, store.cost, metrics or Metrics(), report=world.report, readings=world.readings,
        specs=lambda: MappingProxyType({"old": Resources(1.0, GIB)}),
    )  # fmt: skip
    keeper.begin(world.at)
    yield keeper
    if not killed:
        keeper.write()
    store.close()


def live(keeper: CostKeeper, world: World, seconds: float, step_s: float = 1.0) -> None:
    end = world.at + seconds
    while world.at < end:
        world.at = min(end, world.at + step_s)
        keeper.look(world.at)


def total(keeper: CostKeeper) -> Amounts:
    return asyncio.run(keeper.by_version(0)).get(IRIS, Amounts())


def one(id_: str = "r1", **facts: object) -> Replica:
    return replica(id_, "iris@1", **{"created_at": BEGAN - 100, **facts})  # type: ignore[arg-type]


def test_counts_what_runs_and_what_idles(tmp_path: Path) -> None:
    world = World()
    world.run(one("r1"), one("r2"), one("r3", state="standby"))
    world.busy = {"r1"}
    with keeping(world, tmp_path) as keeper:
        live(keeper, world, 30)
        found = total(keeper)

    assert found.replica_s == pytest.approx(60)
    assert found.standby_s == pytest.approx(30)
    assert (found.judged_s, found.idle_s) == (pytest.approx(60), pytest.approx(30))
    assert found.cost == pytest.approx(60 * PER_S + 30 * PER_S / 2)
    assert found.idle_cost == pytest.approx(30 * PER_S + 30 * PER_S / 2)


def test_starting_and_draining_replicas_are_paid_and_failed_ones_are_not(tmp_path: Path) -> None:
    world = World()
    world.run(
        one("r1", state="starting"), one("r2", state="loading"), one("r3", state="draining"), one("r4", state="failed")
    )
    with keeping(world, tmp_path) as keeper:
        live(keeper, world, 10)

        assert total(keeper).replica_s == pytest.approx(30)


def test_while_the_gateway_does_not_answer_nobody_knows_what_idles(tmp_path: Path) -> None:
    world = World(gateway_answers=False)
    world.run(one())
    with keeping(world, tmp_path) as keeper:
        live(keeper, world, 10)

        assert total(keeper).replica_s == pytest.approx(10)
        assert total(keeper).idle_share is None


def test_a_price_counts_from_when_it_is_applied(tmp_path: Path) -> None:
    world = World(desired=wanted(Pricing()))
    world.run(one())
    with keeping(world, tmp_path) as keeper:
        live(keeper, world, 20)
        assert (total(keeper).is_priced, keeper.hourly()) == (False, None)
        world.desired = wanted()
        live(keeper, world, 10)
        world.desired = wanted(replace(PRICES, cpu_hour=1.5))
        live(keeper, world, 10)
        found = total(keeper)

        assert found.unpriced_s == pytest.approx(20)
        assert found.cost == pytest.approx(10 * PER_S + 10 * 2 * PER_S)
        assert [keeper.hourly(), keeper.hourly("iris"), keeper.hourly("iris", "1"), keeper.hourly("rose")] == [
            pytest.approx(4.0), pytest.approx(4.0), pytest.approx(4.0), 0.0,
        ]  # fmt: skip


def test_a_restart_loses_nothing_of_what_goes_on(tmp_path: Path) -> None:
    world = World(answered=0)
    world.run(one())
    with keeping(world, tmp_path) as first:
        live(first, world, 90)
    world.at += 600
    world.answered = 42
    with keeping(world, tmp_path) as second:
        assert second.hourly() is None, "before it looked it knows nothing, and says no zero"
        live(second, world, 10)
        found = total(second)

    assert found.replica_s == pytest.approx(700)
    assert found.cost == pytest.approx(700 * PER_S)
    assert found.judged_s == pytest.approx(99), "what was inside while nobody looked is not known"
    assert (found.unknown_s, found.predictions) == (0, pytest.approx(42))


def test_of_one_that_ended_meanwhile_the_time_is_unknown_and_not_zero(tmp_path: Path) -> None:
    world = World()
    world.run(one("r1"), one("r2"))
    with keeping(world, tmp_path) as first:
        live(first, world, 60)
    world.at += 3600
    world.run(one("r1"), one("r3", created_at=world.at - 100))
    with keeping(world, tmp_path) as second:
        live(second, world, 1)
        found = total(second)

    assert found.replica_s == pytest.approx(120 + 3601 + 101)
    assert found.unknown_s == pytest.approx(3601)


@settings(max_examples=25)
@given(kills=st.lists(st.tuples(st.integers(1, 200), st.integers(0, 100)), min_size=1, max_size=4))
def test_a_kill_anywhere_loses_nothing_but_what_was_inside(kills: list[tuple[int, int]]) -> None:
    """Each control plane lives for a while and is killed, with what it had not written; another comes after a pause."""
    world = World(answered=0)
    world.run(one())
    with tempfile.TemporaryDirectory() as directory:
        for lives_s, away_s in kills:
            with keeping(world, Path(directory), killed=True) as keeper:
                for _ in range(lives_s):
                    world.answered = (world.answered or 0) + 3
                    live(keeper, world, 1)
            world.at += away_s
        with keeping(world, Path(directory)) as last:
            live(last, world, 1)
            found = total(last)

    assert found.replica_s == pytest.approx(sum(lives + away for lives, away in kills) + 1)
    assert found.predictions == pytest.approx(world.answered)
    assert found.idle_s <= found.judged_s + 1e-6 <= found.replica_s + 1e-5
    least_s = sum(lives for lives, _ in kills) - (WRITE_EVERY_S + 1) * len(kills)
    assert found.judged_s >= least_s, "a kill loses at most a minute of what was inside"


def test_a_kill_before_the_gateway_was_read_at_all_loses_no_prediction(tmp_path: Path) -> None:
    world = World()
    world.run(one())
    with keeping(world, tmp_path, killed=True) as first:
        live(first, world, 3)
        world.answered = 5
        live(first, world, 3)
    world.answered = 8
    with keeping(world, tmp_path) as second:
        live(second, world, 1)

        assert total(second).predictions == pytest.approx(8)


def test_what_a_gateway_answered_before_anybody_counted_is_not_counted(tmp_path: Path) -> None:
    world = World(answered=1000, at=BEGAN + 3600)
    world.run(one())
    for more in (0, 5):
        with keeping(world, tmp_path) as keeper:
            world.answered = 1000 + more
            live(keeper, world, 2)

    with keeping(world, tmp_path) as keeper:
        assert total(keeper).predictions == pytest.approx(5)


def test_an_engine_that_is_away_for_a_while_is_filled_in(tmp_path: Path) -> None:
    world = World()
    world.run(one())
    with keeping(world, tmp_path) as keeper:
        live(keeper, world, 10)
        world.engine_error = "it does not answer"
        live(keeper, world, 300)
        assert total(keeper).replica_s == pytest.approx(10)
        world.engine_error = ""
        live(keeper, world, 1)

        assert total(keeper).replica_s == pytest.approx(311)


def test_all_that_ended_with_the_cluster_is_no_mystery(tmp_path: Path) -> None:
    world = World()
    world.run(one())
    with keeping(world, tmp_path) as keeper:
        live(keeper, world, 10)
        world.frozen = True
        world.at += 20
        keeper.end(world.at)
    world.run()
    world.at += 86_400
    world.frozen = False
    with keeping(world, tmp_path) as keeper:
        live(keeper, world, 1)

        assert total(keeper).replica_s == pytest.approx(30)
        assert total(keeper).unknown_s == 0


def test_replicas_of_an_older_revision_cost_what_they_asked_for(tmp_path: Path) -> None:
    world = World()
    world.run(one(spec="old"), one("r2", spec="never heard of"))
    with keeping(world, tmp_path) as keeper:
        live(keeper, world, 10)
        found = total(keeper)

    assert (found.cpu_s, found.unknown_s) == (pytest.approx(10), pytest.approx(10))


def test_a_clock_that_is_set_back_takes_nothing_back(tmp_path: Path) -> None:
    world = World()
    world.run(one())
    with keeping(world, tmp_path) as keeper:
        live(keeper, world, 10)
        world.at -= 5
        keeper.look(world.at)
        live(keeper, world, 5)

        assert total(keeper).replica_s == pytest.approx(15)


def test_counters_of_cost_are_what_was_counted(tmp_path: Path) -> None:
    world, metrics = World(), Metrics()
    world.run(one("r1"), one("r2"))
    world.busy = {"r1"}
    with keeping(world, tmp_path, metrics) as keeper:
        live(keeper, world, 100)
        hourly = keeper.hourly("iris", "1")

    page = metrics.render([VersionLevels(IRIS, {}, 1, cost_per_hour=hourly)], [], 0.0).decode().splitlines()
    shown = {
        line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in page if "cost" in line and line[0] != "#"
    }
    assert shown == {
        "modelfleet_cost_total": pytest.approx(200 * PER_S),
        "modelfleet_idle_cost_total": pytest.approx(100 * PER_S),
        "modelfleet_cost_per_hour": pytest.approx(4.0),
    }


def test_without_prices_there_are_no_series_of_cost() -> None:
    page = Metrics().render([VersionLevels(IRIS, {}, 1)], [], 0.0).decode().splitlines()

    assert [line for line in page if "cost" in line and line[0] != "#"] == []
