"""The simulated pool against exact results of queueing theory, and what scaling does to it.

Chance is the simulation's own and repeats, so no test fails by chance; tolerances are what a run of that length is
off by, about three standard errors.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from orchestrator.core.scaling.distributions import Service, chance, spread
from orchestrator.core.scaling.erlang import erlang_c
from orchestrator.core.scaling.facts import Objective, Settings
from orchestrator.core.scaling.pool import Setup
from orchestrator.core.scaling.simulation import Result, by_policy, fixed, simulate


def poisson(per_s: float, length_s: float, seed: int = 1) -> list[float]:
    times: list[float] = []
    at, number = 0.0, 0
    while (at := at - math.log(1.0 - chance(seed + 1000, number)) / per_s) < length_s:
        times.append(at)
        number += 1
    return times


def setup(service: Service, slots: int, **known: float) -> Setup:
    facts = {"queue_timeout_s": math.inf, "latency_s": 1.0, **known}
    return Setup(service=service, slots=slots, **facts)  # type: ignore[arg-type]


def waiting(service: Service, slots: int, load: float) -> float:
    """The mean wait of 200,000 requests at a fixed number of slots, one replica."""
    arrivals = poisson(load / service.mean_s, 200_000 * service.mean_s / load)
    return simulate(arrivals, setup(service, slots, tick_s=60.0), fixed(1)).mean_wait_s


class TestAgainstTheory:
    @pytest.mark.parametrize(("slots", "load"), [(1, 0.5), (1, 0.8), (4, 3.2), (10, 8.0)])
    def test_waits_of_exponential_service_are_erlangs(self, slots: int, load: float) -> None:
        """M/M/c: E[wait] = C(c, a) S / (c - a)."""
        exact = erlang_c(slots, load) / (slots - load)

        assert waiting(Service.exponential(1.0), slots, load) == pytest.approx(exact, rel=0.05)

    @pytest.mark.parametrize("load", [0.5, 0.8])
    def test_waits_of_fixed_service_at_one_slot_are_pollaczeks_and_khinchines(self, load: float) -> None:
        """M/D/1: E[wait] = a S / (2 (1 - a)), half of the exponential's."""
        assert waiting(Service.fixed(1.0), 1, load) == pytest.approx(load / (2 * (1 - load)), rel=0.05)

    @pytest.mark.parametrize("cv", [0.6, 2.0])
    def test_waits_at_one_slot_grow_with_the_variability_of_service(self, cv: float) -> None:
        """M/G/1: E[wait] = (1 + cv²) / 2 times the exponential's."""
        exact = (1 + cv * cv) / 2 * 0.5 / (1 - 0.5)

        assert waiting(Service.lognormal(1.0, cv), 1, 0.5) == pytest.approx(exact, rel=0.12)

    @pytest.mark.parametrize(("slots", "load"), [(2, 1.6), (4, 3.2)])
    def test_waits_of_fixed_service_at_several_slots_are_cosmetatos(self, slots: int, load: float) -> None:
        """M/D/c: half the exponential's wait, and Cosmetatos' correction, which is good to one percent."""
        share = load / slots
        more = (1 - share) * (slots - 1) * (math.sqrt(4 + 5 * slots) - 2) / (16 * slots * share)
        exact = 0.5 * (1 + more) * erlang_c(slots, load) / (slots - load)

        assert waiting(Service.fixed(1.0), slots, load) == pytest.approx(exact, rel=0.06)

    def test_beyond_capacity_what_the_slots_can_do_is_answered(self) -> None:
        arrivals = poisson(20, 600)

        found = simulate(arrivals, setup(Service.fixed(0.1), 1, queue_timeout_s=1.0), fixed(1))

        assert found.requests - found.shed == pytest.approx(6000, rel=0.01)


