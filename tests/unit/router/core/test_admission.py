"""Late binding: slots, the queue, its order and its ends."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router.contract import VersionRoute
from router.core.admission import Lane
from router.core.balance import Replica
from router.core.errors import Refusal


class Waiting:
    """A waiter that remembers what it got."""

    def __init__(self, *, is_batch: bool = False, tried: Sequence[Replica] = ()) -> None:
        self.is_batch = is_batch
        self.tried = tried
        self.replica: Replica | None = None
        self.refusal: Refusal | None = None

    def take_slot(self, replica: Replica) -> None:
        assert self.replica is None
        self.replica = replica

    def refuse(self, refusal: Refusal) -> None:
        self.refusal = refusal


def lane(replicas: int = 1, **settings: object) -> Lane:
    made = Lane("m", "1", random.Random(1).randrange)
    made.update(
        VersionRoute(**{"concurrency": 1, **settings}), tuple(Replica(f"r{i}", "h", 1) for i in range(replicas))
    )  # type: ignore[arg-type]
    return made


def enqueue(lane: Lane, **arguments: object) -> Waiting:
    waiter = Waiting(**arguments)  # type: ignore[arg-type]
    assert lane.enqueue(waiter) is None
    return waiter


class TestQueue:
    def test_gives_a_freed_slot_to_the_oldest(self) -> None:
        busy = lane()
        held = busy.reserve()
        first, second = enqueue(busy), enqueue(busy)
        assert held is not None

        busy.release(held)

        assert (first.replica, second.replica, busy.queued) == (held, None, 1)

    def test_gives_nobody_a_slot_before_those_who_wait(self) -> None:
        busy = lane()
        busy.reserve()
        enqueue(busy)

        assert busy.reserve() is None

    def test_lets_batch_yield_to_everything_else(self) -> None:
        busy = lane()
        held = busy.reserve()
        batch, live = enqueue(busy, is_batch=True), enqueue(busy)
        assert held is not None

        busy.release(held)

        assert (batch.replica, live.replica) == (None, held)

    def test_forgets_who_left(self) -> None:
        busy = lane()
        held = busy.reserve()
        gone, stays = enqueue(busy), enqueue(busy)
        assert held is not None

        busy.leave(gone)
        busy.release(held)

        assert (gone.replica, stays.replica) == (None, held)

    def test_refuses_above_its_length_with_retry_after(self) -> None:
        busy = lane(queue_max=1)
        busy.reserve()
        enqueue(busy)

        refusal = busy.enqueue(Waiting())

        assert refusal is not None
        assert (refusal.status, refusal.code, refusal.retry_after_s) == (503, "OVERLOADED", 1)
        assert busy.stats.shed == {"queue_full": 1}

    def test_refuses_at_once_without_a_replica_and_says_the_state(self) -> None:
        refusal = lane(0, state="failed: out of memory").enqueue(Waiting())

        assert refusal is not None
        assert (refusal.code, "failed: out of memory" in refusal.text) == ("NOT_READY", True)

    @pytest.mark.parametrize("state", ["starting", "Starting: pulling the image", "waking", "loading 40 %"])
    def test_waits_for_a_replica_that_is_coming(self, state: str) -> None:
        empty = lane(0, state=state)
        waiter = enqueue(empty)
        replica = Replica("r", "h", 1)

        empty.update(VersionRoute(), (replica,))

        assert waiter.replica is replica

    def test_refuses_those_who_wait_when_no_replica_will_come(self) -> None:
        empty = lane(0, state="starting")
        waiter = enqueue(empty)

        empty.update(VersionRoute(state="failed: it exits at once"), ())

        assert waiter.refusal is not None
        assert (waiter.refusal.code, empty.queued) == ("NOT_READY", 0)

    def test_serves_waiters_when_replicas_join(self) -> None:
        busy = lane()
        busy.reserve()
        first, second, third = enqueue(busy), enqueue(busy), enqueue(busy)
        joined = Replica("new", "h", 1)

        busy.update(VersionRoute(concurrency=2), (*busy.replicas, joined))

        assert [w.replica is not None for w in (first, second, third)] == [True, True, True]
        assert joined.in_flight + busy.replicas[0].in_flight == 4


class TestRetry:
    def test_goes_to_another_replica_even_past_the_queue(self) -> None:
        busy = lane(2)
        one, two = busy.reserve(), busy.reserve()
        assert one is not None
        assert two is not None
        enqueue(busy)
        retry = Waiting(tried=(one,))

        assert busy.retry(retry)
        busy.release(two)

        assert retry.replica is two

    def test_waits_while_only_the_tried_replica_is_free(self) -> None:
        busy = lane(2)
        one, two = busy.reserve(), busy.reserve()
        assert one is not None
        assert two is not None
        retry = Waiting(tried=(one,))
        assert busy.retry(retry)

        busy.release(one)

        assert retry.replica is None

    def test_is_not_possible_without_another_replica(self) -> None:
        alone = lane()

        assert not alone.retry(Waiting(tried=alone.replicas))

    def test_is_refused_when_the_other_replica_leaves_the_table(self) -> None:
        busy = lane(2)
        one, two = busy.reserve(), busy.reserve()
        assert one is not None
        assert two is not None
        retry = Waiting(tried=(one,))
        assert busy.retry(retry)

        busy.update(VersionRoute(concurrency=1), (one,))

        assert retry.refusal is not None


class LaneMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, slots are counted right and nobody waits beside a free slot."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = [Replica(f"r{i}", "h", 1) for i in range(4)]
        self.lane = Lane("m", "1", random.Random(0).randrange)
        self.route = VersionRoute(concurrency=2, queue_max=10, state="starting")
        self.lane.update(self.route, tuple(self.pool[:2]))
        self.held: list[Replica] = []
        self.waiting: list[Waiting] = []

    @rule(is_batch=st.booleans())
    def arrive(self, is_batch: bool) -> None:
        replica = self.lane.reserve()
        if replica is not None:
            self.held.append(replica)
            return
        waiter = Waiting(is_batch=is_batch)
        if self.lane.enqueue(waiter) is None:
            self.waiting.append(waiter)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.lane.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.lane.leave(self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1))))

    @rule(count=st.integers(0, 4), concurrency=st.integers(1, 3))
    def swap_table(self, count: int, concurrency: int) -> None:
        self.route = VersionRoute(concurrency=concurrency, queue_max=10, state="starting")
        self.lane.update(self.route, tuple(self.pool[:count]))

    @invariant()
    def slots_are_counted_and_none_is_idle_beside_a_waiter(self) -> None:
        served = [waiter for waiter in self.waiting if waiter.replica is not None]
        self.held += [waiter.replica for waiter in served if waiter.replica]
        self.waiting = [waiter for waiter in self.waiting if waiter.replica is None]
        for replica in self.pool:
            assert replica.in_flight == self.held.count(replica)
        assert self.lane.in_flight == len(self.held)
        assert self.lane.queued == len(self.waiting) <= 10
        if self.waiting:
            assert all(r.in_flight >= self.route.concurrency for r in self.lane.replicas)


TestLaneMachine = LaneMachine.TestCase
TestLaneMachine.settings = settings(max_examples=60, stateful_step_count=40)
