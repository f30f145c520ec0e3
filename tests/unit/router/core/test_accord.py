"""What processes agree on, with every order in which their reads and writes can fall together."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.contract import VersionRoute
from router.core.accord import PATIENCE_S, Accord
from router.core.admission import Lane
from router.core.balance import Replica
from router.core.rows import Row, Rows

SLOT = 3
REPLICA_SLOT = 5


class Memory:
    """Rows in plain memory, and a directory that knows two names."""

    def __init__(self, count: int) -> None:
        self.rows = [self._row(number) for number in range(count + 1)]
        self.woken: list[int] = []

    @staticmethod
    def _row(number: int) -> Row:
        cells = memoryview(bytearray(16 * 8))
        return Row(number, cells.cast("i"), cells.cast("d"))

    @property
    def common(self) -> Row:
        return self.rows[-1]

    def claim(self, name: str, row: int) -> int:
        return REPLICA_SLOT if name.startswith("replica") else SLOT

    def free(self, slot: int, row: int) -> None: ...

    def seen_by(self, number: int, fence: Callable[[], None] = lambda: None) -> Rows:
        rows = Rows(self, self.rows[number], self.woken.append, fence)
        rows.others = [row for row in self.rows[:-1] if row.number != number]
        return rows


def replica(limit: int) -> Replica:
    made = Replica("r", "h", 1)
    made.limit = made.capacity = limit
    made.slot = REPLICA_SLOT
    return made


class StepwiseRow(Row):
    """A row whose every access waits for its turn."""

    def __init__(self, row: Row, turn: Callable[[], None]) -> None:
        super().__init__(row.number, row._counts, row._times)
        self._turn = turn

    def count(self, slot: int) -> int:
        self._turn()
        return super().count(slot)

    def set_count(self, slot: int, count: int) -> None:
        self._turn()
        super().set_count(slot, count)


class Schedule:
    """Lets threads take one step each in a given order; whoever is left over runs on at the end."""

    def __init__(self, order: list[int], count: int) -> None:
        self._order = order
        self._alive = set(range(count))
        self._changed = threading.Condition()

    def turn(self, who: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._next() in (who, None), timeout=5)
            if self._order:
                self._order.pop(0)
            self._changed.notify_all()

    def done(self, who: int) -> None:
        with self._changed:
            self._alive.discard(who)
            self._changed.notify_all()

    def _next(self) -> int | None:
        while self._order and self._order[0] not in self._alive:
            self._order.pop(0)
        return self._order[0] if self._order else None


def enter_at_once(count: int, limit: int, order: list[int]) -> list[bool]:
    """Processes that each try to enter one replica, step by step in `order`. Returns who is inside."""
    memory = Memory(count)
    schedule = Schedule(order, count)
    inside = [False] * count

    def enter(number: int) -> None:
        rows = memory.seen_by(number)
        rows.own = StepwiseRow(rows.own, lambda: schedule.turn(number))
        rows.others = [StepwiseRow(row, lambda: schedule.turn(number)) for row in rows.others]
        mine = replica(limit)
        mine.in_flight = 1
        inside[number] = Accord(rows).enter(mine)
        schedule.done(number)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [memory.rows[number].count(REPLICA_SLOT) for number in range(count)] == inside
    return inside


class TestEnter:
    @settings(max_examples=150, deadline=None)
    @given(order=st.lists(st.integers(0, 1), max_size=8))
    def test_never_lets_two_into_one_slot(self, order: list[int]) -> None:
        assert sum(enter_at_once(2, 1, order)) <= 1

    @settings(max_examples=150, deadline=None)
    @given(order=st.lists(st.integers(0, 2), max_size=14), limit=st.integers(1, 2))
    def test_never_lets_more_of_three_in_than_there_are_slots(self, order: list[int], limit: int) -> None:
        assert sum(enter_at_once(3, limit, order)) <= limit

    def test_lets_the_first_in_when_the_other_comes_after(self) -> None:
        assert enter_at_once(2, 1, [0, 0, 1, 1, 1]) == [True, False]

    def test_sends_both_away_when_each_sees_the_other(self) -> None:
        """They look again at once, and the longer waiter goes first."""
        assert enter_at_once(2, 1, [0, 1, 0, 1]) == [False, False]


class Waiter:
    """A request in the queue."""

    tried: tuple[Replica, ...] = ()
    caller = None
    is_batch = False
    deadline = 1e9

    def __init__(self) -> None:
        self.replica: Replica | None = None

    def wait_on(self, is_promised: bool) -> None: ...

    def take_slot(self, replica: Replica) -> None:
        self.replica = replica

    def refuse(self, refusal: object) -> None:
        raise AssertionError(refusal)


class Process:
    """One process's lane of the version, with its own view of the one replica."""

    def __init__(self, memory: Memory, number: int, limit: int = 1) -> None:
        self.rows = memory.seen_by(number)
        self.lane = Lane("m", "1", random.Random(1).randrange, self.rows)
        self.replica = replica(limit)
        self.lane.meet(0.0)
        self.lane.update(VersionRoute(concurrency=limit, queue_max=3), (self.replica,), 0.0)

    def wait(self, now: float) -> Waiter:
        waiter = Waiter()
        assert self.lane.reserve(now) is None
        assert self.lane.enqueue(waiter, now) is None
        return waiter


