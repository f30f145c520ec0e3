"""Predictions from counters that only grow, read by a control plane that comes and goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.cost.predictions import Counted, count
from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.series import ANSWERED, BEGAN_AT, GatewayReadings, Series, readings

IRIS, ROSE = VersionKey("iris", "1"), VersionKey("rose", "1")
ALIVE = {IRIS, ROSE}


def gateway(began_at: float, *, iris: float = 0, rose: float = 0, failed: float = 0) -> GatewayReadings:
    values = [(Series(BEGAN_AT), began_at)]
    for key, answered in ((IRIS, iris), (ROSE, rose)):
        values += [(Series(ANSWERED, key, "200"), answered), (Series(ANSWERED, key, "503"), failed)]
    return readings(values, at=began_at + 50)


def test_of_a_gateway_that_began_since_all_count() -> None:
    assert count({}, {"g": gateway(100, iris=5)}, since=90, alive=ALIVE).increase == {IRIS: 5}


def test_of_one_that_was_there_before_what_comes_counts() -> None:
    first = count({}, {"g": gateway(100, iris=5)}, since=200, alive=ALIVE)
    second = count(first.seen, {"g": gateway(100, iris=7, rose=2)}, since=200, alive=ALIVE)

    assert first.increase == {}
    assert second.increase == {IRIS: 2, ROSE: 2}


def test_answers_that_are_no_predictions_do_not() -> None:
    assert count({}, {"g": gateway(100, failed=9)}, since=90, alive=ALIVE).increase == {}


def test_another_gateway_at_the_same_place_begins_at_zero() -> None:
    seen = {"g": Counted(100, {IRIS: 50})}

    assert count(seen, {"g": gateway(400, iris=3)}, since=90, alive=ALIVE).increase == {IRIS: 3}


def test_a_source_that_lags_takes_nothing_back() -> None:
    seen = {"g": Counted(100, {IRIS: 50})}
    late = count(seen, {"g": gateway(100.2, iris=40)}, since=90, alive=ALIVE)
    then = count(late.seen, {"g": gateway(100, iris=51)}, since=90, alive=ALIVE)

    assert late.increase == {}
    assert then.increase == {IRIS: 1}


def test_a_version_that_is_gone_is_forgotten_and_begins_anew() -> None:
    seen = count({"g": Counted(100, {IRIS: 50})}, {"g": gateway(100, iris=50)}, since=90, alive={ROSE}).seen

    assert count(seen, {"g": gateway(100, iris=4)}, since=90, alive=ALIVE).increase == {IRIS: 4}


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=30))
def test_however_often_it_is_read_each_counts_once(steps: list[tuple[int, bool]]) -> None:
    """`True`: the gateway was started anew before these."""
    seen: dict[str, Counted] = {}
    total, began_at, value = 0.0, 100.0, 0
    for more, is_new in steps:
        if is_new:
            began_at, value = began_at + 10, 0
        value += more
        found = count(seen, {"g": gateway(began_at, iris=value)}, since=90, alive=ALIVE)
        seen, total = dict(found.seen), total + sum(found.increase.values())

    assert total == sum(more for more, _ in steps)
