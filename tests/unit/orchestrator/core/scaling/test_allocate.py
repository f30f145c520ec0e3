"""Who gets what when the cluster does not suffice for all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.entities import ClusterLimits, Resources, VersionKey
from orchestrator.core.scaling.allocate import Claim, allocate
from orchestrator.core.scaling.decide import act
from orchestrator.core.scaling.decision import Inputs
from orchestrator.core.scaling.facts import Counts
from orchestrator.core.scaling.sleep import Rest
from tests.unit.orchestrator.core.scaling.builders import sample

MIB = 2**20


def claim(
    name: str,
    target: int,
    *,
    ready: int = 0,
    starting: int = 0,
    minimum: int = 0,
    priority: int = 0,
    late: float = 0.0,
    cpus: float = 1.0,
    memory: int = 100,
    standby: int = 0,
) -> Claim:
    inputs = Inputs(
        sample=sample(0.0, 50.0, late=100.0 * late),
        counts=Counts(ready=ready, starting=starting),
        percentile=95,
        minimum=minimum,
        maximum=99,
        cold_start_s=2.0,
        rest=Rest(False, standby, 0.0),
    )
    decision = act(VersionKey(name, "1"), ready, target, inputs)
    return Claim(decision, Resources(cpus=cpus, memory_bytes=memory * MIB), priority)


def given_to(*claims: Claim, cpus: float | None = None, memory: int | None = None) -> dict[str, int]:
    limits = ClusterLimits(cpus, None if memory is None else memory * MIB, max_starting=99)
    return {d.key.model: d.target for d in allocate(claims, limits)}


class TestAllocate:
    def test_without_limits_gives_what_is_asked(self) -> None:
        assert given_to(claim("a", 50), claim("b", 7)) == {"a": 50, "b": 7}

    def test_gives_by_priority(self) -> None:
        assert given_to(claim("a", 6), claim("b", 6, priority=1), cpus=8) == {"a": 2, "b": 6}

    def test_gives_minimums_before_anything_else(self) -> None:
        assert given_to(claim("a", 6, minimum=3), claim("b", 6, priority=1), cpus=8) == {"a": 3, "b": 5}

    def test_takes_from_nobody_of_equal_priority(self) -> None:
        assert given_to(claim("a", 6, ready=6), claim("b", 6, ready=1, late=0.5), cpus=8) == {"a": 6, "b": 2}

    def test_takes_from_who_has_a_lower_priority(self) -> None:
        assert given_to(claim("a", 6, ready=6), claim("b", 6, ready=1, priority=1), cpus=8) == {"a": 2, "b": 6}

    def test_gives_new_ones_to_whose_requests_are_late(self) -> None:
        assert given_to(claim("a", 4), claim("b", 4, late=0.2), cpus=5) == {"a": 1, "b": 4}

    def test_gives_otherwise_in_proportion(self) -> None:
        assert given_to(claim("a", 8), claim("b", 4), cpus=6) == {"a": 4, "b": 2}

    def test_counts_memory_too(self) -> None:
        assert given_to(claim("a", 4, memory=300), claim("b", 4, priority=1), memory=1000) == {"a": 2, "b": 4}

    def test_lets_a_small_replica_use_what_a_large_one_cannot(self) -> None:
        assert given_to(claim("a", 2, cpus=4, priority=1), claim("b", 2, cpus=1), cpus=6) == {"a": 1, "b": 2}

    def test_standby_replicas_take_memory_and_no_cpu_and_come_last(self) -> None:
        limits = ClusterLimits(4, 600 * MIB, max_starting=99)

        decisions = allocate([claim("a", 2, standby=3), claim("b", 2)], limits)

        assert [(d.target, d.standby) for d in decisions] == [(2, 2), (2, 0)]

    def test_says_to_whom_it_did_not_suffice(self) -> None:
        first, second = allocate([claim("a", 6), claim("b", 2, priority=1)], ClusterLimits(max_cpus=4))

        assert first.reason.startswith("a@1: 0 -> 2: limited to 2 of 6 by cluster.max_cpus 4 at priority 0")
        assert "limited" not in second.reason

    def test_a_limit_that_stays_is_no_change(self) -> None:
        once = replace(claim("a", 6, ready=2), granted=2)

        assert not allocate([once], ClusterLimits(max_cpus=2))[0].is_change

    def test_bounds_how_many_start_at_a_time(self) -> None:
        claims = [claim("a", 5, starting=1), claim("b", 5, priority=1)]

        a, b = allocate(claims, ClusterLimits(max_starting=4))

        assert (a.start, b.start) == (0, 3)
        assert (a.target, b.target) == (5, 5)
        assert b.reason.endswith("2 of 5 starts wait, for 4 may start at a time")

    @given(
        asked=st.lists(
            st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 3), st.integers(0, 2), st.integers(1, 4)),
            min_size=1,
            max_size=6,
        ),
        cpus=st.integers(0, 30),
        memory=st.integers(0, 3000),
    )
    def test_never_gives_more_than_there_is_or_than_was_asked(
        self, asked: list[tuple[int, int, int, int, int]], cpus: int, memory: int
    ) -> None:
        claims = [
            claim(f"m{i}", target, ready=ready, standby=standby, priority=priority, cpus=float(size), memory=100 * size)
            for i, (target, ready, standby, priority, size) in enumerate(asked)
        ]

        decisions = allocate(claims, ClusterLimits(float(cpus), memory * MIB))

        sizes = [size for *_, size in asked]
        assert sum(d.target * size for d, size in zip(decisions, sizes, strict=True)) <= cpus
        assert sum((d.target + d.standby) * 100 * size for d, size in zip(decisions, sizes, strict=True)) <= memory
        for decision, one in zip(decisions, claims, strict=True):
            assert decision.target <= one.decision.target
            assert decision.standby <= one.decision.standby

    @pytest.mark.parametrize("cpus", range(1, 20))
    def test_a_higher_priority_never_gets_less_for_a_lower_one_that_asks_for_more(self, cpus: int) -> None:
        few = given_to(claim("a", 2), claim("b", 9, priority=1), cpus=cpus)
        many = given_to(claim("a", 20, late=1.0), claim("b", 9, priority=1), cpus=cpus)

        assert few["b"] == many["b"]
