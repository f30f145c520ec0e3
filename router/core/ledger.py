"""Bytes that this process keeps in memory for its clients, bounded over all connections.

Pure. Bodies that wait to be whole, for a slot, or for their answer are refused above the bound. Answers that wait for
their reader cannot be refused any more: there, who has been reading nothing for longest is let go.
"""

from __future__ import annotations

from typing import Protocol


class Ledger:
    """What is held now; `take` and `give` come in pairs."""

    __slots__ = ("held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def take(self, size: int) -> bool:
        """False when that would be too much: nothing is taken then."""
        if self.held_bytes + size > self.limit_bytes:
            return False
        self.held_bytes += size
        return True

    def give(self, size: int) -> None:
        self.held_bytes -= size


class Reader(Protocol):
    """A connection whose client does not read."""

    def abort(self) -> None: ...


class Unread:
    """Those who do not read, in the order in which they stopped."""

    __slots__ = ("_limit_bytes", "_readers", "bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._readers: dict[Reader, int] = {}
        self.bytes = 0

    def add(self, reader: Reader, size: int) -> None:
        """Counts one more, and ends the oldest when they are too many."""
        self.remove(reader)
        self._readers[reader] = size
        self.bytes += size
        while self.bytes > self._limit_bytes and len(self._readers) > 1:
            oldest = next(iter(self._readers))
            self.remove(oldest)
            oldest.abort()

    def remove(self, reader: Reader) -> None:
        """Nothing happens when it reads."""
        self.bytes -= self._readers.pop(reader, 0)
