"""One picture of `modelfleet top` as lines of spans, made to fit a terminal of any size: no I/O.

Columns are left out, the least important first, until the rest fits; a number that nobody knows is `-`, and what misses
its objective has a `!` beside its colour, for terminals without any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.cli import words
from orchestrator.cli.render_cost import money
from orchestrator.cli.screen import Span
from orchestrator.cli.top_state import SORTS, Fleet, View

if TYPE_CHECKING:
    from orchestrator.api import schemas_console

Line = list[Span]

# Terminals with fewer lines than this have two lines above the table at most.
LOW = 10
NAME_LEAST, NAME_CUT, NAME_MOST = 10, 14, 40
HELP = (
    ("up, down, j, k", "choose a model"),
    ("enter, right", "its versions and replicas; escape or left goes back"),
    ("r e l c u m n", "sort by requests, errors, latency, cost, CPU, memory, name"),
    ("the same again", "the other way round"),
    ("/", "only models with this in their name; escape shows all"),
    ("q, Ctrl-C", "quit"),
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A column: its title, its width, and how important it is (1: it stays longest)."""

    title: str
    width: int
    rank: int
    cell: Callable[[Any], Span]


def frame(fleet: Fleet, view: View, *, width: int, height: int | None, now: float) -> list[Line]:
    """At most `height` lines (None: as many as there is to show), each about `width` wide."""
    head = _head(fleet, view, width, now)
    if height is not None and height < LOW:
        head = head[:2]
    room = None if height is None else max(0, height - len(head) - 1)
    if view.help:
        body, foot = _help(), "any key goes back"
    elif view.opened:
        body, foot = _model(fleet, view, width, now), "escape back   up/down scroll   ? help   q quit"
    else:
        body, foot = _models(fleet, view, width, room), _foot(view)
    if room is None:
        return [*head, *body]
    blank: list[Line] = [[] for _ in range(room - len(body))]
    last: Line = [(foot, "dim")]
    return [*head, *body[:room], *blank, last][:height]


# -- what is always there -------------------------------------------------------------------------------------------


def _head(fleet: Fleet, view: View, width: int, now: float) -> list[Line]:
    update = fleet.update
    if update is None:
        return [[("modelfleet top  ", "bold"), (fleet.lost or "waiting for the control plane", "yellow")]]
    title: Line = [
        (update.cluster, "bold"), "  ", words.state(update.state), f"  revision {update.revision}  {update.engine}  ",
        (words.clock(update.at), "dim"),
    ]  # fmt: skip
    lines = [title, *_totals(fleet, update, width)]
    if trouble := _trouble(fleet, update, now):
        lines.append([(trouble, "bold red")])
    if view.filter or view.typing:
        lines.append([("/", "bold"), view.filter, ("_" if view.typing else "", "bold")])
    return lines


def _totals(fleet: Fleet, update: schemas_console.FleetUpdate, width: int) -> list[Line]:
    totals = update.totals
    standby = f"+{totals.standby}" if totals.standby else ""
    cores = _sum(row.cpu_cores for row in fleet.models.values())
    memory = _sum(row.memory_bytes for row in fleet.models.values())
    facts = [
        words.count(len(fleet.models), "model"), f"ready {totals.ready}/{totals.desired}{standby}",
        f"{_number(totals.rate_per_s)} req/s", f"errors {_share(totals.error_ratio)}",
        f"queue {_count(totals.queued)}", f"in flight {_count(totals.in_flight)}", f"CPU {_number(cores)}",
        f"mem {'-' if memory is None else _bytes(memory)}",
        *([] if totals.cost_per_hour is None else [f"cost {money(totals.cost_per_hour)}/h"]),
    ]  # fmt: skip
    return [[line] for line in _folded(facts, width)]


def _folded(facts: Sequence[str], width: int) -> list[str]:
    """Side by side as far as there is room, then on the next line."""
    lines = [facts[0]]
    for fact in facts[1:]:
        if len(lines[-1]) + 2 + len(fact) <= width:
            lines[-1] += f"  {fact}"
        else:
            lines.append(fact)
    return lines


def _trouble(fleet: Fleet, update: schemas_console.FleetUpdate, now: float) -> str:
    if fleet.lost:
        return f"control plane lost for {words.age(now - fleet.lost_at)}: what runs goes on; {fleet.lost}"
    if update.engine_error:
        return f"engine: {update.engine_error}"
    return f"gateway: {update.gateway.error}" if update.gateway.error else ""


def _foot(view: View) -> str:
    if view.typing:
        return "type a part of a name   enter keeps it   escape shows all"
    way = "up" if view.is_reversed else "down"
    return f"sort {SORTS[view.sort][0]} {way}   enter look   / filter   ? help   q quit"


