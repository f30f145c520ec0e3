"""What idles most, and what to do about it."""

from __future__ import annotations

import pytest

from orchestrator.core.cost.advice import advice
from orchestrator.core.cost.amounts import Amounts
from orchestrator.core.entities import Scaling, VersionKey
from tests.unit.orchestrator.core.builders import version

IRIS, ROSE = VersionKey("iris", "1"), VersionKey("rose", "1")
IDLE = Amounts(replica_s=7200, judged_s=7200, idle_s=6480, cost=2, idle_cost=1.8)
BUSY = Amounts(replica_s=7200, judged_s=7200, idle_s=1000, cost=2, idle_cost=0.3)
STANDBY = Amounts(standby_s=36_000, memory_gib_s=5, cost=1, idle_cost=1)


def desired(scaling: Scaling, replicas: int = 1):  # type: ignore[no-untyped-def]
    return {IRIS: version("iris@1", replicas=replicas, scaling=scaling), ROSE: version("rose@1")}


@pytest.mark.parametrize(
    ("scaling", "replicas", "remedy"),
    [
        (Scaling(minimum=3, maximum=3), 3, "let the load choose its count: `scaling: {min: 1, max: 3}` with an `slo`"),
        (Scaling(), 1, "let it sleep while nobody asks: `scaling: {min: 0, max: 1, idle_after: 10m}`"),
        (
            Scaling(minimum=1, maximum=4),
            1,
            "let it sleep while nobody asks: `scaling: {min: 0, max: 4, idle_after: 10m}`",
        ),
        (Scaling(minimum=2, maximum=4), 2, "lower scaling.min from 2"),
        (Scaling(minimum=0, maximum=4), 1, "lower scaling.idle_after from 600s, so that it sleeps sooner"),
    ],
)
def test_fits_how_its_count_came_about(scaling: Scaling, replicas: int, remedy: str) -> None:
    said = advice({IRIS: IDLE, ROSE: BUSY}, desired(scaling, replicas), "EUR")

    assert said == f"iris@1 idles most: in 90% of 2.0 replica hours no request was inside, for 1.80 EUR; {remedy}"


def test_of_standby() -> None:
    said = advice({IRIS: STANDBY}, desired(Scaling(minimum=0, maximum=1, standby=2)), "")

    assert said == (
        "iris@1 idles most: its replicas were in standby for 10.0 hours, for 1.00; lower scaling.standby from 2, or set "
        "scaling.gone_after so that standby ends too"
    )


@pytest.mark.parametrize(
    "taken",
    [
        {},
        {ROSE: BUSY},
        {VersionKey("gone", "1"): IDLE},
        {IRIS: Amounts(replica_s=7200, cost=2)},  # nobody saw what was inside
        {IRIS: Amounts(replica_s=30, judged_s=30, idle_s=30)},  # too short to say
    ],
)
def test_is_not_given_where_there_is_nothing_to_say(taken: dict[VersionKey, Amounts]) -> None:
    assert advice(taken, desired(Scaling()), "EUR") == ""


def test_without_prices_goes_by_time() -> None:
    said = advice({IRIS: Amounts(replica_s=7200, judged_s=7200, idle_s=7200, unpriced_s=7200)}, desired(Scaling()), "")

    assert said.startswith("iris@1 idles most: in 100% of 2.0 replica hours no request was inside; ")
