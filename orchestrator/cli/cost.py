"""`modelfleet cost`: what replicas took and cost, by model, version, day or hour; as a table, JSON or CSV."""

from __future__ import annotations

import csv
import io
import re
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import render_cost, words
from orchestrator.cli.errors import UsageError
from orchestrator.cli.verb import Session, verb

if TYPE_CHECKING:
    from orchestrator.api import schemas

_DATE_FORMS = ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M")
_HOW_TO_PRICE = "add prices to the manifest, and apply it: `pricing: {cpu_hour: 0.04, memory_gib_hour: 0.005}`"


class By(StrEnum):
    model = "model"
    version = "version"
    day = "day"
    hour = "hour"


@verb(
    "modelfleet cost",
    "modelfleet cost --since 7d --by day",
    "modelfleet cost --model iris --by version",
    "modelfleet cost --since 2026-11-01 -o csv > november.csv",
    csv=True,
)
def cost(
    session: Session,
    since: Annotated[
        str, typer.Option(metavar="AGE|DATE", help="From then on: 90m, 24h, 7d, or a date such as 2026-11-01.")
    ] = "24h",
    model: Annotated[str, typer.Option(metavar="MODEL", show_default=False, help="Only this model.")] = "",
    by: Annotated[By, typer.Option(metavar="model|version|day|hour", help="What has a line of its own.")] = By.model,
) -> None:
    """Show what replicas took and cost, and what idles most."""
    report = session.client.cost(since=moment_of(since, time.time()), model=model, by=by.value)
    if session.json:
        session.out.json(report)
    elif session.csv:
        session.out.write(as_csv(report))
    else:
        _show(session, report)


def moment_of(text: str, now: float) -> float:
    """What `--since` means, in seconds since the epoch. Raises `UsageError`."""
    if not re.match(r"\d{4}-", text):
        return now - words.positive_s("--since", text)
    for form in _DATE_FORMS:
        try:
            at = time.mktime(time.strptime(text, form))
        except (ValueError, OverflowError):
            continue
        if at > now:
            raise UsageError(
                f"--since {text}: lies in the future; nothing ran then yet", hint="for example --since 24h"
            )
        return at
    raise UsageError(f"--since {text}: is no date", hint="for example --since 2026-11-01, or --since 7d")


def as_csv(report: schemas.CostReport) -> str:
    """A line for each row, without the totals: a spreadsheet sums up itself. Unknown is empty."""
    kept = ("since", "until")
    text = io.StringIO()
    names = list(render_cost.FIELDS)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, "currency", *kept])
    currency = report.prices.currency if report.prices else ""
    spans = [_iso(report.since), _iso(report.until)]
    for row in report.rows:
        values = [_iso(row.start) if name == "start" else getattr(row, name) for name in names]
        writer.writerow(["" if value is None else value for value in values] + [currency, *spans])
    return text.getvalue()


def _iso(at: float | None) -> str:
    return "" if at is None else time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(at))


def _show(session: Session, report: schemas.CostReport) -> None:
    out = session.out
    for line in render_cost.head_lines(report):
        out.line(*line)
    out.line()
    if not report.rows:
        out.line("Nothing ran in this time.")
    else:
        out.table(render_cost.grid(report, out.width))
    for line in render_cost.note_lines(report):
        out.line()
        out.line(*line)
    if report.prices is None:
        out.line()
        out.line("No prices are known, so these are hours alone; ", _HOW_TO_PRICE)
