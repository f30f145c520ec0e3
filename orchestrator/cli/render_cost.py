"""What `modelfleet cost` looks like: a table with totals, and what one should know about it. No I/O."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.cli import words
from orchestrator.cli.screen import Cell, Column, Grid, Span

if TYPE_CHECKING:
    from orchestrator.api import schemas

Line = list[Span]

# The columns of a CSV file are these fields of a row, by these names: a contract with spreadsheets.
FIELDS = (
    "model", "version", "start", "replica_hours", "standby_hours", "cpu_hours", "memory_gib_hours", "cost", "idle_cost",
    "idle_share", "predictions", "cost_per_1000", "unpriced_hours", "unknown_hours",
)  # fmt: skip


def head_lines(report: schemas.CostReport) -> list[Line]:
    until = f"since {words.moment(report.since)[:-3]}"
    if report.prices is None or report.cost_per_hour is None:
        return [[("cost", "bold"), f"  {until}"]]
    prices, currency = report.prices, report.prices.currency
    now = money(report.cost_per_hour, currency)
    return [
        [("cost", "bold"), f"  {until}; what runs now costs {now} an hour"],
        [(f"      a core {money(prices.cpu_hour)}, a GiB {money(prices.memory_gib_hour)} an hour, as asked for, used "
          "or not", "dim")],
    ]  # fmt: skip


def grid(report: schemas.CostReport) -> Grid:
    has_prices = report.prices is not None or report.total.cost is not None
    has_standby = report.total.standby_hours > 0
    money_columns = [Column("COST", right=True), Column("IDLE COST", right=True)] if has_prices else []
    found = Grid(
        [
            *_name_columns(report.by), Column("REPLICA H", right=True),
            *([Column("STANDBY H", right=True)] if has_standby else []),
            Column("CPU H", right=True), Column("GIB H", right=True), *money_columns, Column("IDLE", right=True),
            Column("PREDICTIONS", right=True), *([Column("PER 1,000", right=True)] if has_prices else []),
        ]
    )  # fmt: skip
    for row in [*report.rows, report.total]:
        names = _names(report.by, row) if row is not report.total else _total_names(report.by)
        style = "bold" if row is report.total else ""
        cells: list[str] = [
            *names, _hours(row.replica_hours), *([_hours(row.standby_hours)] if has_standby else []),
            _hours(row.cpu_hours), _hours(row.memory_gib_hours),
            *([_money(row.cost), _money(row.idle_cost)] if has_prices else []),
            "-" if row.idle_share is None else f"{row.idle_share:.0%}", f"{row.predictions:,}",
            *([_money(row.cost_per_1000)] if has_prices else []),
        ]  # fmt: skip
        found.add(*[_styled(cell, style) for cell in cells])
    return found


def note_lines(report: schemas.CostReport) -> list[Line]:
    lines: list[Line] = []
    if report.advice:
        lines.append([report.advice])
    total = report.total
    if total.unknown_hours > 0.001:
        lines.append([
            (f"{_hours(total.unknown_hours)} replica hours are unknown", "yellow"), ": no control plane was there to "
            "see when these replicas ended; they are in no other column",
        ])  # fmt: skip
    if total.cost is not None and total.unpriced_hours > 0.001:
        lines.append([
            (f"{_hours(total.unpriced_hours)} replica hours have no cost", "yellow"), ": there were no prices then; a "
            "price counts from the moment that it is applied",
        ])  # fmt: skip
    return lines


def money(amount: float, currency: str = "") -> str:
    return f"{_amount(amount)} {currency}".rstrip()


def _money(amount: float | None) -> str:
    return "-" if amount is None else _amount(amount)


def _amount(amount: float) -> str:
    """Two decimals, and of small amounts three digits that count."""
    return f"{amount:,.2f}" if amount >= 1 or amount == 0 else f"{amount:.3g}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.2f}"


def _name_columns(by: str) -> list[Column]:
    if by in ("day", "hour"):
        return [Column(by.upper())]
    return [Column("MODEL"), Column("VERSION")] if by == "version" else [Column("MODEL")]


def _names(by: str, row: schemas.CostRow) -> list[str]:
    if by in ("day", "hour"):
        form = "%Y-%m-%d" if by == "day" else "%Y-%m-%d %H:%M"
        return [time.strftime(form, time.localtime(row.start or 0.0))]
    return [row.model, row.version] if by == "version" else [row.model]


def _total_names(by: str) -> list[str]:
    return ["total", ""] if by == "version" else ["total"]


def _styled(cell: str, style: str) -> Cell:
    return (cell, style) if style else cell
