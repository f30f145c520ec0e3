"""The one page of memory that the processes of a gateway share: who they are, and what each holds of what.

Owns the layout, and the directory of names: a name (of a replica, of a version) has the same slot in every process's
row, and in that slot the process alone writes a count and a time. The page is an anonymous file that the supervisor
makes and hands down; pages of it that nobody wrote take no memory. What the numbers mean is `core/rows.py`'s; nothing
here is called for a request. Rows: docs/decisions/0010.

    header | one line for each row | directory: a digest for each slot | row 0 | row 1 | ... | the common row
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Iterator, Sequence
from enum import IntEnum
from hashlib import blake2b
from typing import Final

from router.core.rows import NO_SLOT, Row

# Another layout needs another number: a supervisor of another release then makes a page of its own.
LAYOUT: Final = 1
# Two generations of the most processes that a configuration may ask for.
ROWS: Final = 512
# 10,000 models of two versions with two replicas each are 60,000 names: half of it stays free, so that a name finds a
# slot near where its digest points.
SLOTS: Final = 1 << 17
WINDOW: Final = 256

_PAGE: Final = mmap.PAGESIZE
_LINE_BYTES: Final = 64
_DIGEST_BYTES: Final = 16
_CELL_BYTES: Final = 16  # a time (double), a count (int), whether the name is held (int)
_LINES_AT: Final = _PAGE
_DIRECTORY_AT: Final = _LINES_AT + ROWS * _LINE_BYTES
_ROWS_AT: Final = _DIRECTORY_AT + SLOTS * _DIGEST_BYTES
_ROW_BYTES: Final = SLOTS * _CELL_BYTES
_BYTES: Final = _ROWS_AT + (ROWS + 1) * _ROW_BYTES
_COMMON: Final = ROWS


class Phase(IntEnum):
    """What a row's process does."""

    NONE = 0  # there is none
    STARTING = 1
    READY = 2  # could serve, waits to be told
    SERVING = 3
    RETIRING = 4  # takes no new connection, finishes what it has


class Field(IntEnum):
    """The places of a row's line. The supervisor writes them when a process starts and ends, the process meanwhile."""

    PHASE = 0
    PID = 1
    GENERATION = 2
    TABLES = 3  # how many tables it applied
    PUBLISHED = 4  # how many accounts it wrote
    ANSWERED = 5  # the newest question that an account answers


_LAYOUT_AT: Final = 0
_CHANGES_AT: Final = 1  # grows when a row gets or loses its process
_GENERATION_AT: Final = 2  # the newest generation that serves
_ASKED_AT: Final = 3  # grows with every question for fresh accounts


