"""What the rules need to know of the gateway's other processes: how much each has inside a replica, and who waits.

Owns `Row`, one process's numbers in the shared page, and `Rows`, all of them as one process sees them. A process writes
its own row alone and reads the others'. With one process there is nobody to read and nothing is written. Pure: memory
and wake-ups are passed in; how a slot is agreed on is in `admission.py`, and why that is right in docs/decisions/0010.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from math import inf
from typing import Any, Final, Protocol

NO_SLOT: Final = -1


class Row:
    """One process's numbers: for each slot a count and a time, and whether it holds the slot's name at all."""

    __slots__ = ("_counts", "_times", "number")

    def __init__(self, number: int, counts: memoryview[int], times: memoryview[float]) -> None:
        self.number = number
        self._counts = counts
        self._times = times

    def count(self, slot: int) -> int:
        return self._counts[4 * slot + 2]

    def set_count(self, slot: int, count: int) -> None:
        self._counts[4 * slot + 2] = count

    def time(self, slot: int) -> float:
        """0.0: none."""
        return self._times[2 * slot]

    def set_time(self, slot: int, time: float) -> None:
        self._times[2 * slot] = time

    def holds(self, slot: int) -> bool:
        return self._counts[4 * slot + 3] != 0

    def hold(self, slot: int) -> None:
        self._counts[4 * slot + 3] = 1

    def let_go(self, slot: int) -> None:
        self.wipe(slot)
        self._counts[4 * slot + 3] = 0

    def wipe(self, slot: int) -> None:
        self.set_time(slot, 0.0)
        self.set_count(slot, 0)

    def cell(self, slot: int) -> tuple[memoryview[float], int]:
        """The slot's time as a place in memory."""
        return self._times, 2 * slot


class Directory(Protocol):
    """Gives names their slots; the shared page in a process that has one."""

    def claim(self, name: str, row: int) -> int: ...

    def free(self, slot: int, row: int) -> None: ...

    @property
    def common(self) -> Row: ...


class Rows:
    """All rows as one process sees them. `others` are those of the other live processes, empty while it is alone."""

    __slots__ = ("_directory", "_fence", "began_waiting", "others", "own", "waiting", "wake")

    def __init__(
        self, directory: Directory, own: Row, wake: Callable[[int], None], fence: Callable[[], object]
    ) -> None:
        """`wake` rings the bell of a row. `fence`: no read after it may be earlier than a write before it."""
        self._directory = directory
        self.own = own
        self.others: list[Row] = []
        self.wake = wake
        self._fence = fence
        self.waiting: set[Any] = set()  # lanes with waiters, while there are others
        self.began_waiting: Callable[[], object] = lambda: None

    def claim(self, name: str) -> int:
        return self._directory.claim(name, self.own.number)

    def free(self, slot: int) -> None:
        self._directory.free(slot, self.own.number)

    def elsewhere(self, slot: int) -> int:
        """The count of all other processes."""
        count = 0
        if slot >= 0:
            for row in self.others:
                count += row.count(slot)
        return count

    def oldest_elsewhere(self, slot: int) -> tuple[float, int]:
        """The earliest time of the other processes, and whose it is; `inf` when there is none."""
        earliest, number = inf, NO_SLOT
        if slot >= 0:
            for row in self.others:
                time = row.time(slot)
                if 0.0 < time < earliest:
                    earliest, number = time, row.number
        return earliest, number

    def publish(self, slot: int, count: int, time: float = 0.0) -> None:
        """Writes this process's numbers, and orders them before whatever is read next."""
        if slot >= 0:
            self.own.set_count(slot, count)
            self.own.set_time(slot, time)
            self._fence()

    def watch(self, lane: Any, *, is_waiting: bool) -> None:
        """Keeps the lanes to be looked at now and then, lest a wake-up that was missed matters."""
        if not is_waiting:
            self.waiting.discard(lane)
        elif lane not in self.waiting:
            self.waiting.add(lane)
            self.began_waiting()

    def cell(self, name: str) -> tuple[memoryview[float], int]:
        """A number by its name that all processes read and write: (memory, index). Zero at first.

        An update by two processes at once may lose one of the two.
        """
        slot = self.claim(name)
        return self._directory.common.cell(slot) if slot >= 0 else private_cell()


def private_cell() -> tuple[memoryview[float], int]:
    return memoryview(array("d", (0.0,))), 0


class _Nothing:
    """The directory of a process that shares nothing."""

    def claim(self, name: str, row: int) -> int:  # noqa: ARG002
        return NO_SLOT

    def free(self, slot: int, row: int) -> None:
        pass

    @property
    def common(self) -> Row:
        return _row_of_none()


def _row_of_none() -> Row:
    return Row(0, memoryview(array("i")), memoryview(array("d")))


def alone() -> Rows:
    """The rows of a process without others."""
    return Rows(_Nothing(), _row_of_none(), lambda _: None, lambda: None)
