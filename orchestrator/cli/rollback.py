"""`modelfleet rollback`: back to an earlier revision, to the byte; or one model back to how it was in one."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import words
from orchestrator.cli.apply import TimeoutOption, YesOption
from orchestrator.cli.errors import UsageError
from orchestrator.cli.follow import follow
from orchestrator.cli.verb import Session, verb

if TYPE_CHECKING:
    from orchestrator.api import schemas

_STYLES = {"+": "green", "-": "red", "@": "cyan"}


@verb(
    "modelfleet rollback",
    "modelfleet rollback 3",
    "modelfleet rollback --model iris               only this model, to how it was before it last changed",
    "modelfleet rollback 3 --model iris --yes --timeout 60",
)
def rollback(
    session: Session,
    revision: Annotated[
        int | None, typer.Argument(min=1, metavar="[REVISION]", show_default=False, help="[default: the one before].")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", show_default=False, help="This model alone; others stay.")
    ] = "",
    yes: YesOption = False,
    timeout: TimeoutOption = 300,
) -> None:
    """Return to an earlier revision. The manifest file stays as it is."""
    if model:
        _one_model(session, model, revision, yes=yes, timeout_s=timeout)
        return
    current, target = _both(session, revision)
    if session.tells:
        _show(session, current, target)
    session.confirm(f"Return to revision {target.revision}?", yes=yes)
    operation = session.client.rollback(target.revision)
    follow(session, operation, timeout)
    session.say(f"{current.file} still says what was rolled back; the next apply would bring it again.")


def _one_model(session: Session, model: str, revision: int | None, *, yes: bool, timeout_s: float) -> None:
    """The control plane finds the revision; the events and the history say which it was."""
    where = f"in revision {revision}" if revision else "before it last changed"
    session.confirm(f"Make model {model} as it was {where}, and leave all others as they are?", yes=yes)
    operation = session.client.rollback_model(model, revision)
    follow(session, operation, timeout_s)
    session.say("The manifest file still says what was rolled back; the next apply of it would bring that again.")


def _both(session: Session, number: int | None) -> tuple[schemas.Revision, schemas.Revision]:
    """The revision in force and the one to return to, with their manifests. Raises `UsageError`."""
    revisions = {each.revision: each for each in session.client.history()}
    current = next((each for each in revisions.values() if each.current), None)
    if current is None:
        raise UsageError("nothing was applied yet, so there is nothing to return to", hint="`modelfleet apply`")
    wanted = current.revision - 1 if number is None else number
    if wanted == current.revision:
        raise UsageError(f"revision {wanted} is in force already", hint="`modelfleet history` shows the others")
    if wanted not in revisions:
        what = f"revision {wanted} is not kept" if wanted else "there is no revision before the first"
        raise UsageError(what, hint="`modelfleet history` shows those that are")
    return session.client.revision(current.revision), session.client.revision(wanted)


def _show(session: Session, current: schemas.Revision, target: schemas.Revision) -> None:
    session.out.line(
        f"Revision {current.revision} -> revision {target.revision} of {words.moment(target.at)}: {target.summary}"
    )
    names = (f"revision {current.revision}", f"revision {target.revision}")
    difference = difflib.unified_diff(
        current.manifest.splitlines(), target.manifest.splitlines(), *names, lineterm="", n=1
    )
    for line in list(difference)[2:]:
        session.out.long_line(("  " + line, _STYLES.get(line[:1], "dim")))
