"""The store: revisions, operations and events, each change whole, and there again after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.store import Store, StoredRevision
from orchestrator.core.entities import Desired
from orchestrator.core.errors import UserError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "state.sqlite")
    yield found
    found.close()


def _revise(store: Store, operation: str) -> StoredRevision:
    return store.add_revision(
        operation=operation, kind="apply", file="models.yaml", base_dir="/", summary="+a", manifest="models: {}",
        desired=Desired(),
    )  # fmt: skip


class TestRevisions:
    def test_they_are_numbered_and_the_last_is_in_force(self, store: Store) -> None:
        first = _revise(store, store.add_operation("apply", "{}", "").id)
        second = _revise(store, store.add_operation("apply", "{}", "").id)

        assert (first.revision, second.revision) == (1, 2)
        assert store.current_revision() == second
        assert [r.revision for r in store.revisions()] == [2, 1]
        assert second.desired.revision == 2

    def test_a_new_one_supersedes_what_still_converges(self, store: Store) -> None:
        first, second = store.add_operation("apply", "{}", ""), store.add_operation("apply", "{}", "")
        _revise(store, first.id)

        _revise(store, second.id)

        ended, current = store.operation(first.id), store.operation(second.id)
        assert ended is not None
        assert current is not None
        assert (ended.state, ended.error) == ("superseded", "revision 2 took its place")
        assert current.state == "converging"
        assert [(r.revision, r.state) for r in store.revisions()] == [(2, "converging"), (1, "superseded")]

    def test_a_superseded_operation_stays_so_whatever_its_watcher_says_later(self, store: Store) -> None:
        first = store.add_operation("apply", "{}", "")
        _revise(store, first.id)
        watched = store.operation(first.id)
        _revise(store, store.add_operation("apply", "{}", "").id)
        assert watched is not None

        store.end_operation(watched, "succeeded")

        ended, revision = store.operation(first.id), store.revision(1)
        assert ended is not None
        assert revision is not None
        assert ended.state == "superseded"
        assert revision.state == "superseded"


class TestOperations:
    def test_open_ones_are_found_after_a_restart(self, store: Store, tmp_path: Path) -> None:
        preparing, ended = store.add_operation("apply", "{}", "begins"), store.add_operation("delete", "{}", "begins")
        store.end_operation(ended, "failed", "because")
        store.close()

        again = Store(tmp_path / "state.sqlite")

        assert [o.id for o in again.open_operations()] == [preparing.id]
        latest = again.latest_operation()
        assert latest is not None
        assert (latest.id, latest.error) == (ended.id, "because")
        again.close()


class TestEvents:
    def test_the_last_ones_or_those_after_one_oldest_first(self, store: Store) -> None:
        ids = [store.add_event("info", "kind", f"event {n}", model="a" if n % 2 else "b") for n in range(6)]

        assert [e.id for e in store.events(limit=2)] == ids[-2:]
        assert [e.id for e in store.events(after=ids[1], limit=2)] == ids[2:4]
        assert [e.message for e in store.events(model="a")] == ["event 1", "event 3", "event 5"]

    def test_ids_never_come_again(self, store: Store) -> None:
        assert store.add_event("info", "kind", "one") < store.add_event("info", "kind", "two")


class TestFile:
    def test_it_is_its_owners_alone(self, store: Store, tmp_path: Path) -> None:
        assert (tmp_path / "state.sqlite").stat().st_mode & 0o777 == 0o600

    def test_the_epoch_names_the_database_for_ever(self, store: Store, tmp_path: Path) -> None:
        epoch = store.epoch
        again = Store(tmp_path / "state.sqlite")

        assert again.epoch == epoch
        again.close()

    def test_a_file_of_another_kind_is_told_with_what_to_do(self, tmp_path: Path) -> None:
        path = tmp_path / "other.sqlite"
        path.write_bytes(b"not a database at all, but long enough to be taken for one" * 20)

        with pytest.raises(UserError, match="move it away"):
            Store(path)
