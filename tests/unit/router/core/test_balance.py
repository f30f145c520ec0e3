"""The choice between replicas, and that choosing counts."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from itertools import count as counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.contract import BALANCES
from router.core.balance import DECAY_S, Least, PeakEwma, Replica, RoundRobin, balancer, reserve, reserve_for
from router.core.sticky import hash64


def replicas(*in_flight: int, capacity: int = 3) -> list[Replica]:
    made = []
    for index, count in enumerate(in_flight):
        replica = Replica(f"r{index}", "127.0.0.1", 1)
        replica.in_flight = count
        replica.capacity = capacity
        made.append(replica)
    return made


def below(count: int) -> int:
    return random.randrange(count)


class TestReserve:
    def test_counts_the_request_against_the_replica_it_chose(self) -> None:
        (only,) = replicas(2)

        assert reserve([only], below) is only
        assert only.in_flight == 3

    def test_finds_none_when_all_are_full(self) -> None:
        assert reserve(replicas(3, 3, 3, 3), below) is None
        assert reserve([], below) is None

    def test_takes_the_less_loaded_of_two(self) -> None:
        for _ in range(20):
            busy, idle = replicas(2, 1)
            assert reserve([busy, idle], below) is idle

    def test_finds_the_only_free_slot_among_many(self) -> None:
        """Late binding: nobody waits while any slot is free, whatever the two samples were."""
        for _ in range(50):
            fleet = replicas(1, 1, 1, 1, 1, 0, 1, 1, capacity=1)
            assert reserve(fleet, below) is fleet[5]

    def test_finds_room_beside_a_replica_that_may_be_given_less(self) -> None:
        for _ in range(20):
            returning, busy = replicas(1, 5, capacity=8)
            returning.capacity = 1
            assert reserve([returning, busy], below) is busy

    def test_leaves_out_what_was_tried(self) -> None:
        first, second = replicas(0, 0)

        assert reserve([first, second], below, (first,)) is second
        assert reserve([first, second], below, (first, second)) is None

    @pytest.mark.parametrize("count", [2, 3, 7])
    def test_spreads_evenly_over_idle_replicas(self, count: int) -> None:
        fleet = replicas(*[0] * count, capacity=1000)

        for _ in range(count * 100):
            reserve(fleet, below)

        # Two choices keep the loads within a few of each other; a plain random choice would be 10 apart (one sigma).
        assert max(r.in_flight for r in fleet) - min(r.in_flight for r in fleet) <= 8


Choose = Callable[[list[Replica], tuple[Replica, ...], float], Replica | None]


def way(name: str, seed: int = 0) -> Choose:
    """A way to choose, by its name in the table."""
    chance = random.Random(seed).randrange
    made = balancer(name, chance)
    if made is None:
        return lambda fleet, tried, now: reserve(fleet, chance, tried)
    return made.reserve


class TestEveryWay:
    @pytest.mark.parametrize("name", BALANCES)
    @given(data=st.data())
    def test_finds_a_slot_exactly_when_one_is_free(self, name: str, data: st.DataObject) -> None:
        """Late binding: nobody waits while any slot is free; no replica gets more than it may be given."""
        choose, now = way(name), 0.0
        fleet = replicas(*[0] * data.draw(st.integers(1, 6)))
        for _ in range(data.draw(st.integers(1, 30))):
            for replica in fleet:
                replica.capacity = data.draw(st.integers(1, 3))
                replica.in_flight = data.draw(st.integers(0, 3))
            tried = tuple(data.draw(st.lists(st.sampled_from(fleet), max_size=2)))
            free = [each for each in fleet if each.in_flight < each.capacity and each not in tried]
            before = {each: each.in_flight for each in fleet}
            now += data.draw(st.floats(0, 100))

            chosen = choose(fleet, tried, now)

            assert (chosen in free) if free else (chosen is None)
            assert {each: each.in_flight for each in fleet} == {each: before[each] + (each is chosen) for each in fleet}

    @pytest.mark.parametrize("name", BALANCES)
    def test_takes_up_a_fleet_that_changed_under_it(self, name: str) -> None:
        choose = way(name)
        for size in (5, 1, 3, 2):
            fleet = replicas(*[0] * size, capacity=1)

            assert {choose(fleet, (), 0.0) for _ in range(size)} == set(fleet)


class TestRoundRobin:
    def test_goes_in_turn(self) -> None:
        fleet, turns = replicas(0, 0, 0, capacity=9), RoundRobin()

        assert [turns.reserve(fleet, (), 0.0) for _ in range(6)] == fleet * 2

    @pytest.mark.parametrize(
        ("in_flight", "tried", "expected"),
        [
            ((0, 3, 0), (), "r0 r2 r0 r2"),
            ((3, 3, 0), (), "r2 r2 r2 -"),
            ((0, 0, 0), (1,), "r0 r2 r0 r2"),
            ((2, 0, 2), (), "r0 r1 r2 r1"),
        ],
    )
    def test_skips_who_is_full_or_was_tried(
        self, in_flight: tuple[int, ...], tried: tuple[int, ...], expected: str
    ) -> None:
        fleet, turns = replicas(*in_flight), RoundRobin()
        left_out = tuple(fleet[index] for index in tried)

        chosen = [turns.reserve(fleet, left_out, 0.0) for _ in range(4)]

        assert " ".join(each.id if each else "-" for each in chosen) == expected


class TestLeast:
    @pytest.mark.parametrize(
        ("in_flight", "expected"),
        [((2, 1, 0), "r2"), ((0, 1, 2), "r0"), ((3, 2, 3), "r1"), ((3, 3, 3), "-")],
    )
    def test_takes_the_fewest_in_flight(self, in_flight: tuple[int, ...], expected: str) -> None:
        chosen = Least().reserve(replicas(*in_flight), (), 0.0)

        assert (chosen.id if chosen else "-") == expected

    def test_lets_equals_take_turns(self) -> None:
        """A trickle of requests, each over before the next one comes, must not all go to the first."""
        fleet, least, taken = replicas(0, 0, 0), Least(), []

        for _ in range(6):
            chosen = least.reserve(fleet, (), 0.0)
            assert chosen is not None
            taken.append(chosen)
            chosen.in_flight -= 1

        assert taken == fleet * 2


class TestPeakEwma:
    def test_follows_a_peak_at_once_and_forgets_it_slowly(self) -> None:
        (replica,) = replicas(0)
        peak = replica.peak

        peak.observe(0.01, 0.0)
        peak.observe(1.0, 0.1)
        risen = peak.latency_s
        peak.observe(0.01, 0.2)
        after_one_good = peak.latency_s
        peak.observe(0.01, 0.2 + 5 * DECAY_S)

        assert (risen, after_one_good > 0.98) == (1.0, True)
        assert peak.latency_s < 0.02

    def test_counts_what_is_in_flight(self) -> None:
        fast, slow = replicas(9, 0, capacity=20)
        fast.peak.observe(0.1, 0.0)
        slow.peak.observe(1.5, 0.0)

        assert PeakEwma(below).reserve([fast, slow], (), 0.0) is fast  # 10 x 0.1 < 1 x 1.5
        fast.in_flight = 15
        assert PeakEwma(below).reserve([fast, slow], (), 0.0) is slow

    def test_tries_a_new_replica_with_one_request_and_waits_for_its_answer(self) -> None:
        known, new = replicas(2, 0, capacity=9)
        known.peak.observe(0.1, 0.0)
        ways = PeakEwma(below)

        assert [ways.reserve([known, new], (), 0.0) for _ in range(4)] == [new, known, known, known]
        ways.saw(new, 0.01, 0.1)
        assert ways.reserve([known, new], (), 0.1) is new

    def test_asks_a_replica_again_that_was_slow_long_ago(self) -> None:
        good, was_slow = replicas(0, 0)
        was_slow.peak.observe(5.0, 0.0)
        good.peak.observe(0.1, 6 * DECAY_S)

        assert PeakEwma(below).reserve([good, was_slow], (), 6 * DECAY_S) is was_slow


class TestOneSlowReplicaOfThree:
    """What each way is for: a closed loop of 6 callers on three replicas, one of which takes ten times as long."""

    SERVICE_S = (0.02, 0.02, 0.2)

    @staticmethod
    def shares(name: str, callers: int) -> Counter[str]:
        """Simulates 2,000 requests; how many went to which replica."""
        chance = random.Random(1).randrange
        made, fleet, order = balancer(name, chance), replicas(0, 0, 0, capacity=32), counter()
        service_s = dict(zip(fleet, TestOneSlowReplicaOfThree.SERVICE_S, strict=True))
        ends: list[tuple[float, int, Replica | None]] = [(i / 1000, next(order), None) for i in range(callers)]
        taken: Counter[str] = Counter()
        while taken.total() < 2000:
            now, _, done = heapq.heappop(ends)
            if done is not None:
                done.in_flight -= 1
                if made is not None:
                    made.saw(done, service_s[done], now)
            chosen = made.reserve(fleet, (), now) if made is not None else reserve(fleet, chance)
            assert chosen is not None
            taken[chosen.id] += 1
            heapq.heappush(ends, (now + service_s[chosen], next(order), chosen))
        return taken

    def test_round_robin_gives_it_a_third_all_the_same(self) -> None:
        assert self.shares("round_robin", 6)["r2"] == pytest.approx(667, abs=1)

    @pytest.mark.parametrize("name", ["two_choices", "least"])
    def test_counting_what_is_in_flight_gives_it_less_only_while_the_others_are_busy(self, name: str) -> None:
        assert 60 < self.shares(name, 6)["r2"] < 400
        assert self.shares(name, 1)["r2"] > 500

    def test_peak_ewma_gives_it_next_to_nothing_busy_or_idle(self) -> None:
        assert self.shares("peak_ewma", 6)["r2"] < 40
        assert self.shares("peak_ewma", 1)["r2"] < 40


class TestReserveFor:
    """The replica that a sticky caller keeps."""

    @given(st.integers(0, 2**64 - 1), st.integers(1, 6))
    def test_is_the_same_while_it_has_a_free_slot(self, affinity: int, size: int) -> None:
        fleet = replicas(*[0] * size)

        assert len({reserve_for(fleet, affinity) for _ in range(3)}) == 1

    @given(st.integers(0, 2**64 - 1))
    def test_spills_over_in_an_order_of_its_own_and_comes_back(self, affinity: int) -> None:
        fleet = replicas(0, 0, 0, capacity=1)

        order = [reserve_for(fleet, affinity) for _ in range(4)]

        assert (set(order[:3]), order[3]) == (set(fleet), None)
        for replica in fleet:
            replica.in_flight = 0
        assert [reserve_for(list(reversed(fleet)), affinity) for _ in range(3)] == order[:3]

    @given(st.integers(0, 2**64 - 1), st.integers(2, 6), st.data())
    def test_moves_only_the_callers_of_a_lost_replica(self, affinity: int, size: int, data: st.DataObject) -> None:
        fleet = replicas(*[0] * size, capacity=9)
        lost = data.draw(st.sampled_from(fleet))
        before = reserve_for(fleet, affinity)

        after = reserve_for([each for each in fleet if each is not lost], affinity)

        assert (after is before) == (before is not lost)

    def test_spreads_callers_evenly(self) -> None:
        """3,000 callers on three replicas: 130 off is five sigma, one false alarm in 500,000 had it been chance."""
        fleet = replicas(0, 0, 0, capacity=3000)

        for caller in range(3000):
            reserve_for(fleet, hash64(b"caller %d" % caller))

        assert all(abs(replica.in_flight - 1000) < 130 for replica in fleet)
