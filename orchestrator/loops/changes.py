"""What changed from table to table, for gateways that hold one of the last few.

Owns names alone: which models and keys the newest tables changed. A delta takes what it says of them from the table in
force, so that it leads to that table whichever of the last ones a gateway holds. Bounded in tables and in names.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from router.contract import Table, TableDelta

KEPT_TABLES = 64
# A delta is sent where it names at most this share of the models and keys: a gateway takes in a changed model no faster
# than an unchanged one of a snapshot, so that a long delta would save nothing.
MOST_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class _Step:
    """The names that differ between the table with tag `base` and its successor."""

    base: str
    models: frozenset[str]
    keys: frozenset[str]


class Changes:
    """The steps that led to the table in force."""

    def __init__(self) -> None:
        self._steps: deque[_Step] = deque(maxlen=KEPT_TABLES)

    def note(self, before: Table, after: Table) -> None:
        """`after` takes the place of `before`."""
        models, keys = _differing(before.models, after.models), _differing(before.keys, after.keys)
        self._steps.append(_Step(before.tag, models, keys))

    def since(self, base: str, table: Table) -> TableDelta | None:
        """What leads from the table `base` to `table`, the newest; None when the whole table is the better answer."""
        models: set[str] = set()
        keys: set[str] = set()
        for step in reversed(self._steps):
            models |= step.models
            keys |= step.keys
            if len(models) + len(keys) > MOST_SHARE * (len(table.models) + len(table.keys)):
                return None
            if step.base == base:
                return _delta(base, table, models, keys)
        return None


def _delta(base: str, table: Table, models: Iterable[str], keys: Iterable[str]) -> TableDelta:
    return TableDelta(
        base,
        table.epoch,
        table.revision,
        models={name: table.models[name] for name in models if name in table.models},
        removed=tuple(name for name in models if name not in table.models),
        keys={name: table.keys[name] for name in keys if name in table.keys},
        removed_keys=tuple(name for name in keys if name not in table.keys),
    )


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> frozenset[str]:
    changed = {name for name, value in after.items() if before.get(name) != value}
    return frozenset(changed | (before.keys() - after.keys()))