@pytest.fixture
def memory() -> Memory:
    return Memory(2)


class TestQueue:
    def test_leaves_a_freed_slot_to_an_older_waiter_of_another_process(self, memory: Memory) -> None:
        one, two = Process(memory, 0), Process(memory, 1)
        held = one.lane.reserve(0.0)
        assert held is not None
        older, younger = two.wait(1.0), one.wait(2.0)
        memory.woken.clear()

        one.lane.release(held, 3.0)
        assert (memory.woken, younger.replica) == ([1], None)
        two.lane.look(3.0)

        assert older.replica is two.replica
        assert younger.replica is None

    def test_wakes_a_waiter_of_another_process_when_nobody_waits_here(self, memory: Memory) -> None:
        one, two = Process(memory, 0), Process(memory, 1)
        held = one.lane.reserve(0.0)
        assert held is not None
        two.wait(1.0)
        memory.woken.clear()

        one.lane.release(held, 2.0)

        assert memory.woken == [1]

    def test_takes_a_slot_that_the_older_waiter_does_not_fetch(self, memory: Memory) -> None:
        """Its process may be stuck, or may have ejected the replica."""
        one, two = Process(memory, 0), Process(memory, 1)
        held = one.lane.reserve(0.0)
        assert held is not None
        two.wait(1.0)
        younger = one.wait(2.0)
        one.lane.release(held, 3.0)

        one.lane.look(3.0 + PATIENCE_S / 2)
        assert younger.replica is None
        one.lane.look(3.0 + PATIENCE_S * 2)

        assert younger.replica is one.replica

    def test_lets_no_newcomer_overtake_a_waiter_of_another_process(self, memory: Memory) -> None:
        one, two = Process(memory, 0), Process(memory, 1)
        held = one.lane.reserve(0.0)
        assert held is not None
        two.wait(1.0)
        one.lane.release(held, 2.0)

        assert one.lane.reserve(2.001) is None

    def test_counts_the_waiters_of_all_processes(self, memory: Memory) -> None:
        one, two = Process(memory, 0), Process(memory, 1)
        assert one.lane.reserve(0.0) is not None
        one.wait(1.0)
        two.wait(1.1)
        one.wait(1.2)

        refusal = two.lane.enqueue(Waiter(), 2.0)

        assert refusal is not None
        assert refusal.code == "OVERLOADED"

    def test_is_empty_again_when_its_waiter_left(self, memory: Memory) -> None:
        one, two = Process(memory, 0), Process(memory, 1)
        assert one.lane.reserve(0.0) is not None
        waiter = two.wait(1.0)

        two.lane.leave(waiter)

        assert (memory.rows[1].count(SLOT), memory.rows[1].time(SLOT)) == (0, 0.0)
        assert two.rows.waiting == set()


def test_a_process_without_others_writes_nothing() -> None:
    memory = Memory(1)
    alone = Process(memory, 0)

    assert alone.lane.reserve(0.0) is alone.replica

    assert memory.rows[0].count(REPLICA_SLOT) == 0
