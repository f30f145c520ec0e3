"""`modelfleet version`."""

from __future__ import annotations

import platform

from orchestrator.cli.errors import CliError
from orchestrator.cli.verb import Session, verb
from orchestrator.config import VERSION


@verb("modelfleet version", "modelfleet version -o json")
def version(session: Session) -> None:
    """Print the release of this command, and of the control plane if one is up."""
    running = _control_plane(session)
    if session.json:
        session.out.json({"version": VERSION, "python": platform.python_version(), "control_plane": running})
        return
    session.out.line(f"modelfleet {VERSION} (Python {platform.python_version()})")
    if running:
        session.out.line(f"control plane {running}")
    if running and running != VERSION:
        session.err.line(
            "the two differ: restart the control plane with `modelfleet down --keep-replicas`, `modelfleet up`"
        )


def _control_plane(session: Session) -> str | None:
    try:
        return session.client.status().version
    except CliError:
        return None
