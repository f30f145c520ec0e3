"""The newest routing table: kept in the store before any gateway sees it, handed to gateways by long poll.

A table is numbered and never changed. After a restart nothing is published until the world was observed once, so
that a gateway keeps serving the table it has.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.adapters.gateway import make_table
from orchestrator.adapters.store import Store
from orchestrator.core.entities import Replica
from orchestrator.core.plan import RoutedModel
from orchestrator.loops.journal import Signal
from router import contract


class TableBoard:
    """Holds the table in force. `changed` is notified when there is a newer one."""

    def __init__(self, store: Store, cluster: str) -> None:
        self._store = store
        self._cluster = cluster
        self._epoch = store.epoch
        self._revision, self.routed = store.routed()
        self._table: contract.Table | None = None
        self._encoded = b""
        self.changed = Signal()

    @property
    def tag(self) -> str:
        """The tag of the table in force, "" before the first of this process."""
        return self._table.tag if self._table else ""

    @property
    def published(self) -> dict[str, set[str]] | None:
        """Maps the newest tag to the replicas in that table; None before the first of this process."""
        if self._table is None:
            return None
        routes = (v for m in self._table.models.values() for v in m.versions.values())
        return {self._table.tag: {e.id for route in routes for e in route.endpoints}}

    def publish(self, routed: Mapping[str, RoutedModel], replicas: Mapping[str, Replica]) -> bool:
        """Puts a routing in force. Returns whether it is another than the one before."""
        table = make_table(
            epoch=self._epoch, revision=self._revision, cluster=self._cluster, routed=routed, replicas=replicas
        )
        if self._table is not None and table.models == self._table.models:
            return False
        self._revision += 1
        table = contract.Table(self._epoch, self._revision, self._cluster, table.models)
        contract.check(table)
        self._store.put_routed(self._revision, routed)
        self.routed = dict(routed)
        self._table, self._encoded = table, contract.encode(table)
        self.changed.notify()
        return True

    async def after(self, tag: str, wait_s: float) -> bytes | None:
        """The newest table as soon as its tag differs from `tag`; None when there is none within `wait_s`."""
        seen = self.changed.count
        if self._table is None or self._table.tag == tag:
            await self.changed.wait(seen, wait_s)
        if self._table is None or self._table.tag == tag:
            return None
        return self._encoded
