"""`modelfleet plan`: what an apply would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import manifests, render, words
from orchestrator.cli.errors import INVALID, ApiError
from orchestrator.cli.manifests import ManifestArgument
from orchestrator.cli.verb import Session, verb

if TYPE_CHECKING:
    from orchestrator.api import schemas


@verb("modelfleet plan", "modelfleet plan configs/models.yaml", "modelfleet plan -o json | jq .empty")
def plan(session: Session, manifest: ManifestArgument = None) -> None:
    """Show what apply would change; changes nothing."""
    path = manifests.chosen(manifest)
    planned = ask(session, manifests.request(path))
    if session.json:
        session.out.json(planned)
    else:
        show(session, planned, path)


def ask(session: Session, request: dict[str, str]) -> schemas.PlanResponse:
    """The control plane's plan. Raises the diagnostics of a manifest that is wrong."""
    try:
        return session.client.plan(request)
    except ApiError as exc:
        if exc.diagnostics:
            exc.message, exc.exit_code = f"{words.count(len(exc.diagnostics), 'error')} in {request['file']}", INVALID
        raise


def show(session: Session, planned: schemas.PlanResponse, path: Path) -> None:
    if planned.empty:
        session.out.line(("Nothing to change", "green"), f": what runs is what {path} asks for.")
    else:
        base = f"revision {planned.base_revision}" if planned.base_revision else "nothing"
        session.out.line(f"Plan for {path}, from {base}: {render.plan_summary(planned)}")
    for line in render.plan_lines(planned):
        session.out.line(*line)
