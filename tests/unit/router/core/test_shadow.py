"""Which requests are copied, and that a copy gets only what no request wants."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router.contract import Shadow, VersionRoute
from router.core.admission import Lane
from router.core.balance import Replica
from router.core.errors import Refusal
from router.core.shadow import ShadowRule, may_be_copied


class Copying:
    """A copy that remembers what it got."""

    def __init__(self) -> None:
        self.replica: Replica | None = None
        self.reason = ""

    def take_slot(self, replica: Replica) -> None:
        assert self.replica is None
        self.replica = replica

    def end(self, reason: str) -> None:
        self.reason = reason


class Waiting:
    """A request of the shadow version."""

    is_batch = False
    deadline = 60.0
    caller = None
    tried = ()

    def __init__(self) -> None:
        self.replica: Replica | None = None

    def take_slot(self, replica: Replica) -> None:
        self.replica = replica

    def wait_on(self, is_promised: bool) -> None: ...

    def refuse(self, refusal: Refusal) -> None:
        raise AssertionError(refusal)


def lane(replicas: int = 1, concurrency: int = 1) -> Lane:
    made = Lane("m", "2", random.Random(1).randrange)
    made.update(VersionRoute(concurrency=concurrency), tuple(Replica(f"r{i}", "h", 1) for i in range(replicas)), 0.0)
    return made


def shadow_rule(to: Lane | None = None, **settings: float) -> ShadowRule:
    return ShadowRule(Shadow("2", **settings), to or lane())  # type: ignore[arg-type]


class TestWhatIsCopied:
    @pytest.mark.parametrize(
        ("method", "path", "expected"),
        [
            (b"POST", b"/v2/models/m/infer", True),
            (b"POST", b"/v1/models/m:predict", True),
            (b"POST", b"/v1/models/m:explain", True),
            (b"POST", b"/v2/models/m/infer_stream", False),
            (b"POST", b"/v2/models/m/generate_stream", False),
            (b"GET", b"/v2/models/m", False),
            (b"GET", b"/models/m/x", True),
            (b"HEAD", b"/models/m/x", True),
            (b"POST", b"/models/m/x", False),
            (b"PUT", b"/models/m/x", False),
            (b"DELETE", b"/models/m/x", False),
        ],
    )
    def test_is_what_can_do_no_harm_twice(self, method: bytes, path: bytes, expected: bool) -> None:
        assert may_be_copied(method, path) is expected

    @given(st.integers(0, 1000).map(lambda tenths: tenths / 10))
    def test_is_never_more_than_one_request_off_its_percentage(self, percent: float) -> None:
        made = shadow_rule(percent=percent)

        taken = 0
        for count in range(1, 400):
            taken += made.takes(b"POST", b"/v2/models/m/infer")
            assert abs(taken - count * percent / 100) <= 1 + 1e-6

    def test_does_not_count_what_may_not_be_copied(self) -> None:
        made = shadow_rule(percent=50.0)

        taken = [made.takes(method, b"/v2/models/m/infer") for method in (b"POST", b"GET", b"GET", b"POST")]

        assert taken == [False, False, False, True]


class TestSamples:
    def test_are_so_many_a_minute(self) -> None:
        made = shadow_rule(samples_per_minute=2)

        assert [made.may_sample(now) for now in (0.0, 1.0, 2.0, 59.0, 61.0, 62.0, 63.0)] == [
            True, True, False, False, True, True, False,
        ]  # fmt: skip


class TestCopies:
    def test_take_free_slots_and_count_for_the_replica_alone(self) -> None:
        to = lane(concurrency=2)
        copies, copy = shadow_rule(to).copies, Copying()

        copies.wait(copy)
        copies.serve(to, 0.0)

        assert copy.replica is to.replicas[0]
        assert (to.replicas[0].in_flight, to.in_flight, to.queued, copies.waiting) == (1, 0, 0, 0)

    def test_wait_behind_every_request(self) -> None:
        to = lane()
        copies, copy, waiter = shadow_rule(to).copies, Copying(), Waiting()
        held = to.reserve(0.0)
        copies.wait(copy)
        copies.serve(to, 0.0)
        assert held is not None
        assert to.enqueue(waiter, 0.0) is None

        to.release(held, 0.0)
        first = (waiter.replica, copy.replica)
        to.release(held, 0.0)

        assert (first, copy.replica) == ((held, None), held)

    def test_take_the_slots_of_a_replica_that_came(self) -> None:
        to = lane()
        copies, waiting = shadow_rule(to).copies, [Copying() for _ in range(3)]
        to.reserve(0.0)
        for copy in waiting:
            copies.wait(copy)
        new = Replica("new", "h", 1)

        to.update(VersionRoute(concurrency=2), (to.replicas[0], new), 0.0)

        assert [copy.replica is not None for copy in waiting] == [True] * 3
        assert (new.in_flight, to.replicas[0].in_flight) == (2, 2)

    @pytest.mark.parametrize(
        ("replicas", "being", "reason"), [(1, 0, ""), (1, 2, ""), (1, 3, "queue_full"), (0, 0, "not_ready")]
    )
    def test_are_dropped_at_once_above_their_number_or_without_a_replica(
        self, replicas: int, being: int, reason: str
    ) -> None:
        to = lane(replicas)
        copies = shadow_rule(to).copies
        copies.being.update(Copying() for _ in range(being))

        assert copies.refuses(to, queue_max=3) == reason

    def test_end_all_together(self) -> None:
        copies, all_of_them = shadow_rule().copies, [Copying() for _ in range(3)]
        copies.being.update(all_of_them)

        copies.end("removed")

        assert [copy.reason for copy in all_of_them] == ["removed"] * 3

    def test_keep_their_counts_over_tables(self) -> None:
        to = lane()
        shadow_rule(to).copies.drop("memory")

        assert shadow_rule(to).copies.results == {"dropped": 1}


class CopyMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, no copy has a slot that a request waits for, and every slot is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = lane(2, concurrency=2)
        self.copies = shadow_rule(self.lane).copies
        self.requests: list[Waiting] = []
        self.waiting: list[Copying] = []
        self.live: list[Replica] = []
        self.copied: list[Replica] = []

    @rule()
    def request(self) -> None:
        replica = self.lane.reserve(0.0)
        if replica is not None:
            self.live.append(replica)
            return
        self.requests.append(Waiting())
        assert self.lane.enqueue(self.requests[-1], 0.0) is None

    @rule()
    def copy(self) -> None:
        self.waiting.append(Copying())
        self.copies.wait(self.waiting[-1])
        self.copies.serve(self.lane, 0.0)

    @precondition(lambda self: self.live)
    @rule()
    def finish_request(self) -> None:
        self.lane.release(self.live.pop(), 0.0)

    @precondition(lambda self: self.copied)
    @rule()
    def finish_copy(self) -> None:
        self.lane.release_copy(self.copied.pop(), 0.0)

    @precondition(lambda self: self.waiting)
    @rule()
    def give_up(self) -> None:
        self.copies.leave(self.waiting.pop())

    @invariant()
    def slots_are_counted_and_requests_come_first(self) -> None:
        self.live += [waiter.replica for waiter in self.requests if waiter.replica]
        self.requests = [waiter for waiter in self.requests if not waiter.replica]
        self.copied += [copy.replica for copy in self.waiting if copy.replica]
        self.waiting = [copy for copy in self.waiting if not copy.replica]
        for replica in self.lane.replicas:
            assert replica.in_flight == self.live.count(replica) + self.copied.count(replica) <= 2
        assert (self.lane.in_flight, self.lane.queued) == (len(self.live), len(self.requests))
        assert self.copies.waiting == len(self.waiting)
        if self.requests or self.waiting:
            assert all(replica.in_flight == 2 for replica in self.lane.replicas)


TestCopyMachine = CopyMachine.TestCase
TestCopyMachine.settings = settings(max_examples=50, stateful_step_count=40)
