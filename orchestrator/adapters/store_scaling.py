"""What the autoscaler must not forget: the counts in force, what people set by hand, and its last decisions.

A part of the store (`store.py`), in the same SQLite file and with the same rules: each method is one short transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Engine, Float, Integer, MetaData, String, Table, Text, delete, func, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from orchestrator.core.entities import Target, VersionKey
from orchestrator.core.scaling.facts import Override

# Of each version: some hours of a busy one, months of a quiet one.
KEEP_DECISIONS = 500
_FORGET_EVERY = 64

metadata = MetaData()
targets = Table(
    "scale_targets",
    metadata,
    Column("model", String, primary_key=True),
    Column("version", String, primary_key=True),
    Column("replicas", Integer, nullable=False),
    Column("standby", Integer, nullable=False),
)
overrides = Table(
    "scale_overrides",
    metadata,
    Column("model", String, primary_key=True),
    Column("version", String, primary_key=True),
    Column("replicas", Integer, nullable=False),
    Column("until", Float),
)
decisions = Table(
    "scale_decisions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("model", String, nullable=False, index=True),
    Column("version", String, nullable=False),
    Column("before", Integer, nullable=False),
    Column("target", Integer, nullable=False),
    Column("standby", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision that changed the count of a version."""

    at: float
    model: str
    version: str
    before: int
    target: int
    standby: int
    reason: str


class ScalingStore:
    """The tables of the autoscaler in the store's database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        metadata.create_all(engine)

    def targets(self) -> dict[VersionKey, Target]:
        with self._engine.connect() as connection:
            rows = connection.execute(select(targets)).all()
        return {VersionKey(row.model, row.version): Target(row.replicas, row.standby) for row in rows}

    def put_targets(self, changed: Mapping[VersionKey, Target | None]) -> None:
        """None forgets one."""
        with self._engine.begin() as connection:
            for key, target in changed.items():
                if target is None:
                    connection.execute(delete(targets).where(*_is_of(targets, key)))
                else:
                    values = {"replicas": target.replicas, "standby": target.standby}
                    connection.execute(_upsert(targets, key, values))

    def overrides(self) -> dict[VersionKey, Override]:
        with self._engine.connect() as connection:
            rows = connection.execute(select(overrides)).all()
        return {VersionKey(row.model, row.version): Override(row.replicas, row.until) for row in rows}

    def put_override(self, key: VersionKey, override: Override | None) -> None:
        """None takes it back."""
        with self._engine.begin() as connection:
            if override is None:
                connection.execute(delete(overrides).where(*_is_of(overrides, key)))
            else:
                values = {"replicas": override.replicas, "until": override.until}
                connection.execute(_upsert(overrides, key, values))

    def add_decision(self, decision: StoredDecision) -> None:
        """The oldest beyond `KEEP_DECISIONS` of the version are forgotten, now and then."""
        with self._engine.begin() as connection:
            values = {name: getattr(decision, name) for name in decision.__slots__}
            result = connection.execute(insert(decisions).values(**values))
            number = int(result.inserted_primary_key[0]) if result.inserted_primary_key else 0
            if number % _FORGET_EVERY == 0:
                connection.execute(delete(decisions).where(decisions.c.id.in_(_superfluous())))

    def decisions(self, model: str, version: str = "", limit: int = 100) -> list[StoredDecision]:
        """The last `limit`, oldest first."""
        query = select(decisions).where(decisions.c.model == model)
        if version:
            query = query.where(decisions.c.version == version)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(decisions.c.id.desc()).limit(limit)).mappings().all()
        return [StoredDecision(**{name: row[name] for name in StoredDecision.__slots__}) for row in reversed(rows)]


def _is_of(table: Table, key: VersionKey) -> tuple[Any, Any]:
    return table.c.model == key.model, table.c.version == key.version


def _upsert(table: Table, key: VersionKey, values: dict[str, Any]) -> Any:
    statement = upsert(table).values(model=key.model, version=key.version, **values)
    return statement.on_conflict_do_update(index_elements=["model", "version"], set_=values)


def _superfluous() -> Any:
    newest_first = func.row_number().over(
        partition_by=(decisions.c.model, decisions.c.version), order_by=decisions.c.id.desc()
    )
    numbered = select(decisions.c.id, newest_first.label("nth")).subquery()
    return select(numbered.c.id).where(numbered.c.nth > KEEP_DECISIONS)
