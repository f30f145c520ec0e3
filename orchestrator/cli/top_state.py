"""What `modelfleet top` knows and what a key does to it: no terminal, no clock and no control plane in here.

`Fleet` is put together from the events of the admin API's stream (`orchestrator/api/schemas_console.py`); `View` is
what the person at the keys chose to see of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.api import schemas_console

# By the key that chooses it: what it is called, and what of a row it goes by.
SORTS: Mapping[str, tuple[str, str]] = {
    "r": ("requests", "rate_per_s"),
    "e": ("errors", "error_ratio"),
    "l": ("latency", "p95_ms"),
    "c": ("cost", "cost_per_hour"),
    "u": ("CPU", "cpu_cores"),
    "m": ("memory", "memory_bytes"),
    "n": ("name", ""),
}
UP, DOWN, LEFT, RIGHT, ENTER, ESCAPE, BACKSPACE = "up", "down", "left", "right", "enter", "escape", "backspace"
PAGE_UP, PAGE_DOWN, HOME, END = "page up", "page down", "home", "end"
_STEPS = {UP: -1, "k": -1, DOWN: 1, "j": 1, PAGE_UP: -10, PAGE_DOWN: 10, HOME: -1_000_000, END: 1_000_000}
FILTER_LONGEST = 60


@dataclass(slots=True)
class Fleet:
    """The newest of everything. `update` is the last `fleet` event, None before the first; `lost` says why nothing
    comes any more, since `lost_at` ("": it does)."""

    update: schemas_console.FleetUpdate | None = None
    models: dict[str, schemas_console.FleetRow] = field(default_factory=dict)
    model: schemas_console.ModelUpdate | None = None
    lost: str = ""
    lost_at: float = 0.0

    def take(self, name: str, body: Any) -> None:
        """One event of the stream."""
        if name == "fleet":
            if body.whole:
                self.models.clear()
            self.models.update((row.name, row) for row in body.models)
            for gone in body.gone:
                self.models.pop(gone, None)
            self.update, self.lost = body, ""
        elif name == "model":
            self.model = body

    def lose(self, reason: str, now: float) -> None:
        self.lost_at = self.lost_at if self.lost else now
        self.lost = reason


@dataclass(frozen=True, slots=True)
class View:
    """`chosen` is the model under the cursor, `opened` the one that is looked at ("": the fleet). `typing`: keys go
    into `filter`."""

    sort: str = "r"
    is_reversed: bool = False
    filter: str = ""
    typing: bool = False
    help: bool = False
    chosen: str = ""
    opened: str = ""
    scroll: int = 0
    has_ended: bool = False

    def rows(self, fleet: Fleet) -> list[schemas_console.FleetRow]:
        """Those that are to be seen, in their order. What nobody knows comes last, whichever way."""
        _, of = SORTS[self.sort]
        found = [row for row in fleet.models.values() if self.filter.lower() in row.name]
        by_name = sorted(found, key=lambda row: row.name)
        if not of:
            return by_name[::-1] if self.is_reversed else by_name
        known = [row for row in by_name if getattr(row, of) is not None]
        known.sort(key=lambda row: getattr(row, of), reverse=not self.is_reversed)
        return known + [row for row in by_name if getattr(row, of) is None]


def press(view: View, key: str, fleet: Fleet) -> View:
    """What the view is after a key; a key that means nothing changes nothing."""
    if view.help:
        return replace(view, help=False, has_ended=key == "q")
    if view.typing:
        return _type(view, key)
    if key in ("q", "?"):
        return replace(view, has_ended=key == "q", help=key == "?")
    if view.opened:
        return _look(view, key)
    return _choose(view, key, fleet)


def _type(view: View, key: str) -> View:
    if key == ENTER:
        return replace(view, typing=False)
    if key == ESCAPE:
        return replace(view, typing=False, filter="")
    if key == BACKSPACE:
        return replace(view, filter=view.filter[:-1])
    if len(key) == 1 and key.isprintable():
        return replace(view, filter=(view.filter + key)[:FILTER_LONGEST])
    return view


def _look(view: View, key: str) -> View:
    if key in (ESCAPE, LEFT, BACKSPACE, "h"):
        return replace(view, opened="", scroll=0)
    return replace(view, scroll=max(0, min(1000, view.scroll + _STEPS[key]))) if key in _STEPS else view


def _choose(view: View, key: str, fleet: Fleet) -> View:
    if key in SORTS:
        return replace(view, sort=key, is_reversed=key == view.sort and not view.is_reversed)
    if key == "/":
        return replace(view, typing=True)
    if key == ESCAPE:
        return replace(view, filter="")
    names = [row.name for row in view.rows(fleet)]
    if not names:
        return view
    at = names.index(view.chosen) if view.chosen in names else 0
    if key in (ENTER, RIGHT):
        return replace(view, chosen=names[at], opened=names[at], scroll=0)
    if key in _STEPS:
        return replace(view, chosen=names[max(0, min(len(names) - 1, at + _STEPS[key]))])
    return view
