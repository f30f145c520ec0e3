"""`modelfleet rollout`: the rollout of one model: where it stands, promote a version, pause, resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import words
from orchestrator.cli.apply import TimeoutOption, YesOption
from orchestrator.cli.errors import UsageError
from orchestrator.cli.follow import follow
from orchestrator.cli.models import known_model
from orchestrator.cli.screen import Column, Grid
from orchestrator.cli.verb import Session, verb

if TYPE_CHECKING:
    from orchestrator.api import schemas_console

HELP = "Look after the rollout of one model: promote a version, pause, resume."
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help="Which model.")]


@verb("modelfleet rollout status iris")
def status(session: Session, model: ModelArgument) -> None:
    """Show shares, asked for and in force, new and old replicas, and whether it is paused."""
    with known_model(session, model):
        _show(session, session.client.rollout(model))


@verb("modelfleet rollout promote iris@2", "modelfleet rollout promote iris@2 --yes")
def promote(
    session: Session,
    target: Annotated[
        str, typer.Argument(metavar="MODEL@VERSION", show_default=False, help="Which version gets everything.")
    ],
    yes: YesOption = False,
    timeout: TimeoutOption = 300,
) -> None:
    """Send all of a model's traffic to one version, as a new revision.

    The traffic moves when the version can carry it. The manifest file stays as it is; `modelfleet rollback --model`
    takes it back.
    """
    model, version = words.model_and_version(target)
    if not version:
        raise UsageError(f"{target}: no version is named", hint=f"modelfleet rollout promote {model}@VERSION")
    with known_model(session, model, version):
        before = session.client.rollout(model)
        if session.tells:
            session.out.line(f"{model}: {_split(before)} -> {version} 100 %")
        session.confirm(f"Send all traffic of {model} to version {version}?", yes=yes)
        operation = session.client.promote(model, version)
    follow(session, operation, timeout)
    session.say("The manifest file still says what it said; the next apply of it would bring that again.")


@verb("modelfleet rollout pause iris", "modelfleet rollout pause iris --reason 'version 2 answers oddly'")
def pause(
    session: Session,
    model: ModelArgument,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", show_default=False, help="For others, in the status and the events.")
    ] = "",
) -> None:
    """Keep a model as it is: nothing of it is replaced or removed, and no traffic moves.

    What dies is made anew. What is applied for it meanwhile waits until it is resumed, and so does a lower count. It
    holds over restarts of the control plane.
    """
    with known_model(session, model):
        _show(session, session.client.pause_rollout(model, reason))


@verb("modelfleet rollout resume iris")
def resume(session: Session, model: ModelArgument) -> None:
    """End a pause: what was applied meanwhile is taken up."""
    with known_model(session, model):
        _show(session, session.client.resume_rollout(model))


def _show(session: Session, found: schemas_console.RolloutStatus) -> None:
    if session.json:
        session.out.json(found)
        return
    session.out.line((found.model, "bold"), f": {_headline(found)}")
    grid = Grid([
        Column("VERSION"), Column("STATE"), Column("READY", right=True), Column("OLD", right=True),
        Column("TRAFFIC", right=True), Column("REASON", wraps=True),
    ])  # fmt: skip
    for each in found.versions:
        moving = "" if each.share == each.routed else f" ({each.share}% asked for)"
        grid.add(
            each.version, words.state(each.state), f"{each.ready}/{each.desired}", str(each.old or ""),
            f"{each.routed}%{moving}", each.reason,
        )  # fmt: skip
    session.out.table(grid)


def _headline(found: schemas_console.RolloutStatus) -> str:
    if found.paused_at is None:
        return "settled" if found.state == "settled" else "under way"
    why = f": {found.paused_reason}" if found.paused_reason else ""
    waits = "; what was applied since waits" if found.waiting else ""
    return (
        f"paused since {words.moment(found.paused_at)}{why}{waits}; `modelfleet rollout resume {found.model}` ends it"
    )


def _split(found: schemas_console.RolloutStatus) -> str:
    return ", ".join(f"{each.version} {each.share} %" for each in found.versions if each.share) or "no traffic"
