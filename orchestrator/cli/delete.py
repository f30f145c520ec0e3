"""`modelfleet delete`: takes one model out of what runs."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.apply import TimeoutOption, YesOption
from orchestrator.cli.follow import follow
from orchestrator.cli.models import check
from orchestrator.cli.verb import Session, verb


@verb("modelfleet delete iris", "modelfleet delete iris --yes")
def delete(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help="Its name.")],
    yes: YesOption = False,
    timeout: TimeoutOption = 300,
) -> None:
    """Take one model out of service, with all of its versions."""
    check(session, model)
    session.confirm(f"Delete {model} and end its replicas?", yes=yes)
    follow(session, session.client.delete(model), timeout)
    file = next((each.file for each in session.client.history() if each.current), "the manifest")
    session.say(f"{model} is still in {file}: remove it there too, or the next apply brings it back.")
