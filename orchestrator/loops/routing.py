"""The newest routing table: kept in the store before any gateway sees it, handed to gateways by long poll.

A table is numbered and never changed. After a restart nothing is published until the world was observed once, so
that a gateway keeps serving the table it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.adapters.gateway import make_table
from orchestrator.adapters.store import Store
from orchestrator.core.entities import Replica
from orchestrator.core.keys import Key
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
        self._keys = wire_keys(store.api_keys())
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
        self._put_in_force(table.models, routed)
        return True

    def publish_keys(self) -> None:
        """Puts the API keys in force as the store has them now. Before the first routing they wait for it."""
        self._keys = wire_keys(self._store.api_keys())
        if self._table is not None:
            self._put_in_force(self._table.models, self.routed)

    def _put_in_force(self, models: dict[str, contract.ModelRoute], routed: Mapping[str, RoutedModel]) -> None:
        self._revision += 1
        table = contract.Table(self._epoch, self._revision, self._cluster, models, self._keys)
        contract.check(table)
        self._store.put_routed(self._revision, routed)
        self.routed = dict(routed)
        self._table, self._encoded = table, contract.encode(table)
        self.changed.notify()

    async def after(self, tag: str, wait_s: float) -> bytes | None:
        """The newest table as soon as its tag differs from `tag`; None when there is none within `wait_s`."""
        seen = self.changed.count
        if self._table is None or self._table.tag == tag:
            await self.changed.wait(seen, wait_s)
        if self._table is None or self._table.tag == tag:
            return None
        return self._encoded


def wire_keys(keys: Sequence[Key]) -> dict[str, contract.ApiKey]:
    """What the gateway is told of them: never the key itself, which nobody has but its owner."""
    return {
        key.id: contract.ApiKey(
            digest=key.digest,
            models=key.models,
            rate_limit=contract.RateLimit(key.requests_per_s, key.burst) if key.requests_per_s else None,
            concurrency=key.concurrency,
            expires_at=key.expires_at,
        )
        for key in keys
    }
