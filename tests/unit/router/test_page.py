"""The shared page: names and slots, rows that begin and end, and numbers of several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router.core.rows import NO_SLOT
from router.page import Field, Page, Phase


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.make()
    yield page
    os.close(page.fd)


def other_view(page: Page) -> Page:
    """The same page as another process sees it."""
    return Page(page.fd)


class TestNames:
    def test_have_the_same_slot_in_every_process(self, page: Page) -> None:
        page.start(0, 1)
        page.start(1, 1)

        first = page.claim("replica a", 0)

        assert other_view(page).claim("replica a", 1) == first
        assert page.claim("replica b", 0) != first

    def test_leave_a_slot_to_others_once_nobody_holds_it(self, page: Page) -> None:
        for row in (0, 1):
            page.start(row, 1)
        slots = {row: page.claim("a", row) for row in (0, 1)}
        page.row(0).set_count(slots[0], 5)

        page.free(slots[0], 0)
        assert page.row(1).holds(slots[1])
        page.free(slots[1], 1)

        assert page.row(0).count(slots[0]) == 0
        assert not page.row(0).holds(slots[0])

    def test_of_ten_thousand_models_fit(self, page: Page) -> None:
        page.start(0, 1)
        names = [f"{kind}{n}" for kind in ("version", "replica", "other") for n in range(20_000)]

        slots = {page.claim(name, 0) for name in names}

        assert NO_SLOT not in slots
        assert len(slots) == len(names)


class TestRows:
    def test_are_zero_when_another_process_starts_there(self, page: Page) -> None:
        page.start(3, 1)
        slot = page.claim("a", 3)
        page.row(3).set_count(slot, 7)
        page.row(3).set_time(slot, 1.5)
        page.set(3, Field.TABLES, 1)

        page.end(3)

        seen = other_view(page).row(3)
        assert (seen.count(slot), seen.time(slot), seen.holds(slot)) == (0, 0.0, False)
        assert (page.get(3, Field.TABLES), page.get(3, Field.PHASE)) == (0, Phase.NONE)

    def test_say_that_something_changed(self, page: Page) -> None:
        before = page.changes

        page.start(0, 1)

        assert other_view(page).changes > before
        assert other_view(page).held_rows == [0]

    def test_have_cells_that_all_write(self, page: Page) -> None:
        page.start(0, 1)
        slot = page.claim("limit", 0)

        memory, index = page.common.cell(slot)
        memory[index] = 4.25

        assert other_view(page).common.time(slot) == 4.25


class SharedNames(RuleBasedStateMachine):
    """Rows come and go, claim and free names: a slot never serves two names, nor a name two slots."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page.make()
        self.held: dict[int, dict[str, int]] = {}

    @rule(row=st.integers(0, 3))
    def start(self, row: int) -> None:
        if row not in self.held:
            self.page.start(row, 1)
            self.held[row] = {}

    @rule(row=st.integers(0, 3))
    def end(self, row: int) -> None:
        if self.held.pop(row, None) is not None:
            self.page.end(row)

    @rule(row=st.integers(0, 3), name=st.sampled_from("abcdefgh"))
    def claim(self, row: int, name: str) -> None:
        if row in self.held:
            slot = self.page.claim(name, row)
            self.held[row][name] = slot
            self.page.row(row).set_count(slot, row + 1)

    @rule(row=st.integers(0, 3), name=st.sampled_from("abcdefgh"))
    def free(self, row: int, name: str) -> None:
        if name in self.held.get(row, {}):
            self.page.free(self.held[row].pop(name), row)

    @invariant()
    def slots_and_names_belong_together(self) -> None:
        pairs = {(name, slot) for names in self.held.values() for name, slot in names.items()}
        assert len({name for name, _ in pairs}) == len(pairs) == len({slot for _, slot in pairs})

    @invariant()
    def counts_are_those_of_the_holders(self) -> None:
        for row, names in self.held.items():
            assert all(self.page.row(row).count(slot) == row + 1 for slot in names.values())

    def teardown(self) -> None:
        os.close(self.page.fd)


TestSharedNames = SharedNames.TestCase
TestSharedNames.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.sets(st.text(min_size=1), max_size=50))
def test_any_name_finds_its_slot_again(page: Page, names: set[str]) -> None:
    page.start(0, 1)

    first = {name: page.claim(name, 0) for name in names}

    assert {name: other_view(page).claim(name, 0) for name in names} == first
