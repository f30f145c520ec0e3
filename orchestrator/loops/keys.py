"""API keys of the cluster: made, listed, revoked, and on their way to the gateway.

A key is in force when the gateway has applied a table that names it, and out of force when it has applied one without
it: both are waited for, for a moment, and said as they are. The text of a key exists in this process only while it is
made; it is in no event, log or table.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.adapters.store import Store
from orchestrator.core.errors import NotFoundError, UserError
from orchestrator.core.keys import ID_BYTES, NAME, SECRET_BYTES, Key, compose, digest
from orchestrator.loops.journal import Journal
from orchestrator.loops.keeper import GatewayKeeper
from orchestrator.loops.routing import TableBoard

# A gateway that runs has a new table within a few milliseconds.
IN_FORCE_S = 3.0
ASK_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class Made:
    """A new key with its text, which is told once. `is_in_force`: the gateway has it."""

    key: Key
    text: str
    is_in_force: bool


class Keys:
    """Makes and revokes keys; the store has them, the board tells the gateway."""

    def __init__(self, store: Store, board: TableBoard, keeper: GatewayKeeper, journal: Journal) -> None:
        self._store = store
        self._board = board
        self._keeper = keeper
        self._journal = journal

    def all(self) -> list[Key]:
        """Oldest first, those that expired included."""
        return self._store.api_keys()

    async def create(
        self,
        name: str,
        *,
        models: tuple[str, ...] | None,
        requests_per_s: float,
        burst: int,
        concurrency: int,
        expires_in_s: float | None,
    ) -> Made:
        """Raises `UserError` for a name that cannot be one, `ConflictError` for one that is taken."""
        if not NAME.fullmatch(name):
            raise UserError(
                f"key {name!r}: not a name; it has up to 63 letters, digits, dots, underscores and dashes and begins "
                f"with a letter or digit; choose such a one"
            )
        id_, text = compose(os.urandom(ID_BYTES + SECRET_BYTES))
        now = time.time()
        expires_at = now + expires_in_s if expires_in_s is not None else 0.0
        key = Key(id_, name, digest(text), models, requests_per_s, burst, concurrency, now, expires_at)
        self._store.add_key(key)
        self._journal.record("key_created", f"key {name} ({id_}) was made for {_scope(key)}")
        return Made(key, text, await self._publish())

    async def revoke(self, id_or_name: str) -> tuple[Key, bool]:
        """Takes a key away; returns it, and whether the gateway refuses it already. Raises `NotFoundError`."""
        key = next((key for key in self._store.api_keys() if id_or_name in (key.id, key.name)), None)
        if key is None or not self._store.remove_key(key.id):
            raise NotFoundError(f"key {id_or_name!r}: there is none of this id or name; see `modelfleet keys list`")
        self._journal.record("key_revoked", f"key {key.name} ({key.id}) was revoked", level="warning")
        return key, await self._publish()

    async def _publish(self) -> bool:
        """Tells the gateway; whether it has applied that within a moment."""
        self._board.publish_keys()
        deadline = time.monotonic() + IN_FORCE_S
        while self._board.tag:
            report = await self._keeper.report()
            if report is not None and report.tag == self._board.tag:
                return True
            if report is None or time.monotonic() > deadline:
                break
            await asyncio.sleep(ASK_EVERY_S)
        return False


def unknown_models(models: tuple[str, ...] | None, known: Mapping[str, Any]) -> list[str]:
    """A key may be made before its model: what is not there yet is worth a warning, for it may be a typing error."""
    return [model for model in models or () if model not in known]


def _scope(key: Key) -> str:
    return "all models" if key.models is None else f"model{'s'[: len(key.models) != 1]} {', '.join(key.models)}"
