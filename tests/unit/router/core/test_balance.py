"""The choice between replicas, and that choosing counts."""

from __future__ import annotations

import random

import pytest

from router.core.balance import Replica, reserve


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
