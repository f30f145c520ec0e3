"""Late binding: slots, the queue, its order and its ends."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router.contract import BALANCES, VersionRoute
from router.core.admission import Lane
from router.core.balance import Replica
from router.core.errors import Refusal


class Waiting:
    """A waiter that remembers what it got."""

    def __init__(
        self,
        *,
        is_batch: bool = False,
        tried: Sequence[Replica] = (),
        deadline: float = 60.0,
        caller: str | None = None,
    ) -> None:
        self.is_batch = is_batch
        self.caller = caller
        self.deadline = deadline
        self.tried = tried
        self.replica: Replica | None = None
        self.refusal: Refusal | None = None

        self.promised: bool | None = None

    def wait_on(self, is_promised: bool) -> None:
        self.promised = is_promised

    def take_slot(self, replica: Replica) -> None:
        assert self.replica is None
        self.replica = replica

    def refuse(self, refusal: Refusal) -> None:
        self.refusal = refusal


def lane(replicas: int = 1, **settings: object) -> Lane:
    made = Lane("m", "1", random.Random(1).randrange)
    route = VersionRoute(**{"concurrency": 1, **settings})  # type: ignore[arg-type]
    made.update(route, tuple(Replica(f"r{i}", "h", 1) for i in range(replicas)), 0.0)
    return made


def enqueue(lane: Lane, **arguments: object) -> Waiting:
    waiter = Waiting(**arguments)  # type: ignore[arg-type]
    assert lane.enqueue(waiter, 0.0) is None
    return waiter


class TestAsleep:
    ASLEEP = VersionRoute(state="asleep: a request wakes it", queue_max=2)

    def sleeping(self) -> tuple[Lane, list[Lane]]:
        woken: list[Lane] = []
        made = Lane("m", "1", random.Random(1).randrange, wake=woken.append)
        made.update(self.ASLEEP, (), 0.0)
        return made, woken

    def test_a_request_waits_and_wakes_it(self) -> None:
        asleep, woken = self.sleeping()

        enqueue(asleep)

        assert asleep.queued == 1
        assert woken == [asleep]

    def test_its_queue_has_its_limit(self) -> None:
        asleep, _ = self.sleeping()
        enqueue(asleep)
        enqueue(asleep)

        refusal = asleep.enqueue(Waiting(), 0.0)

        assert refusal is not None
        assert refusal.code == "OVERLOADED"

    def test_a_table_by_which_it_falls_asleep_under_a_request_wakes_it(self) -> None:
        woken: list[Lane] = []
        made = Lane("m", "1", random.Random(1).randrange, wake=woken.append)
        made.update(VersionRoute(state="starting: loading"), (), 0.0)
        enqueue(made)
        assert woken == []

        made.update(self.ASLEEP, (), 0.0)

        assert woken == [made]

    def test_nobody_is_told_of_one_that_starts_already(self) -> None:
        asleep, woken = self.sleeping()
        asleep.update(VersionRoute(state="waking: from standby"), (), 0.0)

        enqueue(asleep)

        assert woken == []

    def test_once_it_cannot_start_all_are_refused_with_the_reason(self) -> None:
        asleep, _ = self.sleeping()
        waiting = [enqueue(asleep), enqueue(asleep)]

        asleep.update(VersionRoute(state="failed: the weights are cursed"), (), 0.0)

        refusals = [waiter.refusal for waiter in waiting]
        assert [r.code for r in refusals if r] == ["NOT_READY", "NOT_READY"]
        assert all(r and "the weights are cursed" in r.text and r.retry_after_s for r in refusals)

    def test_those_who_waited_get_no_more_slots_than_there_are(self) -> None:
        asleep, _ = self.sleeping()
        first, second = enqueue(asleep), enqueue(asleep)

        asleep.update(VersionRoute(concurrency=1), (Replica("r", "h", 1),), 0.0)

        assert first.replica is not None
        assert second.replica is None


class TestQueue:
    def test_gives_a_freed_slot_to_the_oldest(self) -> None:
        busy = lane()
        held = busy.reserve(0.0)
        first, second = enqueue(busy), enqueue(busy)
        assert held is not None

        busy.release(held, 0.0)

        assert (first.replica, second.replica, busy.queued) == (held, None, 1)

    def test_gives_nobody_a_slot_before_those_who_wait(self) -> None:
        busy = lane()
        busy.reserve(0.0)
        enqueue(busy)

        assert busy.reserve(0.0) is None

    def test_lets_batch_yield_to_everything_else(self) -> None:
        busy = lane()
        held = busy.reserve(0.0)
        batch, live = enqueue(busy, is_batch=True), enqueue(busy)
        assert held is not None

        busy.release(held, 0.0)

        assert (batch.replica, live.replica) == (None, held)

    def test_forgets_who_left(self) -> None:
        busy = lane()
        held = busy.reserve(0.0)
        gone, stays = enqueue(busy), enqueue(busy)
        assert held is not None

        busy.leave(gone)
        busy.release(held, 0.0)

        assert (gone.replica, stays.replica) == (None, held)

    def test_refuses_above_its_length_with_retry_after(self) -> None:
        busy = lane(queue_max=1)
        busy.reserve(0.0)
        enqueue(busy)

        refusal = busy.enqueue(Waiting(), 0.0)

        assert refusal is not None
        assert (refusal.status, refusal.code, refusal.retry_after_s) == (503, "OVERLOADED", 1)
        assert busy.stats.shed == {"queue_full": 1}

    def test_refuses_at_once_without_a_replica_and_says_the_state(self) -> None:
        refusal = lane(0, state="failed: out of memory").enqueue(Waiting(), 0.0)

        assert refusal is not None
        assert (refusal.code, "failed: out of memory" in refusal.text) == ("NOT_READY", True)

    @pytest.mark.parametrize("state", ["starting", "Starting: pulling the image", "waking", "loading 40 %"])
    def test_waits_for_a_replica_that_is_coming(self, state: str) -> None:
        empty = lane(0, state=state)
        waiter = enqueue(empty)
        replica = Replica("r", "h", 1)

        empty.update(VersionRoute(), (replica,), 0.0)

        assert waiter.replica is replica

    def test_refuses_those_who_wait_when_no_replica_will_come(self) -> None:
        empty = lane(0, state="starting")
        waiter = enqueue(empty)

        empty.update(VersionRoute(state="failed: it exits at once"), (), 0.0)

        assert waiter.refusal is not None
        assert (waiter.refusal.code, empty.queued) == ("NOT_READY", 0)

    def test_serves_waiters_when_replicas_join(self) -> None:
        busy = lane()
        busy.reserve(0.0)
        first, second, third = enqueue(busy), enqueue(busy), enqueue(busy)
        joined = Replica("new", "h", 1)

        busy.update(VersionRoute(concurrency=2), (*busy.replicas, joined), 0.0)

        assert [w.replica is not None for w in (first, second, third)] == [True, True, True]
        assert joined.in_flight + busy.replicas[0].in_flight == 4


class TestWarmFirst:
    """A replica that just became ready gets work at its concurrency, not the backlog."""

    @pytest.mark.parametrize("balance", BALANCES)
    def test_gives_a_new_replica_no_more_than_its_concurrency(self, balance: str) -> None:
        waking = lane(0, state="starting", balance=balance)
        backlog = [enqueue(waking) for _ in range(50)]
        new = Replica("r", "h", 1)

        waking.update(VersionRoute(concurrency=2, balance=balance), (new,), 1.0)

        assert [waiter.replica is new for waiter in backlog] == [True] * 2 + [False] * 48
        assert (new.in_flight, waking.queued) == (2, 48)

    @pytest.mark.parametrize("balance", BALANCES)
    def test_leaves_the_rest_of_the_backlog_to_whoever_is_free_first(self, balance: str) -> None:
        busy = lane(1, concurrency=2, balance=balance)
        (warm,) = busy.replicas
        for _ in range(2):
            busy.reserve(0.0)
        backlog = [enqueue(busy) for _ in range(10)]
        new = Replica("new", "h", 1)
        busy.update(VersionRoute(concurrency=2, balance=balance), (warm, new), 1.0)

        busy.release(warm, 2.0)
        busy.release(warm, 2.0)

        assert [waiter.replica for waiter in backlog[:5]] == [new, new, warm, warm, None]


class TestFairShare:
    """When a queue builds, API keys get slots by turns."""

    def test_gives_slots_by_turns(self) -> None:
        busy = lane()
        held = busy.reserve(0.0)
        assert held is not None
        greedy = [enqueue(busy, caller="a") for _ in range(5)]
        modest = enqueue(busy, caller="b")

        busy.release(held, 0.0)
        busy.release(held, 0.0)

        assert (greedy[0].replica, modest.replica, greedy[1].replica) == (held, held, None)

    def test_lets_the_greediest_give_way_when_the_queue_is_full(self) -> None:
        busy = lane(queue_max=3)
        busy.reserve(0.0)
        greedy = [enqueue(busy, caller="a") for _ in range(3)]

        modest = enqueue(busy, caller="b")

        assert [each.refusal is not None for each in greedy] == [False, False, True]
        assert greedy[2].refusal is not None
        assert (greedy[2].refusal.code, "gave way" in greedy[2].refusal.text) == ("OVERLOADED", True)
        assert (modest.refusal, busy.queued, busy.stats.shed) == (None, 3, {"fair_share": 1})

    def test_refuses_the_greediest_itself_when_the_queue_is_full(self) -> None:
        busy = lane(queue_max=3)
        busy.reserve(0.0)
        for caller in ("a", "a", "b"):
            enqueue(busy, caller=caller)

        assert busy.enqueue(Waiting(caller="a"), 0.0) is not None
        assert busy.queued == 3

    def test_predicts_the_wait_by_turns_and_not_by_length(self) -> None:
        busy = lane()
        for _ in range(20):
            busy.served(0.1)
        busy.reserve(0.0)
        for _ in range(20):
            enqueue(busy, caller="a")

        assert busy.enqueue(Waiting(caller="a", deadline=1.0), 0.0) is not None
        assert busy.enqueue(Waiting(caller="b", deadline=1.0), 0.0) is None

    def test_takes_no_turn_for_one_that_was_too_late(self) -> None:
        busy = lane()
        for _ in range(20):
            busy.served(0.1)
        held = busy.reserve(0.0)
        assert held is not None
        late, fresh = enqueue(busy, caller="a", deadline=3.0), enqueue(busy, caller="a")
        enqueue(busy, caller="b")

        busy.release(held, 2.95)

        assert (late.refusal is not None, fresh.replica) == (True, held)


class TestRetry:
    def test_goes_to_another_replica_even_past_the_queue(self) -> None:
        busy = lane(2)
        one, two = busy.reserve(0.0), busy.reserve(0.0)
        assert one is not None
        assert two is not None
        enqueue(busy)
        retry = Waiting(tried=(one,))

        assert busy.may_retry(retry.tried, was_sent=True)
        busy.retry(retry, 0.0)
        busy.release(two, 0.0)

        assert retry.replica is two

    def test_waits_while_only_the_tried_replica_is_free(self) -> None:
        busy = lane(2)
        one, two = busy.reserve(0.0), busy.reserve(0.0)
        assert one is not None
        assert two is not None
        retry = Waiting(tried=(one,))
        assert busy.may_retry(retry.tried, was_sent=True)
        busy.retry(retry, 0.0)

        busy.release(one, 0.0)

        assert retry.replica is None

    def test_is_not_possible_without_another_replica(self) -> None:
        alone = lane()

        assert not alone.may_retry(alone.replicas, was_sent=True)

    def test_waits_a_moment_longer_when_the_other_replica_leaves_the_table(self) -> None:
        busy = lane(2)
        one, two = busy.reserve(0.0), busy.reserve(0.0)
        assert one is not None
        assert two is not None
        retry = Waiting(tried=(one,))
        assert busy.may_retry(retry.tried, was_sent=True)
        busy.retry(retry, 0.0)

        busy.update(VersionRoute(concurrency=1), (one,), 0.0)
        assert retry.promised is False

        busy.update(VersionRoute(state="starting"), (), 0.0)
        assert retry.promised is True

        busy.update(VersionRoute(state="failed"), (), 0.0)
        assert retry.refusal is not None


class TestPrediction:
    """A request that cannot make it is refused at the door, before work is spent on it."""

    def busy_lane(self, held_s: float = 0.1, **settings: object) -> Lane:
        busy = lane(2, **settings)
        for _ in range(20):
            busy.served(held_s)
        while busy.reserve(0.0):
            pass
        return busy

    def test_refuses_what_cannot_be_done_in_the_time_left(self) -> None:
        busy = self.busy_lane()
        for _ in range(9):
            enqueue(busy)

        # 10 requests at 2 slots of 100 ms: 500 ms in the queue with a margin of 50, and 100 ms of its own.
        refusal = busy.enqueue(Waiting(deadline=100.64), 100.0)

        assert refusal is not None
        assert (refusal.status, refusal.code, refusal.retry_after_s) == (503, "OVERLOADED", 1)
        assert "the queue takes about 500 ms and the request has 540 ms left" in refusal.text
        assert busy.stats.shed == {"deadline": 1}

    def test_takes_what_can(self) -> None:
        busy = self.busy_lane()
        for _ in range(9):
            enqueue(busy)

        assert busy.enqueue(Waiting(deadline=100.66), 100.0) is None

    def test_refuses_what_would_time_out_in_the_queue(self) -> None:
        busy = self.busy_lane(queue_timeout_ms=200)
        for _ in range(4):
            enqueue(busy)

        assert busy.enqueue(Waiting(), 0.0) is not None

    def test_gives_the_slot_of_one_that_is_too_late_to_the_next(self) -> None:
        busy = self.busy_lane()
        late, intime = enqueue(busy, deadline=1.05), enqueue(busy, deadline=9.0)

        busy.release(busy.replicas[0], 1.0)

        assert late.refusal is not None
        assert (late.refusal.status, late.refusal.code) == (504, "DEADLINE")
        assert intime.replica is busy.replicas[0]

    def test_lets_the_only_one_try_even_when_it_is_late(self) -> None:
        busy = self.busy_lane()
        late = enqueue(busy, deadline=1.05)

        busy.release(busy.replicas[0], 1.0)

        assert late.replica is busy.replicas[0]

    def test_counts_batch_only_before_batch(self) -> None:
        busy = self.busy_lane()
        for _ in range(9):
            enqueue(busy, is_batch=True)

        assert busy.predicted_wait_s() == pytest.approx(0.05)
        assert busy.predicted_wait_s(is_batch=True) == pytest.approx(0.5)

    def test_says_nothing_before_enough_was_seen(self) -> None:
        busy = lane()
        busy.reserve(0.0)
        busy.served(100.0)

        assert busy.enqueue(Waiting(deadline=0.001), 0.0) is None

    def test_of_a_free_slot_refuses_nobody(self) -> None:
        """However slow it was: that is how the estimate recovers."""
        idle = lane()
        for _ in range(20):
            idle.served(1000.0)

        assert idle.reserve(0.0) is not None


class TestEjection:
    def failing(self, replicas: int = 2, kind: str = "connect", **settings: object) -> tuple[Lane, Replica]:
        made = lane(replicas, concurrency=10, **settings)
        for _ in range(5):
            made.saw_failure(made.replicas[0], kind, 100.0)
        return made, made.replicas[0]

    def reserved(self, lane: Lane, now: float, count: int = 8) -> list[Replica | None]:
        return [lane.reserve(now) for _ in range(count)]

    def test_leaves_a_failing_replica_alone(self) -> None:
        made, bad = self.failing()

        assert bad not in self.reserved(made, 100.5)
        assert made.stats.ejections == {"connect": 1}

    def test_never_takes_the_last_one(self) -> None:
        made, bad = self.failing(1)

        assert made.reserve(100.0) is bad
        assert made.stats.ejections == {}

    def test_never_takes_more_than_half(self) -> None:
        made = lane(4, concurrency=10)
        for replica in made.replicas:
            for _ in range(5):
                made.saw_failure(replica, "reset", 100.0)

        assert made.stats.ejections == {"reset": 2}
        assert len({*self.reserved(made, 100.5)}) == 2

    def test_lets_the_one_ejected_first_back_for_one_that_certainly_fails_now(self) -> None:
        """Replicas that restart one after the other: those ejected first serve again, and the third refuses."""
        made = lane(4, concurrency=10)
        for at, replica in enumerate(made.replicas[:3]):
            made.saw_failure(replica, "connect", 100.0 + at / 10)

        served = {*self.reserved(made, 100.5, 20)}

        assert served == {made.replicas[0], made.replicas[3]}
        assert made.replicas[0].capacity == 10

    def test_is_not_done_for_a_version_that_forbids_it(self) -> None:
        made, bad = self.failing(eject=False)

        assert bad in self.reserved(made, 100.5)

    def test_lets_it_return_with_a_few_requests_first(self) -> None:
        made, bad = self.failing()

        early = self.reserved(made, 101.1)
        assert early.count(bad) == 1
        assert bad.capacity == 1
        self.reserved(made, 103.5, 1)
        assert bad.capacity == 5
        self.reserved(made, 110.0, 1)
        assert bad.capacity == 10

    def test_serves_those_who_wait_when_it_returns(self) -> None:
        made, _ = self.failing()
        held = [replica for replica in self.reserved(made, 100.0, 10) if replica]
        waiter = enqueue(made)

        made.release(held[0], 101.5)

        assert waiter.replica is not None

    def test_counts_5xx_only_in_a_row(self) -> None:
        made = lane(2, concurrency=10)
        for status in (500, 500, 500, 500, 200, 500, 500, 500, 500):
            made.saw_answer(made.replicas[0], status, 0.01, 0.0)

        assert made.stats.ejections == {}
        made.saw_answer(made.replicas[0], 503, 0.01, 0.0)
        assert made.stats.ejections == {"5xx": 1}

    def test_takes_a_replica_far_slower_than_the_others(self) -> None:
        made = lane(3, concurrency=10)
        for _ in range(64):
            for replica, seconds in zip(made.replicas, (0.5, 0.02, 0.03), strict=True):
                made.saw_answer(replica, 200, seconds, 0.0)

        assert made.stats.ejections == {"latency": 1}
        assert made.replicas[0] not in self.reserved(made, 0.5)

    def test_leaves_a_fleet_alone_that_is_slow_as_a_whole(self) -> None:
        made = lane(3, concurrency=10)
        for _ in range(64):
            for replica in made.replicas:
                made.saw_answer(replica, 200, 2.0, 0.0)

        assert made.stats.ejections == {}


class LaneMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, slots are counted right and nobody waits beside a free slot."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = [Replica(f"r{i}", "h", 1) for i in range(4)]
        self.lane = Lane("m", "1", random.Random(0).randrange)
        self.route = VersionRoute(concurrency=2, queue_max=10, state="starting")
        self.lane.update(self.route, tuple(self.pool[:2]), 0.0)
        self.held: list[Replica] = []
        self.waiting: list[Waiting] = []

    @rule(is_batch=st.booleans(), caller=st.sampled_from([None, "a", "b"]))
    def arrive(self, is_batch: bool, caller: str | None) -> None:
        replica = self.lane.reserve(0.0)
        if replica is not None:
            self.held.append(replica)
            return
        waiter = Waiting(is_batch=is_batch, caller=caller)
        if self.lane.enqueue(waiter, 0.0) is None:
            self.waiting.append(waiter)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.lane.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))), 0.0)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.lane.leave(self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1))))

    @rule(count=st.integers(0, 4), concurrency=st.integers(1, 3), balance=st.sampled_from(BALANCES))
    def swap_table(self, count: int, concurrency: int, balance: str) -> None:
        self.route = VersionRoute(concurrency=concurrency, queue_max=10, state="starting", balance=balance)
        self.lane.update(self.route, tuple(self.pool[:count]), 0.0)

    @invariant()
    def slots_are_counted_and_none_is_idle_beside_a_waiter(self) -> None:
        served = [waiter for waiter in self.waiting if waiter.replica is not None]
        self.held += [waiter.replica for waiter in served if waiter.replica]
        self.waiting = [waiter for waiter in self.waiting if waiter.replica is None and waiter.refusal is None]
        for replica in self.pool:
            assert replica.in_flight == self.held.count(replica)
        assert self.lane.in_flight == len(self.held)
        assert self.lane.queued == len(self.waiting) <= 10
        if self.waiting:
            assert all(r.in_flight >= self.route.concurrency for r in self.lane.replicas)


TestLaneMachine = LaneMachine.TestCase
TestLaneMachine.settings = settings(max_examples=60, stateful_step_count=40)
