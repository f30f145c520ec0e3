"""`modelfleet status`: what runs, at one look, or again whenever it changes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import render, words
from orchestrator.cli.errors import INTERRUPTED
from orchestrator.cli.screen import Screen
from orchestrator.cli.verb import Session, verb

if TYPE_CHECKING:
    from orchestrator.api import schemas

_CLOCKS = ("age_s", "in_flight", "phase_s")
# In sentences: `loading 3.2 s`, `next try in 4 s`.
_SECONDS = re.compile(r"\d+(\.\d+)? s\b")


@verb(
    "modelfleet status",
    "modelfleet status iris",
    "modelfleet status --watch",
    "modelfleet status -o json | jq -r '.models[] | select(.state != \"ready\") | .name'",
)
def status(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="[MODEL]", show_default=False, help="Only this model.")] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How often --watch looks.")] = 1.0,
) -> int | None:
    """Show models, versions, replicas and traffic."""
    if watch:
        return _watch(session, model, interval)
    show(session.out, _of(session, model), as_json=session.json)
    return None


def show(screen: Screen, current: schemas.ClusterStatus, *, as_json: bool = False, one_line: bool = False) -> None:
    if as_json:
        screen.json(current, one_line=one_line)
        return
    for line in render.cluster_lines(current):
        screen.line(*line)
    screen.line()
    if not current.models:
        screen.line("No models yet. `modelfleet init FOLDER` makes a manifest, `modelfleet apply` runs it.")
        return
    screen.table(render.models_grid(current.models, screen.width))
    if screen.is_terminal and (reasons := render.reason_lines(current.models)):
        screen.line()
        for line in reasons:
            screen.line(*line)


def _of(session: Session, model: str) -> schemas.ClusterStatus:
    current: Any = session.client.status()
    if model:
        chosen = [each for each in current.models if each.name == model]
        if not chosen:
            raise words.unknown("model", model, (each.name for each in current.models))
        current["models"] = chosen
    return current  # type: ignore[no-any-return]


def _watch(session: Session, model: str, interval_s: float) -> int:
    try:
        if session.out.is_terminal and not session.json:
            _watch_on_terminal(session, model, interval_s)
        else:
            _watch_in_pipe(session, model, interval_s)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _watch_in_pipe(session: Session, model: str, interval_s: float) -> None:
    """Prints the status anew whenever something that matters changed; ages alone do not."""
    before: object = None
    while True:
        current = _of(session, model)
        if (now := _without_clocks(current)) != before:
            if before is not None and not session.json:
                session.out.line()
            show(session.out, current, as_json=session.json, one_line=True)
            before = now
        time.sleep(interval_s)


def _watch_on_terminal(session: Session, model: str, interval_s: float) -> None:
    """Redraws in place, and leaves the last picture behind."""
    from rich.console import Group
    from rich.live import Live

    from orchestrator.cli.screen import rich_table, rich_text

    def picture() -> Group:
        current = _of(session, model)
        lines = [*render.cluster_lines(current), []]
        reasons = [rich_text(line) for line in [[], *render.reason_lines(current.models)]]
        table = rich_table(render.models_grid(current.models, session.out.width))
        return Group(*(rich_text(line) for line in lines), table, *reasons)

    _redraw(lambda first: Live(first, console=session.out.console, auto_refresh=False), picture, interval_s)


def _redraw(make_live: Callable[[Any], Any], picture: Callable[[], Any], interval_s: float) -> None:
    with make_live(picture()) as live:
        while True:
            live.refresh()
            time.sleep(interval_s)
            live.update(picture())


def _without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clocks(each) for key, each in value.items() if key not in _CLOCKS}
    if isinstance(value, str):
        return _SECONDS.sub("", value)
    return [_without_clocks(each) for each in value] if isinstance(value, list) else value
