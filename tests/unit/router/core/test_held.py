"""A delta is the table that it leads to, or it is refused whole; whatever came before."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.loops.changes import KEPT_TABLES, Changes
from router.contract import (
    ApiKey,
    Endpoint,
    ModelRoute,
    Table,
    TableDelta,
    TableError,
    VersionRoute,
    check,
    decode_delta,
    encode,
)
from router.core.held import HeldTable
from router.core.table import Fleet

NAMES = [f"m{n}" for n in range(24)]


def model(*replicas: str, **settings: Any) -> ModelRoute:
    endpoints = tuple(Endpoint(replica, "127.0.0.1", 1 + int(replica[1:])) for replica in replicas)
    return ModelRoute({"1": VersionRoute(endpoints, **settings)}, {"1": 100})


def table(revision: int, keys: dict[str, ApiKey] | None = None, **models: ModelRoute) -> Table:
    return Table("e", revision, "c", models, keys or {})


def merge(held: HeldTable, delta: TableDelta) -> Table:
    steps = held.merge(decode_delta(encode(delta)))
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            merged: Table = stop.value
            return merged


def take(held: HeldTable, fleet: Fleet, delta: TableDelta) -> None:
    merged = merge(held, delta)
    for _ in fleet.amend(delta, lambda: 0.0):
        pass
    held.hold_merged(delta, merged, 0.0)


def fleet() -> Fleet:
    return Fleet(lambda n: n - 1, lambda _: None, lambda _: None)


def put(into: Fleet, whole: Table) -> None:
    for _ in into.apply(whole, lambda: 0.0):
        pass


@st.composite
def tables(draw: st.DrawFn) -> list[Table]:
    """Tables, each with a few models and keys other than in the one before; a replica may move between models."""
    models: dict[str, ModelRoute] = {name: model() for name in NAMES}
    keys: dict[str, ApiKey] = {}
    found = [table(1, dict(keys), **models)]
    for revision in range(2, 2 + draw(st.integers(1, 6))):
        for name in draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True)):
            owned = {e.id for n, m in models.items() if n != name for v in m.versions.values() for e in v.endpoints}
            free = sorted({f"r{n}" for n in range(6)} - owned)
            replicas = draw(st.lists(st.sampled_from(free), max_size=2, unique=True)) if free else []
            if draw(st.booleans()):
                models[name] = model(*replicas, concurrency=draw(st.integers(1, 3)))
            else:
                models.pop(name, None)
        for name in draw(st.lists(st.sampled_from(["k1", "k2"]), max_size=1)):
            if draw(st.booleans()):
                keys[name] = ApiKey("0" * 63 + str(draw(st.integers(0, 3))))
            else:
                keys.pop(name, None)
        found.append(table(revision, dict(keys), **models))
    return found


class TestAnySequence:
    @given(tables(), st.data())
    def test_of_deltas_is_the_snapshots(self, sequence: list[Table], data: st.DataObject) -> None:
        """Whoever sleeps through some tables is led to the newest too, by a delta or by the whole."""
        changes, held, by_delta, by_snapshot = Changes(), HeldTable(), fleet(), fleet()
        held.hold(sequence[0], 0.0)
        put(by_delta, sequence[0])
        for before, after in pairwise(sequence):
            check(after)
            changes.note(before, after)
            if data.draw(st.booleans(), label="asleep"):
                continue
            assert held.table is not None
            delta = changes.since(held.table.tag, after)
            if delta is None:
                put(by_delta, after)
                held.hold(after, 0.0)
            else:
                take(held, by_delta, delta)
            put(by_snapshot, after)

            assert held.table == after
            assert by_delta.tag == by_snapshot.tag == after.tag
            assert {n: m.route for n, m in by_delta.models.items()} == after.models
            assert by_delta.replicas.keys() == by_snapshot.replicas.keys()

    @given(tables())
    def test_refused_leaves_what_is_held(self, sequence: list[Table]) -> None:
        held = HeldTable()
        held.hold(sequence[0], 0.0)
        changes = Changes()
        for before, after in pairwise(sequence):
            changes.note(before, after)
        bad = TableDelta("e:1", "e", 99, models={"m0": model(balance="none")})

        with pytest.raises(TableError):
            merge(held, bad)

        assert held.table is sequence[0]
        if (good := changes.since("e:1", sequence[-1])) is not None:
            assert merge(held, good) == sequence[-1]


class TestMerge:
    @pytest.mark.parametrize(
        ("delta", "sentence"),
        [
            (TableDelta("e:2", "e", 3), "it changes 'e:2', and another table is held"),
            (TableDelta("e:1", "other", 2), "does not follow 'e:1'"),
            (TableDelta("e:1", "e", 1), "does not follow 'e:1'"),
            (TableDelta("e:1", "e", 2, models={"b": model("r1")}), "replica 'r1' is in model 'a' already"),
            (TableDelta("e:1", "e", 2, models={"b": model("r7"), "c": model("r7")}), "replica 'r7' is named twice"),
            (TableDelta("e:1", "e", 2, models={"a": model(concurrency=0)}), "a limit is below its least value"),
            (TableDelta("e:1", "e", 2, models={"a": model()}, removed=("a",)), "'a' is changed and removed"),
            (TableDelta("e:1", "e", 2, keys={"k": ApiKey("short")}), "key 'k': digest"),
        ],
    )
    def test_refuses_what_contradicts_itself_or_the_table_held(self, delta: TableDelta, sentence: str) -> None:
        held = HeldTable()
        held.hold(table(1, a=model("r1"), b=model("r2")), 0.0)

        with pytest.raises(TableError, match=sentence):
            merge(held, delta)

    def test_lets_a_replica_move_from_a_changed_model_to_another(self) -> None:
        held = HeldTable()
        held.hold(table(1, a=model("r1"), b=model("r2")), 0.0)

        merged = merge(held, TableDelta("e:1", "e", 2, models={"b": model("r1"), "a": model()}))

        assert merged == table(2, a=model(), b=model("r1"))

    def test_knows_the_replicas_that_deltas_brought(self) -> None:
        held, routed = HeldTable(), fleet()
        held.hold(table(1, a=model("r1"), b=model()), 0.0)
        take(held, routed, TableDelta("e:1", "e", 2, models={"a": model("r3")}))

        with pytest.raises(TableError, match="'r3' is in model 'a' already"):
            merge(held, TableDelta("e:2", "e", 3, models={"b": model("r3")}))
        assert merge(held, TableDelta("e:2", "e", 3, models={"b": model("r1")})).models["b"] == model("r1")

    def test_needs_a_table_to_change(self) -> None:
        with pytest.raises(TableError, match="another table is held"):
            merge(HeldTable(), TableDelta("", "e", 1))

    def test_refuses_what_is_no_delta(self) -> None:
        with pytest.raises(TableError, match="routing table delta"):
            decode_delta(encode(table(1)))


class TestChanges:
    def test_of_more_than_a_quarter_are_no_delta(self) -> None:
        before = table(1, **{name: model() for name in NAMES[:8]})
        changes = Changes()
        after = table(2, **before.models | dict.fromkeys(NAMES[:3], model("r1")))

        changes.note(before, after)

        assert changes.since("e:1", after) is None

    def test_before_the_last_few_tables_are_forgotten(self) -> None:
        changes = Changes()
        newest = table(1, **{name: model() for name in NAMES})
        for revision in range(2, KEPT_TABLES + 3):
            before, newest = newest, table(revision, **newest.models | {"m0": model(concurrency=revision)})
            changes.note(before, newest)

        assert changes.since("e:1", newest) is None
        assert changes.since("e:2", newest) == TableDelta(
            "e:2", "e", KEPT_TABLES + 2, models={"m0": newest.models["m0"]}
        )

    def test_since_a_table_of_somebody_else_are_unknown(self) -> None:
        changes = Changes()
        changes.note(table(1, a=model()), table(2, a=model(concurrency=2)))

        assert changes.since("other:1", table(2, a=model(concurrency=2))) is None
