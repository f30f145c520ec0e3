"""What replicas took, kept: a row for each version and stretch of time, wider with age, and where counting is.

A part of the store (`store.py`), in the same SQLite file. One process counts: each that begins to takes the pen, and
what another still adds with the old one is refused, so that nothing is counted twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError

from orchestrator.core.cost.account import (
    DAY_S,
    DAYS_KEPT_S,
    HOUR_S,
    HOURS_KEPT_S,
    MINUTE_S,
    MINUTES_KEPT_S,
    Bucket,
    Held,
    older_than,
)
from orchestrator.core.cost.amounts import NAMES, Amounts
from orchestrator.core.cost.predictions import Counted
from orchestrator.core.entities import Resources, VersionKey

# Which rows are joined into which, and at what age.
_ROLLS = ((MINUTE_S, HOUR_S, MINUTES_KEPT_S), (HOUR_S, DAY_S, HOURS_KEPT_S))

metadata = MetaData()
amounts = Table(
    "cost",
    metadata,
    Column("start", Integer, primary_key=True),
    Column("width_s", Integer, primary_key=True),
    Column("model", String, primary_key=True),
    Column("version", String, primary_key=True),
    *(Column(name, Float, nullable=False) for name in NAMES),
)
pen = Table(
    "cost_pen",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("holder", String, nullable=False),
    Column("mark", Text, nullable=False),
)


class NotTheWriter(Exception):  # noqa: N818
    """Another control plane counts by now."""


class NotKept(Exception):  # noqa: N818
    """The database took nothing of it, and why: it may take it later."""


class Mark(msgspec.Struct, frozen=True):
    """Where counting was: at which moment, what was seen to run then, and the gateways' counters. It began at `since`,
    in whichever process."""

    at: float
    since: float
    held: list[tuple[str, str, str, float, float | None, int | None, bool]]
    counted: dict[str, tuple[float, list[tuple[str, str, float]]]]

    @classmethod
    def of(cls, at: float, since: float, held: Mapping[str, Held], counted: Mapping[str, Counted]) -> Mark:
        return cls(
            at,
            since,
            [
                (id_, each.key.model, each.key.version, each.created_at, *_limits(each.resources), each.is_awake)
                for id_, each in held.items()
            ],
            {
                name: (each.began_at, [(key.model, key.version, n) for key, n in each.counts.items()])
                for name, each in counted.items()
            },
        )

    def replicas(self) -> dict[str, Held]:
        return {
            id_: Held(VersionKey(model, version), created_at, _resources(cpus, memory), is_awake)
            for id_, model, version, created_at, cpus, memory, is_awake in self.held
        }

    def counters(self) -> dict[str, Counted]:
        return {
            name: Counted(began_at, {VersionKey(model, version): n for model, version, n in counts})
            for name, (began_at, counts) in self.counted.items()
        }


class CostStore:
    """The tables of cost in the store's database. Reads may come from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._holder = ""
        self._rolled_up_in = -1  # which hour: rows grow old enough at its bounds alone
        metadata.create_all(engine)

    def begin(self) -> Mark | None:
        """Takes the pen. Returns where the last who had it was; None: nothing was ever counted."""
        self._holder = uuid.uuid4().hex
        with self._engine.begin() as connection:
            mark: str | None = connection.scalar(select(pen.c.mark))
            statement = upsert(pen).values(id=1, holder=self._holder, mark=mark or "")
            connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"holder": self._holder}))
        return msgspec.json.decode(mark, type=Mark) if mark else None

    def add(self, taken: Mapping[tuple[VersionKey, Bucket], Amounts], mark: Mark) -> None:
        """Adds to what is kept, and moves the mark: both or nothing. Raises `NotTheWriter` and `NotKept`."""
        try:
            with self._engine.begin() as connection:
                text = msgspec.json.encode(mark).decode()
                mine = update(pen).where(pen.c.holder == self._holder).values(mark=text)
                if connection.execute(mine).rowcount == 0:
                    raise NotTheWriter
                _add(connection, ((*_place(key, bucket), each) for (key, bucket), each in taken.items()))
                if self._rolled_up_in != mark.at // HOUR_S:
                    _roll_up(connection, mark.at)
            self._rolled_up_in = int(mark.at // HOUR_S)
        except DatabaseError as exc:
            raise NotKept(str(exc.orig)) from exc

    def by_version(self, since: float, model: str = "") -> dict[VersionKey, Amounts]:
        """Sums of each version since then; the stretch that `since` lies in counts whole."""
        query = _sums(amounts.c.model, amounts.c.version).group_by(amounts.c.model, amounts.c.version)
        with self._engine.connect() as connection:
            rows = connection.execute(_narrowed(query, since, model)).all()
        return {VersionKey(row[0], row[1]): Amounts(*row[2:]) for row in rows}

    def by_bucket(self, since: float, model: str = "") -> dict[Bucket, Amounts]:
        """Sums of all versions (or those of one model) in each stretch, in the order of time."""
        query = _sums(amounts.c.start, amounts.c.width_s).group_by(amounts.c.start, amounts.c.width_s)
        with self._engine.connect() as connection:
            rows = connection.execute(_narrowed(query, since, model).order_by(amounts.c.start)).all()
        return {Bucket(row[0], row[1]): Amounts(*row[2:]) for row in rows}


def _add(connection: Connection, rows: Iterable[tuple[int, int, str, str, Amounts]]) -> None:
    values = [
        {"start": start, "width_s": width_s, "model": model, "version": version, **_named(each)}
        for start, width_s, model, version, each in rows
    ]
    if not values:
        return
    statement = upsert(amounts)
    added = {name: getattr(amounts.c, name) + getattr(statement.excluded, name) for name in NAMES}
    connection.execute(
        statement.on_conflict_do_update(index_elements=["start", "width_s", "model", "version"], set_=added), values
    )


def _roll_up(connection: Connection, now: float) -> None:
    """Joins rows into wider ones as they grow old, and forgets the oldest."""
    for width_s, wider_s, age_s in _ROLLS:
        old = (amounts.c.width_s == width_s) & (amounts.c.start < older_than(now, age_s, wider_s))
        start = (amounts.c.start - amounts.c.start % wider_s).label("wide")
        query = _sums(start, amounts.c.model, amounts.c.version).where(old)
        rows = connection.execute(query.group_by("wide", amounts.c.model, amounts.c.version)).all()
        if rows:
            connection.execute(delete(amounts).where(old))
            _add(connection, ((row[0], wider_s, row[1], row[2], Amounts(*row[3:])) for row in rows))
    connection.execute(delete(amounts).where(amounts.c.start < now - DAYS_KEPT_S))


def _sums(*columns: Any) -> Any:
    return select(*columns, *(func.sum(getattr(amounts.c, name)) for name in NAMES))


def _narrowed(query: Any, since: float, model: str) -> Any:
    query = query.where(amounts.c.start + amounts.c.width_s > since)
    return query.where(amounts.c.model == model) if model else query


def _place(key: VersionKey, bucket: Bucket) -> tuple[int, int, str, str]:
    return bucket.start, bucket.width_s, key.model, key.version


def _named(each: Amounts) -> dict[str, float]:
    return {name: getattr(each, name) for name in NAMES}


def _limits(resources: Resources | None) -> tuple[float | None, int | None]:
    return (None, None) if resources is None else (resources.cpus, resources.memory_bytes)


def _resources(cpus: float | None, memory_bytes: int | None) -> Resources | None:
    return None if cpus is None or memory_bytes is None else Resources(cpus, memory_bytes)
