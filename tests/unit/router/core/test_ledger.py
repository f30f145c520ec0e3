"""Bytes held for clients, and clients that do not read."""

from __future__ import annotations

from router.core.ledger import Ledger, Unread


class Reader:
    def __init__(self) -> None:
        self.is_cut = False

    def abort(self) -> None:
        self.is_cut = True


class TestLedger:
    def test_takes_up_to_its_bound_and_nothing_of_what_is_beyond(self) -> None:
        ledger = Ledger(100)

        assert [ledger.take(60), ledger.take(41), ledger.take(40)] == [True, False, True]
        assert ledger.held_bytes == 100

    def test_takes_again_what_was_given_back(self) -> None:
        ledger = Ledger(100)
        ledger.take(100)

        ledger.give(30)

        assert [ledger.take(31), ledger.take(30)] == [False, True]


class TestUnread:
    def test_lets_those_go_who_stopped_reading_first(self) -> None:
        unread, readers = Unread(100), [Reader() for _ in range(4)]

        for reader in readers:
            unread.add(reader, 40)

        assert [reader.is_cut for reader in readers] == [True, True, False, False]
        assert unread.bytes == 80

    def test_forgets_who_reads_again(self) -> None:
        unread, first, second = Unread(100), Reader(), Reader()
        unread.add(first, 60)

        unread.remove(first)
        unread.add(second, 60)

        assert (first.is_cut, second.is_cut, unread.bytes) == (False, False, 60)

    def test_counts_a_reader_once_and_moves_it_behind_the_others(self) -> None:
        unread, first, second = Unread(100), Reader(), Reader()
        unread.add(first, 40)
        unread.add(second, 40)

        unread.add(first, 30)
        unread.add(Reader(), 40)

        assert (first.is_cut, second.is_cut, unread.bytes) == (False, True, 70)

    def test_never_lets_the_only_one_go(self) -> None:
        unread, reader = Unread(100), Reader()

        unread.add(reader, 1000)

        assert not reader.is_cut
