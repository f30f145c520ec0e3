"""`modelfleet schema`."""

from __future__ import annotations

from orchestrator.cli.verb import Session, verb


@verb(
    "modelfleet schema > models.schema.json",
    "# yaml-language-server: $schema=models.schema.json    (first line of models.yaml)",
)
def schema(session: Session) -> None:
    """Print the JSON Schema of models.yaml, for editors."""
    from orchestrator.manifest import json_schema

    session.out.json(json_schema())
