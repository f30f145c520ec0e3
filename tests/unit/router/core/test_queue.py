"""Turns between callers: fair, work conserving, first come first served within one."""

from __future__ import annotations

from collections import Counter
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router.core.queue import WaitingRoom


class Party:
    def __init__(self, caller: str | None = None, number: int = 0, *, is_batch: bool = False) -> None:
        self.caller = caller
        self.number = number
        self.is_batch = is_batch

    def __repr__(self) -> str:
        return f"{self.caller or ''}{self.number}{'b' if self.is_batch else ''}"


def room(*words: str) -> WaitingRoom[Party]:
    """`a a b` are two requests of caller a and one of b; `ab` in upper case is batch."""
    made: WaitingRoom[Party] = WaitingRoom()
    for number, word in enumerate(words):
        made.push(Party(word.lower(), number, is_batch=word.isupper()))
    return made


def emptied(made: WaitingRoom[Party]) -> str:
    taken = ""
    while made.size:
        taken += made.pop().caller or "-"
    return taken


class TestWaitingRoom:
    def test_serves_callers_by_turns(self) -> None:
        assert emptied(room("a", "a", "a", "b", "b", "c")) == "abcaba"

    def test_keeps_the_order_within_a_caller(self) -> None:
        made = room("a", "b", "a", "a", "b")

        assert [repr(made.pop()) for _ in range(5)] == ["a0", "b1", "a2", "b4", "a3"]

    def test_is_a_plain_queue_without_keys(self) -> None:
        made: WaitingRoom[Party] = WaitingRoom()
        parties = [Party(None, number) for number in range(100)]
        for party in parties:
            made.push(party)

        assert [made.pop() for _ in range(100)] == parties

    def test_serves_batch_after_all_live_ones(self) -> None:
        assert emptied(room("A", "B", "a", "a", "b")) == "abaab"

    def test_delays_a_single_request_by_one_round_however_many_another_has(self) -> None:
        made = room(*["a"] * 1000, "b")

        assert emptied(made)[:2] == "ab"

    def test_gives_the_turn_of_one_who_left_to_the_next(self) -> None:
        made = room("b", "a")
        gone = Party("b", 2)
        made.push(gone)

        assert made.remove(gone)
        assert not made.remove(gone)
        assert emptied(made) == "ba"

    def test_returns_the_turn_of_one_that_took_no_slot(self) -> None:
        made = room("a", "b", "a")

        made.return_turn(made.pop())

        assert emptied(made) == "ab"

    @given(st.lists(st.sampled_from("abcAB"), max_size=40), st.sampled_from("abcdABD"))
    def test_says_truly_how_many_go_before_a_newcomer(self, words: list[str], newcomer: str) -> None:
        made = room(*words)
        party = Party(newcomer.lower(), 99, is_batch=newcomer.isupper())
        ahead = made.ahead(party)

        made.push(party)
        served = 0
        while made.pop() is not party:
            served += 1

        assert served == ahead


class TestFullRoom:
    def give_way(self, words: str, newcomer: str) -> str:
        party = Party(newcomer.lower(), 99, is_batch=newcomer.isupper())
        return repr(room(*words).gives_way_to(party))

    def test_takes_the_newest_place_of_the_greediest_for_a_lesser_caller(self) -> None:
        assert self.give_way("aabaac", "b") == "a4"

    def test_gives_nothing_to_the_greediest_itself(self) -> None:
        assert self.give_way("aab", "a") == "None"

    def test_gives_nothing_when_that_would_only_turn_the_tables(self) -> None:
        assert self.give_way("aabb", "a") == "None"
        assert self.give_way("aab", "b") == "None"

    def test_takes_a_batch_place_first(self) -> None:
        assert self.give_way("aAab", "b") == "a1b"

    def test_gives_no_live_place_to_batch(self) -> None:
        assert self.give_way("aaaa", "B") == "None"

    def test_counts_places_of_both_priorities(self) -> None:
        assert self.give_way("aabbbAAA", "c") == "a7b"

    def test_has_nothing_to_give_when_it_is_empty(self) -> None:
        assert self.give_way("", "a") == "None"


class RoomMachine(RuleBasedStateMachine):
    """No caller waits longer than one turn of each other caller, and none of its own overtakes."""

    def __init__(self) -> None:
        super().__init__()
        self.room: WaitingRoom[Party] = WaitingRoom()
        self.waiting: list[Party] = []
        self.passed: Counter[tuple[Party, str | None]] = Counter()  # who was served while this one was its line's first
        self.count = 0

    @rule(caller=st.sampled_from([None, "a", "b", "c"]))
    def come(self, caller: str | None) -> None:
        self.count += 1
        party = Party(caller, self.count)
        self.waiting.append(party)
        self.room.push(party)

    @precondition(lambda self: self.waiting)
    @rule()
    def serve(self) -> None:
        firsts = {party.caller: party for party in reversed(self.waiting)}
        served = self.room.pop()

        assert served is firsts[served.caller]
        self.waiting.remove(served)
        for caller, first in firsts.items():
            if caller != served.caller:
                self.passed[first, served.caller] += 1
                assert self.passed[first, served.caller] <= 1

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        party = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        assert self.room.remove(party)

    @invariant()
    def nobody_is_lost(self) -> None:
        assert self.room.size == len(self.waiting)
        assert sorted(map(repr, self.room)) == sorted(map(repr, self.waiting))


TestRoomMachine = RoomMachine.TestCase
TestRoomMachine.settings = settings(max_examples=60, stateful_step_count=60)


def test_knows_since_when_the_oldest_of_all_callers_waits() -> None:
    waiting = room()
    for at, caller in ((3.0, "a"), (1.0, "b"), (2.0, "b")):
        waiting.push(Party(caller), at)

    assert waiting.oldest == 1.0
    assert room().oldest == inf
