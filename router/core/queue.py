"""Who waits for a slot, and whose turn it is: round-robin between API keys, first come first served within one.

Owns the order of the live and of the batch requests of one version; what a slot is and when one is free stands in
`admission.py`. A key with a thousand waiting requests delays another key's single one by one round, not by a thousand.
Callers without a key are one party, so that without keys this is a plain FIFO. Live requests go before all of batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from math import inf
from typing import Generic, Protocol, TypeVar


class Party(Protocol):
    """What waits, as its order needs to know it. `caller` is the API key it came with, or None."""

    is_batch: bool

    @property
    def caller(self) -> object: ...


W = TypeVar("W", bound=Party)


class WaitingRoom(Generic[W]):
    """All who wait for a first slot. Each caller has a line; the line in front is next, then goes to the end."""

    __slots__ = ("_batch", "_live", "size")

    def __init__(self) -> None:
        # An OrderedDict pops its oldest and loses any entry in constant time; a dict slows down as its front empties.
        self._live: OrderedDict[object, OrderedDict[W, float]] = OrderedDict()
        self._batch: OrderedDict[object, OrderedDict[W, float]] = OrderedDict()
        self.size = 0  # an attribute, for every request asks whether anybody waits

    @property
    def live(self) -> int:
        return sum(map(len, self._live.values()))

    def __iter__(self) -> Iterator[W]:
        for lines in (self._live, self._batch):
            for line in lines.values():
                yield from line

    @property
    def turn(self) -> tuple[float, bool]:
        """Since when the next waits, and whether it is a batch request; (inf, False) when nobody does."""
        for lines in (self._live, self._batch):
            for line in lines.values():
                return next(iter(line.values())), lines is self._batch
        return inf, False

    @property
    def oldest(self) -> float:
        """Since when the one waits that waits longest; inf when nobody does."""
        lines = (line for lines in (self._live, self._batch) for line in lines.values())
        return min((next(iter(line.values())) for line in lines), default=inf)

    def push(self, waiter: W, now: float = 0.0) -> None:
        lines = self._batch if waiter.is_batch else self._live
        line = lines.get(waiter.caller)
        if line is None:
            line = lines[waiter.caller] = OrderedDict()
        line[waiter] = now
        self.size += 1

    def pop(self) -> W:
        """Takes out who is next; the turn goes to the next caller. There must be one."""
        lines = self._live or self._batch
        line = next(iter(lines.values()))
        waiter, _ = line.popitem(last=False)
        self.size -= 1
        if not line:
            del lines[waiter.caller]
        elif len(lines) > 1:
            lines.move_to_end(waiter.caller)
        return waiter

    def return_turn(self, waiter: W) -> None:
        """`waiter` was popped and took no slot: the next of its caller has the turn instead."""
        lines = self._batch if waiter.is_batch else self._live
        if waiter.caller in lines:
            lines.move_to_end(waiter.caller, last=False)

    def remove(self, waiter: W) -> bool:
        """Takes out one that waits anywhere. False when it does not wait here."""
        lines = self._batch if waiter.is_batch else self._live
        line = lines.get(waiter.caller)
        if line is None or waiter not in line:
            return False
        del line[waiter]
        self.size -= 1
        if not line:
            del lines[waiter.caller]
        return True

    def ahead(self, waiter: W) -> int:
        """How many of those who wait now go before `waiter` if it comes now."""
        lines = self._live
        ahead = 0
        if waiter.is_batch:
            ahead, lines = self.live, self._batch
        caller = waiter.caller
        rounds = own = len(lines[caller]) if caller in lines else 0
        if len(lines) == (own > 0):  # nobody else
            return ahead + own
        rounds += 1  # those in front of the own line are served once more than those behind it
        for other, line in lines.items():
            if other == caller:
                rounds = own
            ahead += min(len(line), rounds)
        return ahead

    def gives_way_to(self, newcomer: W) -> W | None:
        """Who leaves a full room for `newcomer`: the newest of the caller that holds the most places, batch first.

        Only if that caller holds more than the newcomer's would with it: else nobody, and the newcomer is refused.
        A batch request takes no live one's place.
        """
        rooms = (self._batch,) if newcomer.is_batch else (self._batch, self._live)
        callers = dict.fromkeys(caller for lines in rooms for caller in lines)
        greediest = max(callers, key=self._places, default=newcomer.caller)
        if greediest == newcomer.caller or self._places(greediest) <= self._places(newcomer.caller) + 1:
            return None
        line = next(lines[greediest] for lines in rooms if greediest in lines)
        return next(reversed(line))

    def _places(self, caller: object) -> int:
        return sum(len(lines[caller]) for lines in (self._live, self._batch) if caller in lines)