def _help() -> list[Line]:
    lines: list[Line] = [[]]
    lines += [[(f"  {keys:<16}", "bold"), said] for keys, said in HELP]
    return [*lines, [], ["  CPU is in cores, MEM the working set; `!` is a latency beyond the objective."],
            ["  Rates and percentiles are of the last ten seconds; `-` is not known."]]  # fmt: skip


# -- the fleet ---------------------------------------------------------------------------------------------------------


def _models(fleet: Fleet, view: View, width: int, room: int | None) -> list[Line]:
    rows = view.rows(fleet)
    if not rows:
        none = "No model has this in its name." if view.filter else "No models yet. `modelfleet apply` runs a manifest."
        return [[none]] if fleet.update is not None else []
    names = max(len(row.name) for row in rows)
    columns, name_width = _fitting(MODEL_COLUMNS, width, names)
    at = next((n for n, row in enumerate(rows) if row.name == view.chosen), 0)
    first = 0 if room is None else _first(at, len(rows), room - 1)
    last = None if room is None else first + max(0, room - 1)
    lines = [_titles("MODEL", columns, name_width)]
    for n, row in enumerate(rows[first:last], first):
        is_chosen = n == at and room is not None
        lines.append(_row(row, row.name, columns, name_width, is_chosen=is_chosen))
    return lines


