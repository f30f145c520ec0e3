"""What replicas took, by tables and by properties: sums equal parts, nothing is negative, and no restart loses anything."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.cost.account import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    MOST_BETWEEN_LOOKS_S,
    Bucket,
    Held,
    account,
    bucket_at,
    buckets,
)
from orchestrator.core.cost.amounts import GIB, NAMES, Amounts, cost_per_hour, of_replica
from orchestrator.core.entities import Pricing, Resources, VersionKey

KEY = VersionKey("iris", "1")
TWO = Resources(cpus=2.0, memory_bytes=4 * GIB)
PRICES = Pricing(cpu_hour=0.5, memory_gib_hour=0.25)
NOW = 1_700_000_000.0


def held(created_at: float = NOW - 1000, *, is_awake: bool = True, is_busy: bool | None = False) -> Held:
    return Held(KEY, created_at, TWO, is_awake, is_busy)


class TestOneReplica:
    def test_awake_costs_cores_and_memory(self) -> None:
        taken = of_replica(3600, TWO, PRICES, is_awake=True, is_busy=True)

        assert taken == Amounts(
            replica_s=3600, cpu_s=7200, memory_gib_s=14_400, judged_s=3600, cost=pytest.approx(2.0)
        )  # fmt: skip

    def test_without_a_request_inside_it_idles(self) -> None:
        taken = of_replica(3600, TWO, PRICES, is_awake=True, is_busy=False)

        assert (taken.idle_s, taken.idle_cost, taken.idle_share) == (3600, taken.cost, 1.0)

    def test_in_standby_it_holds_memory_and_no_cpu(self) -> None:
        taken = of_replica(3600, TWO, PRICES, is_awake=False, is_busy=None)

        assert taken == Amounts(
            standby_s=3600, memory_gib_s=14_400, cost=pytest.approx(1.0), idle_cost=pytest.approx(1.0)
        )
        assert taken.idle_share is None, "standby is no time in which it could have had a request"

    def test_whose_requests_nobody_saw_is_neither_idle_nor_busy(self) -> None:
        taken = of_replica(60, TWO, PRICES, is_awake=True, is_busy=None)

        assert (taken.judged_s, taken.idle_s, taken.idle_cost, taken.idle_share) == (0, 0, 0, None)
        assert taken.cost > 0

    def test_without_prices_its_cost_is_unknown_and_not_zero(self) -> None:
        taken = of_replica(60, TWO, Pricing(), is_awake=True, is_busy=True)

        assert not taken.is_priced
        assert (taken.cost_per_1000, taken.unpriced_s) == (None, 60)

    def test_prices_of_memory_alone_are_prices(self) -> None:
        assert Pricing(memory_gib_hour=0.1).is_set
        assert not Pricing(currency="EUR").is_set
        assert cost_per_hour(TWO, Pricing(memory_gib_hour=0.1), is_awake=False) == pytest.approx(0.4)


def test_cost_per_thousand_predictions() -> None:
    assert Amounts(replica_s=10, cost=3, predictions=6000).cost_per_1000 == pytest.approx(0.5)
    assert Amounts(replica_s=10, cost=3).cost_per_1000 is None


class TestBetweenTwoLooks:
    def test_counts_those_that_run_now(self) -> None:
        taken = account({}, {"a": held(), "b": held()}, NOW - 2, NOW, PRICES)

        assert taken[KEY].replica_s == pytest.approx(4)

    def test_one_that_began_in_between_from_when_it_was_made(self) -> None:
        taken = account({}, {"a": held(NOW - 0.5)}, NOW - 2, NOW, PRICES)

        assert taken[KEY].replica_s == pytest.approx(0.5)

    def test_one_from_the_future_takes_nothing(self) -> None:
        assert account({}, {"a": held(NOW + 5)}, NOW - 2, NOW, PRICES) == {}

    def test_over_a_gap_those_seen_twice_ran_all_the_time(self) -> None:
        taken = account({"a": held()}, {"a": held(is_busy=False)}, NOW - 900, NOW, PRICES)

        assert (taken[KEY].replica_s, taken[KEY].unknown_s) == (900, 0)
        assert taken[KEY].idle_share is None, "nobody saw what was inside meanwhile"

    def test_over_a_gap_one_that_is_gone_is_unknown(self) -> None:
        taken = account({"a": held()}, {}, NOW - 900, NOW, PRICES)

        assert taken == {KEY: Amounts(unknown_s=900)}

    def test_over_a_second_one_that_is_gone_is_no_news(self) -> None:
        assert account({"a": held()}, {}, NOW - 1, NOW, PRICES) == {}

    def test_one_of_which_nobody_knows_what_it_asks_for_is_unknown(self) -> None:
        taken = account({}, {"a": Held(KEY, 0.0, None, True)}, NOW - 1, NOW, PRICES)

        assert taken == {KEY: Amounts(unknown_s=1)}


class TestBuckets:
    @pytest.mark.parametrize(
        ("age_s", "width_s"),
        [(0, MINUTE_S), (HOUR_S, MINUTE_S), (4 * HOUR_S, HOUR_S), (30 * DAY_S, HOUR_S), (40 * DAY_S, DAY_S)],
    )
    def test_are_wider_the_older_they_are(self, age_s: float, width_s: int) -> None:
        found = bucket_at(NOW - age_s, NOW)

        assert found.width_s == width_s
        assert found.start <= NOW - age_s < found.start + width_s
        assert found.start % width_s == 0

    def test_a_second_over_a_minute_is_split_at_it(self) -> None:
        minute = NOW - NOW % 60

        found = list(buckets(minute - 1.0, minute + 3.0, NOW))

        assert [(bucket, pytest.approx(share)) for bucket, share in found] == [
            (Bucket(int(minute) - 60, 60), 0.25), (Bucket(int(minute), 60), 0.75),
        ]  # fmt: skip

    @given(st.floats(0, 60 * DAY_S), st.floats(0.001, 3 * DAY_S))
    def test_cover_a_time_whole_and_once(self, age_s: float, length_s: float) -> None:
        began = NOW - age_s - length_s

        found = list(buckets(began, began + length_s, NOW))

        assert math.isclose(sum(share for _, share in found), 1.0, rel_tol=1e-9)
        assert all(share > 0 for _, share in found)
        ends = [bucket.start + bucket.width_s for bucket, _ in found]
        assert [bucket.start for bucket, _ in found[1:]] == ends[:-1]


amounts = st.builds(Amounts, *(st.floats(0, 1e9) for _ in NAMES))


class TestProperties:
    @given(amounts, st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8))
    def test_parts_sum_to_the_whole(self, whole: Amounts, weights: list[float]) -> None:
        parts = [whole.share(weight / sum(weights)) for weight in weights]
        total = Amounts()
        for part in parts:
            total += part

        for name in NAMES:
            assert math.isclose(getattr(total, name), getattr(whole, name), rel_tol=1e-9, abs_tol=1e-9)
            assert all(getattr(part, name) >= 0 for part in parts)

    @given(st.data(), st.integers(1, 6))
    def test_looks_at_any_moments_and_a_restart_anywhere_count_the_same(
        self, data: st.DataObject, replicas: int
    ) -> None:
        """Replicas that run from first to last: however the time is cut, and wherever nobody looked for a while."""
        cuts = sorted(data.draw(st.sets(st.floats(0.1, 5000), max_size=30)))
        fleet = {f"r{n}": held(NOW - 50 * n) for n in range(replicas)}
        until = NOW + 5001
        moments = [NOW, *(NOW + cut for cut in cuts), until]

        total = Amounts()
        for began, end in pairwise(moments):
            total += account(fleet, fleet, began, end, PRICES).get(KEY, Amounts())

        expected_s = 5001 * replicas
        assert math.isclose(total.replica_s, expected_s, rel_tol=1e-9)
        assert math.isclose(total.cost, expected_s / 3600 * 2.0, rel_tol=1e-9)
        assert total.unknown_s == 0
        assert 0 <= total.idle_s <= total.judged_s <= total.replica_s + 1e-6
        assert total.idle_cost <= total.cost + 1e-9

    @given(
        st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from([None, True, False]))),
        st.floats(0.01, 2 * MOST_BETWEEN_LOOKS_S),
    )
    def test_nothing_is_negative_and_all_time_is_somewhere(
        self, seen: list[tuple[bool, bool, bool | None]], span_s: float
    ) -> None:
        before = {str(n): held() for n, (was, _, _) in enumerate(seen) if was}
        now = {str(n): held(is_awake=awake, is_busy=busy) for n, (_, awake, busy) in enumerate(seen) if n % 2}

        for taken in account(before, now, NOW - span_s, NOW, PRICES).values():
            assert all(getattr(taken, name) >= 0 for name in NAMES)
            gone = len(before.keys() - now.keys()) if span_s > MOST_BETWEEN_LOOKS_S else 0
            whole_s = (len(now) + gone) * span_s
            assert taken.replica_s + taken.standby_s + taken.unknown_s == pytest.approx(whole_s, rel=1e-6)
