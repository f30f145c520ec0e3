"""The newest routing table: kept in the store before any gateway sees it, handed to gateways by long poll.

A table is numbered and never changed. After a restart nothing is published until the world was observed once, so
that a gateway keeps serving the table it has. A gateway that holds one of the last few tables is told what changed
(`changes.py`), any other the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.adapters.gateway import make_table
from orchestrator.adapters.store import Store
from orchestrator.core.entities import Replica
from orchestrator.core.keys import Key
from orchestrator.core.plan import RoutedModel
from orchestrator.loops.changes import Changes
from orchestrator.loops.journal import Signal
from router import contract


@dataclass(frozen=True, slots=True)
class News:
    """The answer to a gateway: a table, or what changed since the one that it holds."""

    body: bytes
    is_delta: bool = False


class TableBoard:
    """Holds the table in force. `changed` is notified when there is a newer one."""

    def __init__(self, store: Store, cluster: str) -> None:
        self._store = store
        self._cluster = cluster
        self._epoch = store.epoch
        self._revision, self.routed = store.routed()
        self._table: contract.Table | None = None
        self._changes = Changes()
        # The texts of the table in force: whole under "", as a delta under the tag of its base.
        self._texts: dict[str, News] = {}
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
        if self._table is not None:
            self._changes.note(self._table, table)
        self._table = table
        self._texts.clear()
        self.changed.notify()

    async def after(self, tag: str, wait_s: float, *, takes_delta: bool = False) -> News | None:
        """The newest table as soon as its tag differs from `tag`; None when there is none within `wait_s`."""
        seen = self.changed.count
        if self._table is None or self._table.tag == tag:
            await self.changed.wait(seen, wait_s)
        if self._table is None or self._table.tag == tag:
            return None
        delta = self._changes.since(tag, self._table) if takes_delta else None
        return self._told(self._table if delta is None else delta)

    def _told(self, news: contract.Table | contract.TableDelta) -> News:
        """Each text is made once, when the first gateway asks for it."""
        base = news.base if isinstance(news, contract.TableDelta) else ""
        if base not in self._texts:
            self._texts[base] = News(contract.encode(news), is_delta=bool(base))
        return self._texts[base]


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
