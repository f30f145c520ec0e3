"""The table in force, whole: what a delta is checked against before anything changes.

Owns the table that the gateway holds, and who owns which replica in it. A delta becomes a table like any other or is
refused whole, and the table before it stays. `core/table.py` puts in force what this allowed. Pure.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Final

from router.contract import ModelRoute, Table, TableDelta, TableError, check_keys, check_model

_MODELS_PER_STEP: Final = 256


class HeldTable:
    """`table` is None before the first. For people: how it came and when, and what was refused last, in Unix time."""

    def __init__(self) -> None:
        self.table: Table | None = None
        self.came_as = ""
        self.came_at = 0.0
        self.refused = ""
        self.refused_at = 0.0
        # The model that each replica of `table` is in; None: not known yet. Only deltas need it.
        self._owners: dict[str, str] | None = None

    def hold(self, table: Table, unix_time: float) -> None:
        """Takes the place of the one before; it was checked."""
        self.table, self.came_as, self.came_at = table, "snapshot", unix_time
        self._owners = None

    def refuse(self, reason: str, unix_time: float) -> None:
        """What came was no good; what is held stays."""
        self.refused, self.refused_at = reason, unix_time

    def merge(self, delta: TableDelta) -> Generator[None, None, Table]:
        """The table that the one held becomes by `delta`. Raises `TableError`; holds what it held either way."""
        before = self.table
        if before is None or before.tag != delta.base:
            raise TableError(f"routing table delta: it changes {delta.base!r}, and another table is held")
        if delta.epoch != before.epoch or delta.revision <= before.revision:
            raise TableError(f"routing table delta: {delta.tag!r} does not follow {delta.base!r}")
        if self._owners is None:
            self._owners = yield from _owners(before)
        if twice := {*delta.removed} & delta.models.keys() or {*delta.removed_keys} & delta.keys.keys():
            raise TableError(f"routing table delta: {min(twice)!r} is changed and removed; it can be one of them")
        self._check_models(delta, self._owners)
        check_keys(delta.keys)
        models, keys = {**before.models, **delta.models}, {**before.keys, **delta.keys}
        for name in delta.removed:
            models.pop(name, None)
        for name in delta.removed_keys:
            keys.pop(name, None)
        return Table(delta.epoch, delta.revision, before.cluster, models, keys)

    def hold_merged(self, delta: TableDelta, table: Table, unix_time: float) -> None:
        """Holds what `merge` made of `delta`."""
        before, owners = self.table, self._owners
        assert before is not None
        assert owners is not None
        for name in (*delta.models, *delta.removed):
            for replica in _replicas(before.models.get(name)):
                owners.pop(replica, None)
        for name, model in delta.models.items():
            owners.update(dict.fromkeys(_replicas(model), name))
        self.table, self.came_as, self.came_at = table, "delta", unix_time

    @staticmethod
    def _check_models(delta: TableDelta, owners: dict[str, str]) -> None:
        changing = {*delta.models, *delta.removed}
        seen: set[str] = set()
        for name, model in delta.models.items():
            check_model(name, model, seen)
            for replica in _replicas(model):
                if owners.get(replica, name) not in changing:
                    raise TableError(
                        f"routing table delta: replica {replica!r} is in model {owners[replica]!r} already; it serves "
                        f"one version"
                    )


def _owners(table: Table) -> Generator[None, None, dict[str, str]]:
    owners: dict[str, str] = {}
    for done, (name, model) in enumerate(table.models.items(), 1):
        owners.update(dict.fromkeys(_replicas(model), name))
        if done % _MODELS_PER_STEP == 0:
            yield
    return owners


def _replicas(model: ModelRoute | None) -> Iterator[str]:
    if model is not None:
        for version in model.versions.values():
            for endpoint in version.endpoints:
                yield endpoint.id
