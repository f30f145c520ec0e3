"""`modelfleet events`: what happened, and why."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import render, words
from orchestrator.cli.errors import INTERRUPTED
from orchestrator.cli.models import check
from orchestrator.cli.verb import Session, verb

if TYPE_CHECKING:
    from orchestrator.api import schemas

WAIT_S = 20


@verb("modelfleet events", "modelfleet events iris --since 10m", "modelfleet events iris@2 --follow")
def events(
    session: Session,
    model: Annotated[
        str, typer.Argument(metavar="[MODEL[@VERSION]]", show_default=False, help="Only those of this model.")
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones until Ctrl-C.")] = False,
    since: Annotated[
        str, typer.Option(metavar="AGE", show_default=False, help="Only younger ones: 90s, 10m, 2h, 1d.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many old ones.")] = 50,
) -> int | None:
    """Show what happened and why, oldest first."""
    oldest = time.time() - words.duration_s(since) if since else 0.0
    name, version = words.model_and_version(model) if model else ("", "")
    found = [each for each in session.client.events(model=name, version=version, limit=limit) if each.at >= oldest]
    if name and not found:
        check(session, name, version)
    if follow:
        return _follow(session, name, version, found)
    if session.json:
        session.out.json(found)
    else:
        _show(session, found)
        if not found:
            session.say("No events.")
    return None


def _follow(session: Session, model: str, version: str, found: list[schemas.Event]) -> int:
    last = found[-1].id if found else _last_id(session)
    try:
        _show(session, found)
        while True:
            new = session.client.events(model=model, version=version, after=last, wait_s=WAIT_S)
            _show(session, new)
            last = new[-1].id if new else last
    except KeyboardInterrupt:
        return INTERRUPTED


def _last_id(session: Session) -> int:
    newest = session.client.events(limit=1)
    return newest[-1].id if newest else 0


def _show(session: Session, found: list[schemas.Event]) -> None:
    for each in found:
        if session.json:
            session.out.json(each, one_line=True)
        else:
            session.out.line(*render.event_line(each))
