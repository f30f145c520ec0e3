"""The store: revisions, operations and events, each change whole, and there again after a restart."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from orchestrator.adapters.store import Store, StoredRevision, revisions
from orchestrator.core.entities import (
    ClusterLimits,
    Desired,
    ModelSettings,
    RouteSettings,
    Scaling,
    ScheduledMinimum,
    SignalSource,
)
from orchestrator.core.errors import ConflictError, UserError
from orchestrator.core.keys import Key
from tests.unit.orchestrator.core.builders import desired, version


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


def test_a_revision_keeps_between_what_its_counts_may_be_chosen(store: Store) -> None:
    scaling = Scaling(minimum=0, maximum=4, gone_after_s=60.0, schedule=(ScheduledMinimum("0 8 * * *", 2, "UTC"),))
    asked = replace(
        desired(version("iris@1", scaling=scaling)), limits=ClusterLimits(2.0, 2**30, 3), signals=SignalSource("direct")
    )
    operation = store.add_operation("apply", "{}", "begins")

    store.add_revision(
        operation=operation.id, kind="apply", file="models.yaml", base_dir="/", summary="", manifest="models: {}",
        desired=asked,
    )  # fmt: skip

    found = store.current_revision()
    assert found is not None
    assert found.desired == replace(asked, revision=found.revision)


# As the release before retries, stickiness and shadows wrote it.
EARLIER_DESIRED = """{"revision":1,"models":{"iris":{"name":"iris","versions":{"1":{"spec":{"model":"iris","version":"1",
"backend":"sklearn","artifact":"a1","runtime":"r","env":[],"secrets":[],"resources":{"cpus":1.0,"memory_bytes":536870912,
"pids":256},"port":8000,"egress":false,"settings":"{}"},"digest":"5c00","replicas":2,"concurrency":8,"queue_max":1000,
"queue_timeout_ms":5000,"request_timeout_ms":60000,"idempotent":false,"startup_timeout_s":300.0,"drain_timeout_s":45.0}},
"traffic":{"1":100},"labels":{"stable":"1"}}}}"""
EARLIER_ROUTED = """[7,{"iris":{"versions":{"1":{"settings":{"concurrency":8,"queue_max":1000,"queue_timeout_ms":5000,
"request_timeout_ms":60000,"idempotent":false},"replicas":["a"],"state":"","drain_timeout_s":45.0}},"weights":{"1":100},
"labels":{"stable":"1"}}}]"""


class TestAnEarlierRelease:
    def test_left_revisions_that_are_read_with_the_defaults_of_newer_fields(self, store: Store) -> None:
        _revise(store, store.add_operation("apply", "{}", "").id)
        with store._engine.begin() as connection:
            connection.execute(update(revisions).values(desired=EARLIER_DESIRED))

        stored = store.current_revision()

        assert stored is not None
        model = stored.desired.models["iris"]
        wanted = model.versions["1"]
        assert (wanted.replicas, wanted.concurrency, wanted.idempotent, wanted.drain_timeout_s) == (2, 8, False, 45.0)
        assert wanted.route_settings == RouteSettings(concurrency=8, idempotent=False)
        assert model.settings == ModelSettings()

    def test_left_a_routing_that_is_read_with_the_defaults_of_newer_fields(self, store: Store) -> None:
        store.put("routed", EARLIER_ROUTED)

        revision, routed = store.routed()

        assert (revision, routed["iris"].versions["1"].replicas) == (7, ("a",))
        assert routed["iris"].versions["1"].settings == RouteSettings(concurrency=8, idempotent=False)
        assert routed["iris"].settings == ModelSettings()


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


def _key(name: str, **facts: Any) -> Key:
    base: dict[str, Any] = {
        "id": f"id-{name}", "digest": f"digest of {name}", "models": None, "requests_per_s": 0.0, "burst": 1,
        "concurrency": 0, "created_at": 1.0, "expires_at": 0.0,
    }  # fmt: skip
    return Key(name=name, **{**base, **facts})


class TestKeys:
    def test_are_there_again_after_a_restart_oldest_first(self, tmp_path: Path) -> None:
        path = tmp_path / "state.sqlite"
        first, second = _key("b", created_at=1.0, models=("iris",)), _key("a", created_at=2.0, requests_per_s=2.5)
        store = Store(path)
        store.add_key(second)
        store.add_key(first)
        store.close()

        again = Store(path)

        assert again.api_keys() == [first, second]
        again.close()

    def test_have_names_of_their_own(self, store: Store) -> None:
        store.add_key(_key("ci"))

        with pytest.raises(ConflictError, match="'ci'"):
            store.add_key(_key("ci", id="another", digest="another"))

    def test_a_removed_one_leaves_its_name_free(self, store: Store) -> None:
        store.add_key(_key("ci"))

        assert store.remove_key("id-ci")
        assert not store.remove_key("id-ci")
        store.add_key(_key("ci"))

    def test_find_a_place_in_a_state_directory_of_an_older_release(self, tmp_path: Path) -> None:
        path = tmp_path / "state.sqlite"
        Store(path).close()
        with sqlite3.connect(path) as old:
            old.execute("DROP TABLE api_keys")

        store = Store(path)

        store.add_key(_key("ci"))
        assert [key.name for key in store.api_keys()] == ["ci"]
        store.close()
