"""`modelfleet top`: the fleet live in a terminal, also over SSH; once in a pipe or on a dumb terminal."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.errors import INTERRUPTED
from orchestrator.cli.top_frame import frame
from orchestrator.cli.top_state import Fleet, View, press
from orchestrator.cli.verb import Session, verb

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

    from orchestrator.cli.top_feed import Feed

# As if a terminal had room for every column.
PIPE_WIDTH = 200


@verb("modelfleet top", "modelfleet top -n 5", "modelfleet top --once", "modelfleet top --once -o json | jq '.totals'")
def top(
    session: Session,
    once: Annotated[bool, typer.Option("--once", help="Print one picture, and end.")] = False,
    interval: Annotated[
        float,
        typer.Option("--interval", "-n", min=0.2, max=3600, metavar="SECONDS", help="How often it is drawn anew."),
    ] = 1.0,
) -> int | None:
    """Show all models live: rates, errors, latency, replicas, CPU, memory, cost. `?` shows the keys."""
    if once or session.json or not (session.out.is_terminal and sys.stdin.isatty()):
        _print_once(session)
        return None
    return _live(session, interval)


def _print_once(session: Session) -> None:
    from orchestrator.cli import top_feed

    fleet = Fleet()
    for name, body in top_feed.first(session.state_dir, top_feed.SILENCE_S):
        fleet.take(name, body)
    if session.json:
        session.out.json(fleet.update)
        return
    for line in frame(fleet, View(), width=session.out.width or PIPE_WIDTH, height=None, now=time.time()):
        session.out.long_line(*line)


def _live(session: Session, interval_s: float) -> int:
    from orchestrator.cli.top_feed import Feed
    from orchestrator.cli.top_keys import Terminated, keys_of

    session.control  # noqa: B018 - says at once that none runs, rather than in a picture
    try:
        with keys_of(sys.stdin.fileno()), Feed(session.state_dir) as feed, _screen(session) as live, _resizes(feed):
            _follow(session, feed, live, interval_s)
    except Terminated as exc:
        return 128 + exc.number
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


@contextlib.contextmanager
def _screen(session: Session) -> Iterator[Live]:
    from rich.live import Live

    # Drawn by us alone: its own thread would draw between two of our pictures.
    live = Live(console=session.out.console, screen=True, auto_refresh=False, transient=True)
    with live:
        yield live


@contextlib.contextmanager
def _resizes(feed: Feed) -> Iterator[None]:
    """Another size is drawn at once."""
    before = signal.signal(signal.SIGWINCH, lambda _number, _frame: feed.nudge())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _follow(session: Session, feed: Feed, live: Live, interval_s: float) -> None:
    from orchestrator.cli import top_keys

    fleet, view, keyboard = Fleet(), View(), sys.stdin.fileno()
    due, size = 0.0, os.get_terminal_size(keyboard)
    while not view.has_ended:
        now = time.monotonic()
        if now >= due:
            live.update(picture(session, fleet, view), refresh=True)
            due = now + interval_s
        ready, _, _ = select.select([keyboard, feed.wake], [], [], max(0.0, due - time.monotonic()))
        was_empty = fleet.update is None
        for name, body in feed.taken():
            _take(fleet, name, body)
        if keyboard in ready:
            for key in top_keys.read(keyboard):
                view = press(view, key, fleet)
            feed.look_at(view.opened)
        before, size = size, os.get_terminal_size(keyboard)
        # What somebody did is shown at once, and so is the first picture; what merely happened can wait for its turn.
        if keyboard in ready or size != before or (was_empty and fleet.update is not None):
            due = 0.0


def _take(fleet: Fleet, name: str, body: Any) -> None:
    if name == "lost":
        fleet.lose(body, time.time())
    else:
        fleet.take(name, body)


def picture(session: Session, fleet: Fleet, view: View) -> Group:
    """As large as the terminal is now."""
    from rich.console import Group

    from orchestrator.cli.screen import rich_text

    width, height = session.out.console.size
    lines = [rich_text(line) for line in frame(fleet, view, width=width, height=height, now=time.time())]
    for line in lines:
        line.truncate(width)
        line.no_wrap = True
    return Group(*lines)
