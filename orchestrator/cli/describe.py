"""`modelfleet describe`: everything about one model."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import render, words
from orchestrator.cli.models import known_model
from orchestrator.cli.screen import Screen
from orchestrator.cli.verb import Session, verb


@verb("modelfleet describe iris", "modelfleet describe iris -o json | jq .urls")
def describe(
    session: Session, model: Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help="Its name.")]
) -> None:
    """Show one model: versions, replicas, addresses, manifest, last events."""
    with known_model(session, model):
        described = session.client.model(model)
    if session.json:
        session.out.json(described)
        return
    out = session.out
    out.line((described.model.name, "bold"), "  ", words.state(described.model.state))
    if described.model.paused_at is not None:
        why = f": {described.model.paused_reason}" if described.model.paused_reason else ""
        out.line(("  rollout     ", "dim"), f"paused since {words.moment(described.model.paused_at)}{why}")
    for title, url in described.urls.items():
        out.long_line((f"  {title:<12}", "dim"), url)
    for title, value in described.settings.items():
        out.long_line((f"  {title:<12}", "dim"), value)
    for version in described.model.versions:
        out.line()
        share = described.model.traffic.get(version.version, 0)
        out.line(
            (f"{model}@{version.version}", "bold"), "  ", words.state(version.state),
            f"  {version.ready} of {words.count(version.desired, 'replica')} ready, {share}% of the traffic",
        )  # fmt: skip
        for line in render.facts_grid(version, described.version_settings.get(version.version, {})):
            out.line(*line)
        if version.replicas:
            out.table(render.replicas_grid(version, out.width))
    _section(out, "Manifest", [[line] for line in described.manifest.rstrip().splitlines()])
    _section(out, "Last events", [render.event_line(each, about_one_model=True) for each in described.events])


def _section(out: Screen, title: str, lines: list[render.Line]) -> None:
    if not lines:
        return
    out.line()
    out.line((title, "bold"))
    for line in lines:
        out.long_line("  ", *line)
