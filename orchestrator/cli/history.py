"""`modelfleet history`: what was applied, and when."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import render, words
from orchestrator.cli.verb import Session, verb


@verb("modelfleet history", "modelfleet history 3", "modelfleet history 3 -o json | jq -r .manifest > models.yaml")
def history(
    session: Session,
    revision: Annotated[
        int | None, typer.Argument(min=1, metavar="[REVISION]", show_default=False, help="This one, with its manifest.")
    ] = None,
) -> None:
    """Show the revisions that were applied, newest first."""
    if revision is not None:
        _one(session, revision)
        return
    revisions = session.client.history()
    if session.json:
        session.out.json(revisions)
    elif revisions:
        session.out.table(render.history_grid(revisions))
        session.say(("* in force; `modelfleet rollback REVISION` returns to an earlier one", "dim"))
    else:
        session.say("Nothing was applied yet.")


def _one(session: Session, number: int) -> None:
    revision = session.client.revision(number)
    if session.json:
        session.out.json(revision)
        return
    session.out.line(
        (f"revision {revision.revision}", "bold"), "  ", words.state(revision.state),
        f"  {words.moment(revision.at)}, {revision.kind} of {revision.file}: {revision.summary}",
    )  # fmt: skip
    session.out.line()
    for line in revision.manifest.splitlines():
        session.out.long_line(line)