class Page:
    """A view of the page, `fd`; several processes have one each."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _ROWS_AT)
        whole = memoryview(self._map)
        self._header = whole[:_PAGE].cast("q")
        self._lines = whole[_LINES_AT:_DIRECTORY_AT].cast("q")
        self._rows: dict[int, Row] = {}
        self._held: tuple[int, list[Row]] = (-1, [])  # as of which change

    @classmethod
    def make(cls) -> Page:
        fd = os.memfd_create("modelfleet-gateway", os.MFD_CLOEXEC)
        os.ftruncate(fd, _BYTES)
        page = cls(fd)
        page._header[_LAYOUT_AT] = LAYOUT
        return page

    @property
    def is_of_this_layout(self) -> bool:
        return bool(self._header[_LAYOUT_AT] == LAYOUT)

    # lines

    @property
    def changes(self) -> int:
        return int(self._header[_CHANGES_AT])

    @property
    def generation(self) -> int:
        return int(self._header[_GENERATION_AT])

    @generation.setter
    def generation(self, number: int) -> None:
        self._header[_GENERATION_AT] = number

    def ask(self) -> int:
        """The number of a new question: an account that answers it was written later than now."""
        self._header[_ASKED_AT] += 1
        return self.asked

    @property
    def asked(self) -> int:
        return int(self._header[_ASKED_AT])

    def get(self, row: int, field: Field) -> int:
        return int(self._lines[row * (_LINE_BYTES // 8) + field])

    def set(self, row: int, field: Field, value: int) -> None:
        self._lines[row * (_LINE_BYTES // 8) + field] = value

    @property
    def held_rows(self) -> list[int]:
        """Those with a process."""
        return [row for row in range(ROWS) if self.get(row, Field.PHASE)]

    @property
    def used_rows(self) -> list[int]:
        """Those with a process, or with the account of one that ended."""
        return [row for row in range(ROWS) if self.get(row, Field.PHASE) or self.get(row, Field.PUBLISHED)]

    # called by the supervisor

    def start(self, row: int, generation: int) -> None:
        """A process is about to start at `row`, or to be started again."""
        self.clear(row)
        self.set(row, Field.GENERATION, generation)
        self.set(row, Field.PHASE, Phase.STARTING)
        self._header[_CHANGES_AT] += 1

    def end(self, row: int) -> None:
        self.clear(row)
        self.set(row, Field.PHASE, Phase.NONE)
        self._header[_CHANGES_AT] += 1

    def clear(self, row: int) -> None:
        """What the process held it holds no more. Its accounts are kept elsewhere, so that no counter goes back."""
        for field in (Field.PID, Field.TABLES, Field.ANSWERED):
            self.set(row, field, 0)
        with mmap.mmap(self.fd, _ROW_BYTES, offset=_ROWS_AT + row * _ROW_BYTES) as cells:
            cells.madvise(mmap.MADV_REMOVE)  # gives the memory back; reads zero afterwards

    # names

    def row(self, number: int) -> Row:
        row = self._rows.get(number)
        if row is None:
            cells = memoryview(mmap.mmap(self.fd, _ROW_BYTES, offset=_ROWS_AT + number * _ROW_BYTES))
            row = self._rows[number] = Row(number, cells.cast("i"), cells.cast("d"))
        return row

    @property
    def common(self) -> Row:
        """Cells that every process may write."""
        return self.row(_COMMON)

    def claim(self, name: str, row: int) -> int:
        """The slot of `name`, held for `row` from now on; NO_SLOT when there is no room near its place."""
        digest = blake2b(name.encode(), digest_size=_DIGEST_BYTES).digest()
        start = int.from_bytes(digest[:8], "little") % (SLOTS - WINDOW)
        with self._locked():
            slot = self._find(digest, start)
            if slot == NO_SLOT:
                slot = self._take(digest, start)
            if slot != NO_SLOT:
                self.row(row).hold(slot)
        return slot

    def free(self, slot: int, row: int) -> None:
        """Lets a name go. Its slot may serve another name once no row holds it."""
        if slot != NO_SLOT:
            self.row(row).let_go(slot)

    def _find(self, digest: bytes, start: int) -> int:
        at = _DIRECTORY_AT + start * _DIGEST_BYTES
        window = self._map[at : at + WINDOW * _DIGEST_BYTES]
        found = window.find(digest)
        while found >= 0 and found % _DIGEST_BYTES:
            found = window.find(digest, found + 1)
        return start + found // _DIGEST_BYTES if found >= 0 else NO_SLOT

    def _take(self, digest: bytes, start: int) -> int:
        if self._held[0] != self.changes:
            self._held = self.changes, [self.row(number) for number in self.held_rows]
        slot = self._first_free(start, self._held[1])
        if slot != NO_SLOT:
            at = _DIRECTORY_AT + slot * _DIGEST_BYTES
            self._map[at : at + _DIGEST_BYTES] = digest
            self.common.wipe(slot)
        return slot

    @staticmethod
    def _first_free(start: int, rows: Sequence[Row]) -> int:
        for slot in range(start, start + WINDOW):
            if not any(row.holds(slot) for row in rows):
                return slot
        return NO_SLOT

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Guards the directory. A record lock: the kernel lets go of it when a process is killed. Held for some
        microseconds, and only while a table is applied."""
        fcntl.lockf(self.fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)
