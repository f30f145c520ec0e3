"""`modelfleet apply`: makes what runs what the manifest says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import manifests
from orchestrator.cli import plan as plans
from orchestrator.cli.errors import ApiError
from orchestrator.cli.follow import follow
from orchestrator.cli.manifests import ManifestArgument
from orchestrator.cli.verb import Session, verb

if TYPE_CHECKING:
    from orchestrator.api import schemas

# How often a plan that went stale between showing and sending is made again under --yes.
REPLANS = 3

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
TimeoutOption = Annotated[
    float,
    typer.Option(
        min=0, metavar="SECONDS", help="How long to wait for it to be done; not counting while a source comes."
    ),
]


@verb(
    "modelfleet apply",
    "modelfleet apply configs/models.yaml --dry-run",
    "modelfleet apply --yes --timeout 600",
    "modelfleet apply --yes -o json | jq .state",
)
def apply(
    session: Session,
    manifest: ManifestArgument = None,
    yes: YesOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    timeout: TimeoutOption = 300,
) -> None:
    """Show what would change, ask, do it, and wait until it is done.

    Exit code 0: applied; 1: it did not converge; 2: the manifest is wrong.
    """
    path = manifests.chosen(manifest)
    run(session, path, yes=yes, dry_run=dry_run, timeout_s=timeout)


def run(session: Session, path: Path, *, yes: bool, dry_run: bool = False, timeout_s: float) -> None:
    request = manifests.request(path)
    planned = plans.ask(session, request)
    for left in reversed(range(REPLANS)):
        if dry_run or planned.empty:
            _show_only(session, planned, path)
            return
        if session.tells:
            plans.show(session, planned, path)
        session.confirm("Apply this?", yes=yes)
        try:
            operation = session.client.apply({**request, "plan": planned.digest})
        except ApiError as exc:
            planned = _after_refusal(session, exc, request, planned, left)
            continue
        follow(session, operation, timeout_s)
        return


def _show_only(session: Session, planned: schemas.PlanResponse, path: Path) -> None:
    if session.json:
        session.out.json(planned)
    elif not session.quiet:
        plans.show(session, planned, path)


def _after_refusal(
    session: Session, refusal: ApiError, request: dict[str, str], shown: schemas.PlanResponse, left: int
) -> schemas.PlanResponse:
    """The plan as it is now, where that is why the shown one was refused; anything else is raised."""
    if refusal.status != 409 or not left:
        raise refusal
    planned = plans.ask(session, request)
    if planned.digest == shown.digest:
        raise refusal
    session.say(("The cluster changed while the plan was shown", "yellow"), "; this is what would happen now:")
    return planned
