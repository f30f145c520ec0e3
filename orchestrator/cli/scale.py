"""`modelfleet scale`: sets the count of a version by hand, for a time or until it is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import render, words
from orchestrator.cli.errors import UsageError
from orchestrator.cli.models import known_model
from orchestrator.cli.verb import Session, verb

if TYPE_CHECKING:
    from orchestrator.api import schemas

LEAST_S = 1.0


@verb(
    "modelfleet scale iris@2 6",
    "modelfleet scale iris@2 6 --for 1h",
    "modelfleet scale iris@2 0                      stop it: requests get 503 until then",
    "modelfleet scale iris@2 --auto                 take it back",
)
def scale(
    session: Session,
    target: Annotated[
        str, typer.Argument(metavar="MODEL[@VERSION]", show_default=False, help="Which; a model's only version.")
    ],
    replicas: Annotated[
        int | None, typer.Argument(metavar="N", min=0, max=1000, show_default=False, help="How many replicas.")
    ] = None,
    for_: Annotated[
        str,
        typer.Option("--for", metavar="AGE", show_default=False, help="Then by itself as before: 30m, 2h [for ever]."),
    ] = "",
    auto: Annotated[bool, typer.Option("--auto", help="Take back what was set by hand.")] = False,
) -> None:
    """Set how many replicas of a version run, whatever the load.

    It may go below the manifest's `min` and not above its `max`, holds through applies, and ends after --for or with
    --auto. `modelfleet events` says when.
    """
    model, version = words.model_and_version(target)
    if auto == (replicas is not None):
        raise UsageError("N or --auto: one of the two is needed", hint="modelfleet scale iris@2 6 --for 1h")
    if auto and for_:
        raise UsageError("--for with --auto", hint="--auto takes back at once: leave --for out")
    for_s = words.duration_s(for_) if for_ else None
    if for_s is not None and for_s < LEAST_S:
        raise UsageError(f"--for {for_}: less than a second", hint="for example 30m")
    with known_model(session, model):
        version = version or _only_version(session, model)
        if auto:
            changed = session.client.release_scale(model, version)
        else:
            changed = session.client.scale(model, version, {"replicas": replicas, "for_s": for_s})
    if session.json:
        session.out.json(changed)
        return
    session.say(f"{model}@{version}: {_taken_back(changed) if auto else render.scaling_text(changed)}")


def _taken_back(changed: schemas.ScalingStatus) -> str:
    fixed = render.scaling_text(changed) if changed.chosen_by == "manifest" else "its count follows the load again"
    return f"what was set by hand is taken back; {fixed}"


def _only_version(session: Session, model: str) -> str:
    versions = [each.version for each in session.client.scaling(model, "")]
    if len(versions) != 1:
        raise UsageError(
            f"{model}: it has {len(versions)} versions: {', '.join(versions)}",
            hint=f"name one: modelfleet scale {model}@{versions[0] if versions else 'VERSION'} …",
        )
    return str(versions[0])
