"""Events of replicas to spans of states."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.timeline import BEGINS, Alive, Happening, Span, spans


def told(*events: tuple[float, str], replica: str = "a", message: str = "") -> list[Happening]:
    return [Happening(at, f"replica_{kind}", replica, "1", message) for at, kind in events]


def shown(found: list[Span]) -> list[tuple[str, float, float | None]]:
    return [(each.state, each.since, each.until) for each in found]


class TestSpans:
    def test_a_life_from_start_to_stop(self) -> None:
        found = spans(told((1, "started"), (3, "ready"), (9, "draining"), (10, "stopped")), {})

        assert shown(found) == [("starting", 1, 3), ("ready", 3, 9), ("draining", 9, 10)]

    def test_one_that_lives_has_no_end(self) -> None:
        found = spans(told((1, "started"), (3, "ready")), {"a": Alive("1", "ready", 0.5)})

        assert shown(found) == [("starting", 1, 3), ("ready", 3, None)]

    def test_why_one_failed_stands_at_its_end(self) -> None:
        events = told((1, "started"), (3, "ready")) + told((5, "failed"), message="ended with exit code 3")

        assert [each.reason for each in spans(events, {})] == ["", "ended with exit code 3"]

    def test_sleep_and_waking(self) -> None:
        found = spans(told((1, "ready"), (2, "draining"), (3, "paused"), (8, "woken"), (8.1, "ready")), {})

        assert shown(found)[1:4] == [("draining", 2, 3), ("standby", 3, 8), ("starting", 8, 8.1)]

    def test_one_whose_end_nobody_saw_is_shown_to_the_last_that_was_heard(self) -> None:
        assert shown(spans(told((1, "started"), (3, "ready")), {})) == [("starting", 1, 3), ("ready", 3, 3)]

    def test_one_of_whom_all_is_forgotten_is_as_it_is_since_it_was_made(self) -> None:
        assert spans([], {"a": Alive("2", "ready", 7.0)}) == [Span("a", "2", "ready", 7.0, None)]

    def test_a_forgotten_beginning_is_unknown(self) -> None:
        found = spans(told((9, "draining")), {"a": Alive("1", "draining", 2.0)})

        assert shown(found) == [("unknown", 2.0, 9), ("draining", 9, None)]

    @given(st.lists(st.tuples(st.sampled_from([*BEGINS, "scaled"]), st.sampled_from("abc")), max_size=30))
    def test_the_spans_of_a_replica_are_in_order_and_only_the_last_is_open(self, events: list[tuple[str, str]]) -> None:
        heard = [Happening(float(n), kind, replica, "1") for n, (kind, replica) in enumerate(events)]
        alive = {"a": Alive("1", "ready", 0.0)}

        found = spans(heard, alive)

        for replica in "abc":
            own = [each for each in found if each.replica == replica]
            ends = [each.until for each in own]
            assert all(end is not None for end in ends[:-1])
            assert all(a.until is not None and a.until <= b.since for a, b in itertools.pairwise(own))
            assert replica == "a" or None not in ends
