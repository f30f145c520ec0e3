"""`modelfleet logs`: what the replicas of a model print, with the logs of gateway and control plane, by time."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import words
from orchestrator.cli.errors import INTERRUPTED, UsageError
from orchestrator.cli.models import known_model
from orchestrator.cli.screen import Span
from orchestrator.cli.verb import Session, verb
from orchestrator.core.log_lines import LEVELS, Wanted

if TYPE_CHECKING:
    from orchestrator.api import schemas

# Replicas are told apart by colour; six that read well on light and dark grounds.
_COLORS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red")
# Without a choice among lines the last ones are wanted, with one all that fit it.
_TAIL, _TAIL_OF_CHOSEN = 100, 10_000
# On lines of their own, below the event.
_BLOCKS = ("stack", "exception", "trace")


@verb(
    "modelfleet logs iris",
    "modelfleet logs iris@2 -f --level warning",
    "modelfleet logs iris --gateway --request-id 5f3a9c-17",
    "modelfleet logs --control-plane --since 10m --grep 'replica .* failed'",
    "modelfleet logs iris --tail 20 -o json | jq -r .text",
)
def logs(
    session: Session,
    target: Annotated[str, typer.Argument(metavar="[MODEL[@VERSION]]", show_default=False, help="Whose.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")] = False,
    tail: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=100_000,
            show_default=False,
            help=f"At most so many old lines of each replica; {_TAIL}, or {_TAIL_OF_CHOSEN:,} to choose among.",
        ),
    ] = None,
    replica: Annotated[
        str, typer.Option(metavar="ID", show_default=False, help="Only this one, or those that begin so.")
    ] = "",
    since: Annotated[
        str, typer.Option(metavar="AGE", show_default=False, help="Only younger lines: 90s, 10m, 2h, 1d.")
    ] = "",
    level: Annotated[
        str, typer.Option(metavar="LEVEL", show_default=False, help=f"Only this and worse: {', '.join(LEVELS)}.")
    ] = "",
    grep: Annotated[
        str, typer.Option(metavar="REGEX", show_default=False, help="Only lines in which it is found.")
    ] = "",
    request_id: Annotated[
        str, typer.Option(metavar="ID", show_default=False, help="Only lines of this request, or of this trace.")
    ] = "",
    gateway: Annotated[bool, typer.Option("--gateway", help="The gateway's log and access log as well.")] = False,
    control_plane: Annotated[bool, typer.Option("--control-plane", help="The control plane's log as well.")] = False,
) -> int | None:
    """Show what the replicas of a model print, and what gateway and control plane say, by time."""
    if not target and not (gateway or control_plane):
        raise UsageError("logs: of nobody; name a model, or ask with --gateway or --control-plane")
    model, version = words.model_and_version(target) if target else ("", "")
    wanted = _wanted(since, level, grep, request_id)
    if tail is None:
        tail = _TAIL if wanted == Wanted() else _TAIL_OF_CHOSEN
    parts = {name: "true" for name, is_asked in (("gateway", gateway), ("control_plane", control_plane)) if is_asked}
    colors: dict[str, str] = {}
    try:
        with known_model(session, model, version):
            for entry in session.client.logs(model, version=version, tail=tail, follow=follow, **parts):
                if _is_wanted(entry, wanted, model, replica):
                    _show(session, entry, colors)
    except KeyboardInterrupt:
        return INTERRUPTED
    if not colors:
        session.err.line(_nothing(replica, wanted))
    return None


def _wanted(since: str, level: str, grep: str, request_id: str) -> Wanted:
    if level and level not in LEVELS:
        raise UsageError(
            f"--level {level!r}: not a level; they are {', '.join(LEVELS)}", hint="for example --level error"
        )
    try:
        pattern = re.compile(grep) if grep else None
    except re.error as exc:
        raise UsageError(
            f"--grep {grep!r}: not a regular expression: {exc}", hint="a backslash before a character takes it as it is"
        ) from exc
    return Wanted(time.time() - words.positive_s("--since", since) if since else 0.0, level, pattern, request_id)


def _is_wanted(entry: schemas.LogEntry, wanted: Wanted, model: str, replica: str) -> bool:
    if entry.source == "replica":
        if not entry.replica.startswith(replica):
            return False
    elif model and entry.fields.get("model", model) != model:
        return False  # of another model, beside whose replicas it would mislead
    return wanted.takes(entry.at, entry.text, entry.level, entry.fields)


def _nothing(replica: str, wanted: Wanted) -> str:
    if wanted != Wanted():
        return "No lines that fit."
    return f"No lines of a replica {replica!r}." if replica else "No lines yet."


def _show(session: Session, entry: schemas.LogEntry, colors: dict[str, str]) -> None:
    color = colors.setdefault(entry.replica, _COLORS[len(colors) % len(_COLORS)])
    if session.json:
        session.out.json(entry, one_line=True)
        return
    at = f"{words.clock(entry.at)}.{int(entry.at % 1 * 1000):03d}"
    begin: Span = (f"{at} {entry.replica} | ", color)
    if not entry.event:
        session.out.long_line(begin, entry.text.rstrip("\n"))
        return
    fields = {**entry.fields}
    blocks = [str(fields.pop(key)) for key in _BLOCKS if "\n" in str(fields.get(key, ""))]
    pairs = " ".join(f"{key}={_value(value)}" for key, value in fields.items())
    style = words.STYLES.get(entry.level, "")
    session.out.long_line(
        begin, (f"{entry.level:<7} ", style), (entry.event, "bold"), (f"  {pairs}" if pairs else "", "dim")
    )
    for line in (line for block in blocks for line in block.rstrip("\n").split("\n")):
        session.out.long_line(begin, ("        ", ""), line)


def _value(value: Any) -> str:
    """As one word where it is one; a number like 0.30000001 in its shortest form."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if text and not re.search(r"[\s\"'=]", text) else repr(text)
