"""The journal: every state change and decision becomes one event, stored, logged, and woken for.

Events are for people: the message is a whole sentence with its reason. Secrets and request bodies never come here.
"""

from __future__ import annotations

import asyncio

import structlog

from orchestrator.adapters.store import Store
from orchestrator.core.entities import VersionKey
from orchestrator.loops.tasks import wait_until_set

log = structlog.get_logger("modelfleet")


class Signal:
    """Wakes everybody who waits for the next change of something; a change before the wait is seen by `count`."""

    def __init__(self) -> None:
        self.count = 0
        self._is_closed = False
        self._event = asyncio.Event()

    def notify(self) -> None:
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    def close(self) -> None:
        """Nothing changes any more: nobody waits from now on."""
        self._is_closed = True
        self.notify()

    async def wait(self, seen: int, timeout_s: float) -> None:
        """Returns when `count` differs from `seen`, or after `timeout_s`."""
        if self.count != seen or timeout_s <= 0 or self._is_closed:
            return
        await wait_until_set(self._event, timeout_s)


class Journal:
    """Writes events. `changed` is notified after each."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.changed = Signal()

    def record(
        self, kind: str, message: str, *, level: str = "info", key: VersionKey | None = None, model: str = "",
        replica: str = "", revision: int = 0,
    ) -> None:  # fmt: skip
        """`kind` is a stable word for scripts (`replica_ready`), `message` the sentence for people."""
        model = key.model if key else model
        version = key.version if key else ""
        self._store.add_event(
            level, kind, message, model=model, version=version, replica=replica, revision=revision
        )  # fmt: skip
        facts = {"model": model, "version": version, "replica": replica, "revision": revision}
        getattr(log, level)(kind, message=message, **{k: v for k, v in facts.items() if v})
        self.changed.notify()
