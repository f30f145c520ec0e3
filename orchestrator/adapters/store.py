"""The store: what was asked for and what happened, in one SQLite file (WAL). What runs is the engine's to say.

With `store_scaling.py` and `store_cost.py` the only importer of SQLAlchemy. Every method is one short transaction and
never touches the network; callers on the event loop run it directly, for each takes well under a millisecond.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError, IntegrityError

from orchestrator.adapters.store_cost import CostStore
from orchestrator.adapters.store_scaling import ScalingStore
from orchestrator.core.entities import Desired
from orchestrator.core.errors import ConflictError, UserError
from orchestrator.core.keys import Key
from orchestrator.core.pausing import Pause
from orchestrator.core.plan import RoutedModel

KEEP_EVENTS = 20_000

metadata = MetaData()
meta = Table("meta", metadata, Column("key", String, primary_key=True), Column("value", Text, nullable=False))
revisions = Table(
    "revisions",
    metadata,
    Column("revision", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("file", String, nullable=False),
    Column("base_dir", String, nullable=False),
    Column("summary", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("desired", Text, nullable=False),
    Column("state", String, nullable=False),
)
operations = Table(
    "operations",
    metadata,
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("state", String, nullable=False),
    Column("request", Text, nullable=False),
    Column("revision", Integer),
    Column("step", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("diagnostics", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float),
)
events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("level", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("model", String, nullable=False),
    Column("version", String, nullable=False),
    Column("replica", String, nullable=False),
    Column("revision", Integer, nullable=False),
    sqlite_autoincrement=True,
)
# Made in older state directories too, at the first start of a release that has it.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("digest", String, nullable=False, unique=True),
    Column("models", Text, nullable=False),
    Column("requests_per_s", Float, nullable=False),
    Column("burst", Integer, nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)


@dataclass(frozen=True, slots=True)
class StoredRevision:
    """One applied manifest with the desired state that was made from it."""

    revision: int
    at: float
    kind: str
    file: str
    base_dir: str
    summary: str
    manifest: str
    desired: Desired
    state: str


@dataclass(frozen=True, slots=True)
class StoredOperation:
    """An apply, rollback or delete. `request` is what was asked, as JSON, so that a new process can resume it."""

    id: str
    kind: str
    state: str
    request: str
    revision: int | None
    step: str
    error: str
    diagnostics: str
    created_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    id: int
    at: float
    level: str
    kind: str
    message: str
    model: str
    version: str
    replica: str
    revision: int


class Store:
    """Opens (and makes) the database at `path`. Raises `UserError` for a file that is not one of ours."""

    def __init__(self, path: Path) -> None:
        self._engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})
        event.listen(self._engine, "connect", _configure)
        try:
            metadata.create_all(self._engine)
            self.scaling = ScalingStore(self._engine)
            self.cost = CostStore(self._engine)
        except DatabaseError as exc:
            raise UserError(
                f"state database {path}: {exc.orig}; it must be a SQLite file made by modelfleet; move it away "
                f"(what runs is adopted, the history is lost) or name another --state-dir"
            ) from exc
        path.chmod(0o600)

    def close(self) -> None:
        self._engine.dispose()

    # -- single facts ---------------------------------------------------------------------------------------

    def get(self, key: str) -> str | None:
        with self._engine.connect() as connection:
            return connection.scalar(select(meta.c.value).where(meta.c.key == key))

    def put(self, key: str, value: str) -> None:
        with self._engine.begin() as connection:
            _put(connection, key, value)

    @property
    def epoch(self) -> str:
        """Names this database for ever: tables of another epoch are news to a gateway."""
        epoch = self.get("epoch")
        if epoch is None:
            epoch = uuid.uuid4().hex[:12]
            self.put("epoch", epoch)
        return epoch

    def pauses(self) -> dict[str, Pause]:
        """Paused rollouts, by model."""
        text = self.get("pauses")
        return msgspec.json.decode(text, type=dict[str, Pause]) if text else {}

    def put_pauses(self, pauses: Mapping[str, Pause]) -> None:
        self.put("pauses", msgspec.json.encode(dict(pauses)).decode())

    def console_sessions(self) -> dict[str, float]:
        """Who is signed in to the console: digests of sessions, with when each ends."""
        text = self.get("console_sessions")
        return msgspec.json.decode(text, type=dict[str, float]) if text else {}

    def put_console_sessions(self, sessions: Mapping[str, float]) -> None:
        self.put("console_sessions", msgspec.json.encode(dict(sessions)).decode())

    # -- routing --------------------------------------------------------------------------------------------

    def routed(self) -> tuple[int, dict[str, RoutedModel]]:
        """The routing that was published last, with its table revision (0: none)."""
        text = self.get("routed")
        if text is None:
            return 0, {}
        revision, models = msgspec.json.decode(text, type=tuple[int, dict[str, RoutedModel]])
        return revision, models

    def put_routed(self, revision: int, models: Mapping[str, RoutedModel]) -> None:
        self.put("routed", msgspec.json.encode((revision, dict(models))).decode())

    # -- revisions ------------------------------------------------------------------------------------------

    def add_revision(
        self, *, operation: str, kind: str, file: str, base_dir: str, summary: str, manifest: str, desired: Desired
    ) -> StoredRevision:
        """Puts a new revision in force and moves its operation to `converging`, in one transaction.

        Operations that were still converging are superseded.
        """
        with self._engine.begin() as connection:
            number = (connection.scalar(select(func.max(revisions.c.revision))) or 0) + 1
            desired = replace(desired, revision=number)
            row = StoredRevision(number, time.time(), kind, file, base_dir, summary, manifest, desired, "converging")
            connection.execute(insert(revisions).values(_revision_row(row)))
            _supersede(connection, before=number)
            changed = {"state": "converging", "revision": number, "step": f"revision {number} is in force"}
            connection.execute(update(operations).where(operations.c.id == operation).values(**changed))
        return row

    def current_revision(self) -> StoredRevision | None:
        with self._engine.connect() as connection:
            row = (
                connection.execute(select(revisions).order_by(revisions.c.revision.desc()).limit(1)).mappings().first()
            )
        return None if row is None else _stored_revision(row)

    def revision(self, number: int) -> StoredRevision | None:
        with self._engine.connect() as connection:
            row = connection.execute(select(revisions).where(revisions.c.revision == number)).mappings().first()
        return None if row is None else _stored_revision(row)

    def revisions(self, limit: int = 200) -> list[StoredRevision]:
        """Newest first."""
        query = select(revisions).order_by(revisions.c.revision.desc()).limit(limit)
        with self._engine.connect() as connection:
            return [_stored_revision(row) for row in connection.execute(query).mappings()]

    # -- operations -----------------------------------------------------------------------------------------

    def add_operation(self, kind: str, request: str, step: str) -> StoredOperation:
        row = StoredOperation(
            uuid.uuid4().hex[:12], kind, "preparing", request, None, step, "", "[]", time.time(), None
        )
        with self._engine.begin() as connection:
            connection.execute(insert(operations).values({f: getattr(row, f) for f in row.__slots__}))
        return row

    def update_operation(self, operation: str, **values: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(update(operations).where(operations.c.id == operation).values(**values))

    def end_operation(self, operation: StoredOperation, state: str, error: str = "", diagnostics: str = "[]") -> None:
        """Ends an operation that has not ended; its revision, if it made one, takes the same state."""
        values = {"state": state, "error": error, "diagnostics": diagnostics, "ended_at": time.time()}
        with self._engine.begin() as connection:
            open_states = ("preparing", "converging")
            mine = (operations.c.id == operation.id) & operations.c.state.in_(open_states)
            was_open = connection.execute(update(operations).where(mine).values(**values)).rowcount > 0
            if was_open and operation.revision is not None:
                own = revisions.c.revision == operation.revision
                connection.execute(update(revisions).where(own).values(state=state))

    def operation(self, operation: str) -> StoredOperation | None:
        with self._engine.connect() as connection:
            row = connection.execute(select(operations).where(operations.c.id == operation)).mappings().first()
        return None if row is None else StoredOperation(**row)

    def open_operations(self) -> list[StoredOperation]:
        """Those that have not ended, oldest first."""
        query = select(operations).where(operations.c.ended_at.is_(None)).order_by(operations.c.created_at)
        with self._engine.connect() as connection:
            return [StoredOperation(**row) for row in connection.execute(query).mappings()]

    def latest_operation(self) -> StoredOperation | None:
        query = select(operations).order_by(operations.c.created_at.desc()).limit(1)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else StoredOperation(**row)

    # -- API keys -------------------------------------------------------------------------------------------

    def add_key(self, key: Key) -> None:
        """Raises `ConflictError` for a name that another key has."""
        values: dict[str, Any] = {f: getattr(key, f) for f in key.__slots__}
        values["models"] = msgspec.json.encode(key.models).decode()
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(api_keys).values(**values))
        except IntegrityError as exc:
            raise ConflictError(
                f"key {key.name!r}: there is one of this name; names are unique; choose another, or revoke that first"
            ) from exc

    def api_keys(self) -> list[Key]:
        """Oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at)).mappings()
            return [_stored_key(row) for row in rows]

    def remove_key(self, id_: str) -> bool:
        """Whether it was there."""
        with self._engine.begin() as connection:
            return connection.execute(delete(api_keys).where(api_keys.c.id == id_)).rowcount > 0

    # -- events ---------------------------------------------------------------------------------------------

    def add_event(
        self,
        level: str,
        kind: str,
        message: str,
        *,
        model: str = "",
        version: str = "",
        replica: str = "",
        revision: int = 0,
    ) -> int:
        """Returns the event's id. The oldest beyond `KEEP_EVENTS` are forgotten."""
        values = {
            "at": time.time(),
            "level": level,
            "kind": kind,
            "message": message,
            "model": model,
            "version": version,
            "replica": replica,
            "revision": revision,
        }
        with self._engine.begin() as connection:
            result = connection.execute(insert(events).values(**values))
            number = int(result.inserted_primary_key[0]) if result.inserted_primary_key else 0
            if number % 256 == 0:
                connection.execute(delete(events).where(events.c.id <= number - KEEP_EVENTS))
        return number

    def events(
        self, *, after: int | None = None, limit: int = 100, model: str = "", version: str = ""
    ) -> list[StoredEvent]:
        """Oldest first: those after id `after`, or without it the last `limit`."""
        query = select(events)
        if model:
            query = query.where(events.c.model == model)
        if version:
            query = query.where(events.c.version == version)
        if after is None:
            query = query.order_by(events.c.id.desc()).limit(limit)
        else:
            query = query.where(events.c.id > after).order_by(events.c.id).limit(limit)
        with self._engine.connect() as connection:
            found = [StoredEvent(**row) for row in connection.execute(query).mappings()]
        return found[::-1] if after is None else found

    def events_of_kinds(self, kinds: Sequence[str], model: str, since: float) -> list[StoredEvent]:
        """A model's events of some kinds since a moment, oldest first."""
        query = (
            select(events)
            .where(events.c.model == model, events.c.at >= since, events.c.kind.in_(kinds))
            .order_by(events.c.id)
        )
        with self._engine.connect() as connection:
            return [StoredEvent(**row) for row in connection.execute(query).mappings()]

    def oldest_event_at(self) -> float | None:
        """When the oldest event that is kept happened; None: there is none."""
        with self._engine.connect() as connection:
            return connection.scalar(select(events.c.at).order_by(events.c.id).limit(1))


def _configure(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()


def _put(connection: Connection, key: str, value: str) -> None:
    statement = upsert(meta).values(key=key, value=value)
    connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": value}))


def _supersede(connection: Connection, before: int) -> None:
    values = {"state": "superseded", "ended_at": time.time(), "error": f"revision {before} took its place"}
    connection.execute(update(operations).where(operations.c.state == "converging").values(**values))
    connection.execute(
        update(revisions)
        .where(revisions.c.revision < before, revisions.c.state == "converging")
        .values(state="superseded")
    )


def _stored_key(row: Mapping[Any, Any]) -> Key:
    values = dict(row)
    values["models"] = msgspec.json.decode(values["models"], type=tuple[str, ...] | None)
    return Key(**values)


def _revision_row(row: StoredRevision) -> dict[str, Any]:
    values: dict[str, Any] = {f: getattr(row, f) for f in row.__slots__}
    values["desired"] = msgspec.json.encode(row.desired).decode()
    return values


def _stored_revision(row: Mapping[Any, Any]) -> StoredRevision:
    values = dict(row)
    values["desired"] = msgspec.json.decode(values["desired"], type=Desired)
    return StoredRevision(**values)