class TestScaling:
    def test_the_same_arrivals_and_seed_give_the_same_result(self) -> None:
        arrivals = poisson(20, 300)
        pool = setup(Service.lognormal(0.25, 0.6), 4)

        first, again = (simulate(arrivals, pool, by_policy(Settings(slots=4))) for _ in range(2))

        assert first == again

    def test_a_replica_serves_after_its_cold_start_and_costs_from_its_decision(self) -> None:
        pool = setup(Service.fixed(0.5), 1, cold_start_s=6.0)
        arrivals = [i * 0.25 for i in range(400)]

        found = simulate(arrivals, pool, lambda _seen, now: 1 if now < 20 else 3)

        ready = {point.at: point.ready for point in found.timeline}
        assert (ready[20], ready[24], ready[26]) == (1, 1, 3)
        assert found.replica_s == pytest.approx(100 + 2 * 80, abs=3)

    def test_a_replica_that_is_let_go_serves_what_it_has(self) -> None:
        pool = setup(Service.fixed(5.0), 4, first=2, latency_s=6.0)

        found = simulate([0.1 * i for i in range(8)] + [19.0], pool, lambda _seen, now: 1)

        assert (found.violations, found.requests) == (0, 9)
        assert found.timeline[0].in_flight == 8
        assert found.replica_s == pytest.approx(20 + 5.7, abs=1.0)

    def test_the_policy_costs_less_than_a_fixed_count_for_the_same_violations(self) -> None:
        waves = [round(20 + 18 * math.sin(2 * math.pi * second / 900)) for second in range(3600)]
        arrivals = spread(waves)
        pool = setup(Service.lognormal(0.25, 0.6), 4, queue_timeout_s=2.0)

        scaled = simulate(arrivals, pool, by_policy(Settings(slots=4, maximum=20, objective=Objective(1.0))))
        many, few = (simulate(arrivals, replace(pool, first=n), fixed(n)) for n in (3, 2))

        assert scaled.violation_percent < 0.5 < 2.0 < few.violation_percent
        assert scaled.replica_s < 0.8 * many.replica_s

    def test_wakes_from_standby_before_it_starts(self) -> None:
        bursts = ([2] * 60 + [60] * 10) * 20
        arrivals = spread(bursts)
        pool = setup(Service.lognormal(0.25, 0.6), 4, cold_start_s=10.0, queue_timeout_s=2.0)

        none, some = (
            simulate(arrivals, pool, by_policy(Settings(slots=4, maximum=20, standby=n, objective=Objective(1.0))))
            for n in (0, 6)
        )

        assert some.violations < 0.6 * none.violations
        assert some.standby_s > 0
        assert max(point.standby for point in some.timeline) <= 6

    def test_sleeps_and_wakes_by_request(self) -> None:
        arrivals = [*poisson(5, 120), *(1000 + t for t in poisson(5, 60))]
        kept = Settings(minimum=0, slots=4, standby=1, idle_after_s=60, gone_after_s=300, objective=Objective(1.0))

        found = simulate(arrivals, setup(Service.lognormal(0.25, 0.6), 4, queue_timeout_s=60), by_policy(kept))

        awake = {point.at: (point.ready, point.standby) for point in found.timeline}
        assert awake[120][0] >= 1
        assert awake[300] == (0, 1)
        assert awake[700] == (0, 0)
        assert awake[1060][0] >= 1
        assert found.shed == 0

    @examples(max_examples=30, deadline=None)
    @given(
        counts=st.lists(st.integers(0, 30), min_size=1, max_size=60),
        replicas=st.lists(st.integers(0, 6), min_size=60, max_size=60),
        slots=st.integers(1, 4),
        cores=st.sampled_from([None, 1.0, 4.0]),
    )
    def test_accounts_for_every_request(
        self, counts: list[int], replicas: list[int], slots: int, cores: float | None
    ) -> None:
        arrivals = spread(counts)
        pool = Setup(service=Service.exponential(0.2), slots=slots, cold_start_s=1.0, cores=cores)

        found: Result = simulate(arrivals, pool, lambda _seen, now: max(1, replicas[int(now) % 60]))

        assert found.requests == len(arrivals) == sum(point.arrivals for point in found.timeline)
        assert 0 <= found.shed <= found.violations <= found.requests
        assert all(0 <= p.in_flight <= 60 * slots and p.queued >= 0 for p in found.timeline)
        assert found.replica_s >= 0

    def test_of_a_day_takes_seconds(self) -> None:
        """An hour of 10 requests/s with all its decisions is a twenty-fourth of it: CPU time, for others compute too."""
        arrivals = poisson(10, 3600)
        began = time.process_time()

        simulate(arrivals, setup(Service.lognormal(0.25, 0.6), 4), by_policy(Settings(slots=4)))

        assert time.process_time() - began < 1.5


class TestService:
    @pytest.mark.parametrize(
        "service", [Service.exponential(0.3), Service.lognormal(0.3, 1.5), Service.pareto(0.3, 2.5), Service.fixed(0.3)]
    )
    def test_has_its_mean(self, service: Service) -> None:
        assert service.mean_s == pytest.approx(0.3)

    def test_of_a_histogram_lies_in_its_buckets(self) -> None:
        found = Service.of_histogram((0.1, 0.2, math.inf), (50, 100, 100))

        assert found.mean_s == pytest.approx(0.1)
        assert max(found.values) <= 0.2

    def test_chance_is_evenly_spread_and_repeats(self) -> None:
        numbers = [chance(7, i) for i in range(20_000)]

        assert numbers[:100] == [chance(7, i) for i in range(100)]
        assert all(0 <= n < 1 for n in numbers)
        assert sum(numbers) / len(numbers) == pytest.approx(0.5, abs=0.01)
        lag = sum((a - 0.5) * (b - 0.5) for a, b in pairwise(numbers)) / len(numbers)
        assert abs(lag) < 0.003
