"""`modelfleet autoscale`: why a version has as many replicas as it has, and what was decided before."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import render, words
from orchestrator.cli.models import known_model
from orchestrator.cli.verb import Session, verb

HELP = "Say why versions have as many replicas as they have (docs/AUTOSCALING.md explains the rules)."

Target = Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", show_default=False, help="Which.")]


@verb(
    "modelfleet autoscale explain iris",
    "modelfleet autoscale explain iris@2",
    "modelfleet autoscale explain iris@2 -o json | jq '.[0].inputs'",
)
def explain(session: Session, target: Target) -> None:
    """Show the newest decision with everything that it rested on."""
    model, version = words.model_and_version(target)
    with known_model(session, model):
        found = session.client.scaling(model, version)
    if session.json:
        session.out.json(found)
        return
    for number, each in enumerate(found):
        if number:
            session.out.line()
        for line in render.scaling_lines(each):
            session.out.long_line(*line)


@verb("modelfleet autoscale history iris", "modelfleet autoscale history iris@2 --limit 20 -o json")
def history(
    session: Session,
    target: Target,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, metavar="N", help="The last so many.")] = 50,
) -> None:
    """Show the decisions that changed a count, oldest first; the last 500 of a version are kept."""
    model, version = words.model_and_version(target)
    with known_model(session, model):
        found = session.client.scaling_history(model, version, limit)
    if session.json:
        session.out.json(found)
    elif found:
        session.out.table(render.decisions_grid(found))
    else:
        session.say(f"{target}: its count was never changed; `modelfleet autoscale explain {target}` says why")
