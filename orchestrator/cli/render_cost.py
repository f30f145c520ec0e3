"""What `modelfleet cost` looks like: a table with totals, and what one should know about it. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.cli import words
from orchestrator.cli.screen import Column, Grid, Span

if TYPE_CHECKING:
    from orchestrator.api import schemas

Line = list[Span]

# Columns of a terminal.
WIDTH_WITH_PARTS = 100
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


def grid(report: schemas.CostReport, width: int | None = None) -> Grid:
    """For a pipe (no `width`) all of it; a narrow terminal goes without what the cost is made of."""
    has_prices = report.prices is not None or report.total.cost is not None
    shown = [each for each in COLUMNS if _is_shown(each, report, has_prices, width)]
    found = Grid([*_name_columns(report.by), *(Column(each.title, right=True) for each in shown)])
    for row in report.rows:
        found.add(*_names(report.by, row), *(each.cell(row) for each in shown))
    found.add(*[(cell, "bold") for cell in (*_total_names(report.by), *(each.cell(report.total) for each in shown))])
    return found


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    cell: Callable[[schemas.CostRow], str]
    is_money: bool = False
    is_part: bool = False


COLUMNS = (
    _Column("HOURS", lambda row: _hours(row.replica_hours)),
    _Column("STANDBY H", lambda row: _hours(row.standby_hours), is_part=True),
    _Column("CPU H", lambda row: _hours(row.cpu_hours), is_part=True),
    _Column("GIB H", lambda row: _hours(row.memory_gib_hours), is_part=True),
    _Column("COST", lambda row: _money(row.cost), is_money=True),
    _Column("IDLE COST", lambda row: _money(row.idle_cost), is_money=True),
    _Column("IDLE", lambda row: "-" if row.idle_share is None else f"{row.idle_share:.0%}"),
    _Column("PREDICTIONS", lambda row: f"{row.predictions:,}"),
    _Column("PER 1,000", lambda row: _money(row.cost_per_1000), is_money=True),
)


def _is_shown(column: _Column, report: schemas.CostReport, has_prices: bool, width: int | None) -> bool:
    if column.title == "STANDBY H" and report.total.standby_hours == 0:
        return False
    if column.is_money:
        return has_prices
    return not (column.is_part and has_prices and width is not None and width < WIDTH_WITH_PARTS)


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
    """One decimal of many, two of few, and of minutes two digits that count."""
    if hours >= 10:
        return f"{hours:,.1f}"
    return f"{hours:.2f}" if hours >= 0.1 else f"{hours:.2g}"


def _name_columns(by: str) -> list[Column]:
    if by in ("day", "hour"):
        return [Column(by.upper())]
    return [Column("MODEL", wraps=True), *([Column("VERSION", wraps=True)] if by == "version" else [])]


def _names(by: str, row: schemas.CostRow) -> list[str]:
    if by in ("day", "hour"):
        form = "%Y-%m-%d" if by == "day" else "%Y-%m-%d %H:%M"
        return [time.strftime(form, time.localtime(row.start or 0.0))]
    return [row.model, row.version] if by == "version" else [row.model]


def _total_names(by: str) -> list[str]:
    return ["total", ""] if by == "version" else ["total"]