def _first(at: int, count: int, room: int) -> int:
    """The first row that is shown, so that the chosen one is in the middle where it can be."""
    return max(0, min(at - room // 2, count - room)) if room > 0 else 0


def _row(row: Any, name: str, columns: Sequence[Shown], name_width: int, *, is_chosen: bool = False) -> Line:
    line: Line = [
        (">" if is_chosen else " ", "bold"),
        (_cut(name, name_width), "bold reverse" if is_chosen else "bold"),
    ]
    for column in columns:
        text, style = _pair(column.cell(row))
        line += [" ", (f"{_cut(text, column.width).strip():>{column.width}}", style)]
    return line


def _titles(name: str, columns: Sequence[Shown], name_width: int) -> Line:
    return [(f" {name:<{name_width}}" + "".join(f" {each.title:>{each.width}}" for each in columns), "bold dim")]


def _fitting(columns: Sequence[Shown], width: int, names: int) -> tuple[list[Shown], int]:
    """The columns that there is room for, in their order, and the width of names."""
    least = min(max(names, NAME_LEAST), NAME_MOST)
    wanted = sorted(columns, key=lambda column: column.rank)
    while wanted and 1 + min(least, NAME_CUT) + sum(column.width + 1 for column in wanted) > width:
        wanted.pop()
    used = 1 + sum(column.width + 1 for column in wanted)
    return [column for column in columns if column in wanted], max(4, min(least, width - used))


# -- one model ---------------------------------------------------------------------------------------------------------


def _model(fleet: Fleet, view: View, width: int, now: float) -> list[Line]:
    row, model = fleet.models.get(view.opened), fleet.model
    lines: list[Line] = [[(view.opened, "bold"), "  ", *_about(row)]]
    if row is not None and row.reason:
        lines.append([row.reason])
    if model is None or model.name != view.opened:
        return [*lines, [("reading …", "dim")]]
    columns, name_width = _fitting(VERSION_COLUMNS, width, max((len(v.version) for v in model.versions), default=0))
    lines += [[], _titles("VERSION", columns, name_width)]
    lines += [_row(_judged(version, row), version.version, columns, name_width) for version in model.versions]
    lines += [[], *_replicas(model, width, now)]
    return [lines[0], *lines[1 + view.scroll :]]


def _judged(version: Any, row: Any) -> Any:
    """With the model's objective, which its versions are to meet too."""
    objective = {name: None if row is None else row[name] for name in ("slo_ms", "slo_percentile")}
    return type(version)({**version, **objective})


def _about(row: schemas_console.FleetRow | None) -> Line:
    if row is None:
        return [("is gone", "yellow")]
    objective = "" if row.slo_ms is None else f"  objective p{row.slo_percentile:g} < {row.slo_ms:g} ms"
    return [words.state(row.state), "  paused" if row.paused else "", objective]


def _replicas(model: schemas_console.ModelUpdate, width: int, now: float) -> list[Line]:
    pairs = [(version.version, replica) for version in model.versions for replica in version.replicas]
    if not pairs:
        return [["No replicas."]]
    columns, name_width = _fitting(REPLICA_COLUMNS, width, max(len(replica.id) for _, replica in pairs))
    lines = [_titles("REPLICA", columns, name_width)]
    for _, replica in pairs:
        line = _row(replica, replica.id, columns, name_width)
        since = "" if replica.since is None else f" {words.age(max(0.0, now - replica.since))}"
        lines.append([*line, (f"{since} {replica.reason or replica.phase}".rstrip(), "dim")])
    return lines


# -- cells -------------------------------------------------------------------------------------------------------------


def _ready(row: Any) -> str:
    return f"{row.ready}/{row.desired}" + (f"+{row.standby}" if row.standby else "")


def _state(row: Any) -> Span:
    is_paused = row.get("paused", False)
    return ("paused", "cyan") if is_paused else words.state(row.state)


def _latency(percentile: int) -> Callable[[Any], Span]:
    name = f"p{percentile}_ms"

    def cell(row: Any) -> Span:
        value, slo_ms = row[name], row.get("slo_ms")
        if value is None:
            return "-"
        text = _number(value)
        if slo_ms is None or row.get("slo_percentile") is None or percentile > _judged_by(row["slo_percentile"]):
            return text
        return (f"{text}!", "bold red") if value > slo_ms else (text, "yellow" if value > 0.8 * slo_ms else "green")

    return cell


def _judged_by(slo_percentile: float) -> int:
    """The largest shown percentile that must meet the objective."""
    return next((shown for shown in (50, 95, 99) if slo_percentile <= shown), 99)


def _errors(row: Any) -> Span:
    ratio = row.error_ratio
    return (_share(ratio), "bold red") if ratio is not None and ratio > 0 else _share(ratio)


def _queued(row: Any) -> Span:
    return (_count(row.queued), "yellow") if row.queued else _count(row.queued)


def _cost(row: Any) -> str:
    return "-" if row.cost_per_hour is None else money(row.cost_per_hour)


def _memory(row: Any) -> str:
    return "-" if row.memory_bytes is None else _bytes(row.memory_bytes)


def _cpu_ratio(row: Any) -> str:
    return "-" if row.cpu_ratio is None else f"{row.cpu_ratio:.0%}"


def _limit(row: Any) -> str:
    return "-" if row.memory_limit_bytes is None else _bytes(row.memory_limit_bytes)


MODEL_COLUMNS = (
    Shown("STATE", 8, 5, _state),
    Shown("READY", 6, 1, _ready),
    Shown("REQ/S", 6, 2, lambda row: _number(row.rate_per_s)),
    Shown("ERR", 4, 3, _errors),
    Shown("P50", 6, 12, _latency(50)),
    Shown("P95", 6, 4, _latency(95)),
    Shown("P99", 6, 11, _latency(99)),
    Shown("QUEUE", 5, 6, _queued),
    Shown("INFL", 4, 7, lambda row: _count(row.in_flight)),
    Shown("CPU", 4, 8, lambda row: _number(row.cpu_cores)),
    Shown("MEM", 5, 9, _memory),
    Shown("COST/H", 6, 10, _cost),
)
VERSION_COLUMNS = (
    Shown("STATE", 8, 3, _state),
    Shown("SHARE", 5, 4, lambda row: f"{row.weight}%"),
    Shown("READY", 6, 1, _ready),
    Shown("REQ/S", 6, 2, lambda row: _number(row.rate_per_s)),
    Shown("ERR", 5, 5, _errors),
    Shown("P50", 6, 11, _latency(50)),
    Shown("P95", 6, 6, _latency(95)),
    Shown("P99", 6, 9, _latency(99)),
    Shown("QUEUE", 5, 7, _queued),
    Shown("INFL", 4, 8, lambda row: _count(row.in_flight)),
    Shown("COST/H", 6, 10, _cost),
)
REPLICA_COLUMNS = (
    Shown("STATE", 8, 1, _state),
    Shown("INFL", 4, 2, lambda row: _count(row.in_flight)),
    Shown("CPU", 5, 3, _cpu_ratio),
    Shown("MEM", 5, 4, _memory),
    Shown("LIMIT", 5, 5, _limit),
)


def _number(value: float | None) -> str:
    """Three digits that count: 0.12, 4.5, 120, 12.3k."""
    if value is None:
        return "-"
    if value >= 9_950:
        return f"{value / 1000:.1f}k" if value < 99_950 else f"{value / 1000:.0f}k"
    return f"{value:.0f}" if value >= 99.5 or value == 0 else f"{value:.1f}" if value >= 0.95 else f"{value:.2f}"


def _share(ratio: float | None) -> str:
    return "-" if ratio is None else "0" if ratio == 0 else f"{ratio:.0%}" if ratio >= 0.0995 else f"{ratio:.1%}"


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def _bytes(count: float) -> str:
    """Within five columns: 834M, 1.2G."""
    for unit, power in (("G", 30), ("M", 20), ("K", 10)):
        if count >= 1 << power:
            size = count / (1 << power)
            return f"{size:.1f}{unit}" if size < 100 and unit == "G" else f"{size:.0f}{unit}"
    return f"{count:.0f}"


def _sum(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _cut(text: str, width: int) -> str:
    return f"{text:<{width}}" if len(text) <= width else f"{text[: max(0, width - 1)]}~"


def _pair(span: Span) -> tuple[str, str]:
    return (span, "") if isinstance(span, str) else span
