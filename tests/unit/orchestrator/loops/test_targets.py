"""The counts in force: over what was applied, and there again after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.store import Store
from orchestrator.adapters.store_scaling import KEEP_DECISIONS, StoredDecision
from orchestrator.core.entities import Desired, Scaling, ScheduledMinimum, Target
from orchestrator.core.scaling.facts import Override
from orchestrator.loops.targets import Targets
from tests.unit.orchestrator.core.builders import desired, key, version

NOTHING = Desired()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "state.sqlite")
    yield found
    found.close()


def scaled(minimum: int = 1, maximum: int = 5, replicas: int = 1, **settings: Any) -> Desired:
    scaling = Scaling(minimum=minimum, maximum=maximum, **settings)
    return desired(version("iris@1", replicas, scaling=scaling))


def counts(found: Desired) -> tuple[int, int]:
    wanted = found.versions()[key("iris@1")]
    return wanted.replicas, wanted.standby


class TestTargets:
    def test_a_fixed_version_runs_as_it_was_applied(self, store: Store) -> None:
        targets = Targets(store.scaling)
        targets.set({key("iris@1"): Target(4)})

        assert counts(targets.applied(desired(version("iris@1", 2)), NOTHING)) == (2, 0)

    def test_a_scaled_version_runs_as_was_chosen_and_its_spec_stays(self, store: Store) -> None:
        targets, asked = Targets(store.scaling), scaled(standby=2)

        assert targets.set({key("iris@1"): Target(3, 1)})
        applied = targets.applied(asked, NOTHING)

        assert counts(applied) == (3, 1)
        assert applied.versions()[key("iris@1")].digest == asked.versions()[key("iris@1")].digest

    def test_says_whether_a_count_is_another(self, store: Store) -> None:
        targets = Targets(store.scaling)

        assert [targets.set({key("iris@1"): Target(n)}) for n in (3, 3, 4)] == [True, False, True]

    def test_another_process_goes_on_with_the_counts_and_with_what_was_set_by_hand(self, store: Store) -> None:
        first = Targets(store.scaling)
        first.set({key("iris@1"): Target(3, 1)})
        first.override(key("iris@1"), Override(3, until=99.0))

        second = Targets(store.scaling)

        assert second.get(key("iris@1")) == Target(3, 1)
        assert second.overrides == {key("iris@1"): Override(3, until=99.0)}

    @pytest.mark.parametrize(
        ("minimum", "maximum", "held"), [(1, 5, 4), (1, 3, 3), (6, 9, 6)], ids=["within", "above max", "below min"]
    )
    def test_a_version_that_is_scaled_from_now_on_keeps_what_it_has(
        self, store: Store, minimum: int, maximum: int, held: int
    ) -> None:
        running = desired(version("iris@1", 4))

        assert counts(Targets(store.scaling).applied(scaled(minimum, maximum), running)) == (held, 0)

    def test_a_count_between_two_schedules_minimums_is_kept(self, store: Store) -> None:
        targets = Targets(store.scaling)
        targets.set({key("iris@1"): Target(1)})

        asked = scaled(2, 5, schedule=(ScheduledMinimum("0 19 * * *", 1),))

        assert counts(targets.applied(asked, NOTHING)) == (1, 0)

    def test_forgets_the_counts_of_versions_that_are_fixed_or_gone(self, store: Store) -> None:
        targets = Targets(store.scaling)
        targets.set({key("iris@1"): Target(3), key("gone@1"): Target(2)})
        targets.override(key("gone@1"), Override(2))

        targets.adopt(desired(version("iris@1", 2)))

        assert (targets.get(key("iris@1")), targets.get(key("gone@1")), dict(targets.overrides)) == (None, None, {})

    def test_a_persons_word_counts_for_a_fixed_version_and_above_what_schedules_ask_for(self, store: Store) -> None:
        targets = Targets(store.scaling)
        targets.override(key("iris@1"), Override(6))
        targets.set({key("iris@1"): Target(6)})

        applied = targets.applied(desired(version("iris@1", 2)), NOTHING)
        targets.adopt(applied)

        assert counts(applied) == (6, 0)
        assert targets.get(key("iris@1")) == Target(6)


class TestDecisions:
    def test_are_kept_in_their_order_for_a_model_and_a_version(self, store: Store) -> None:
        for n, name in enumerate(["1", "2", "1"]):
            store.scaling.add_decision(StoredDecision(float(n), "iris", name, n, n + 1, 0, f"reason {n}"))

        assert [d.reason for d in store.scaling.decisions("iris")] == ["reason 0", "reason 1", "reason 2"]
        assert [d.at for d in store.scaling.decisions("iris", "1", limit=1)] == [2.0]

    def test_the_oldest_of_a_version_are_forgotten(self, store: Store) -> None:
        store.scaling.add_decision(StoredDecision(0.0, "iris", "2", 0, 1, 0, "of another version"))
        for n in range(KEEP_DECISIONS + 200):
            store.scaling.add_decision(StoredDecision(float(n), "iris", "1", n, n + 1, 0, ""))

        kept = store.scaling.decisions("iris", "1", limit=10_000)

        assert KEEP_DECISIONS <= len(kept) < KEEP_DECISIONS + 100
        assert kept[-1].before == KEEP_DECISIONS + 199
        assert len(store.scaling.decisions("iris", "2")) == 1
