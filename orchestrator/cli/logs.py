"""`modelfleet logs`: what the replicas of a model print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import words
from orchestrator.cli.errors import INTERRUPTED
from orchestrator.cli.models import known_model
from orchestrator.cli.verb import Session, verb

if TYPE_CHECKING:
    from orchestrator.api import schemas

# Replicas are told apart by colour; six that read well on light and dark grounds.
_COLORS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red")


@verb("modelfleet logs iris", "modelfleet logs iris@2 -f", "modelfleet logs iris --tail 20 -o json | jq -r .text")
def logs(
    session: Session,
    target: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", show_default=False, help="Whose.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option(min=0, max=100_000, help="At most so many old lines of each replica.")] = 100,
    replica: Annotated[
        str, typer.Option(metavar="ID", show_default=False, help="Only this one, or those that begin so.")
    ] = "",
) -> int | None:
    """Show what the replicas of a model print."""
    model, version = words.model_and_version(target)
    colors: dict[str, str] = {}
    try:
        with known_model(session, model, version):
            for entry in session.client.logs(model, version=version, tail=tail, follow=follow):
                if entry.replica.startswith(replica):
                    _show(session, entry, colors)
    except KeyboardInterrupt:
        return INTERRUPTED
    if not colors:
        session.err.line("No lines yet." if not replica else f"No lines of a replica {replica!r}.")
    return None


def _show(session: Session, entry: schemas.LogEntry, colors: dict[str, str]) -> None:
    color = colors.setdefault(entry.replica, _COLORS[len(colors) % len(_COLORS)])
    if session.json:
        session.out.json(entry, one_line=True)
    else:
        session.out.long_line((f"{words.clock(entry.at)} {entry.replica} | ", color), entry.text.rstrip("\n"))
