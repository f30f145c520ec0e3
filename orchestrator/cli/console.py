"""`modelfleet console`: a link that opens the web console signed in."""

from __future__ import annotations

import os
import sys
import webbrowser
from typing import Annotated

import typer

from orchestrator.cli.verb import Session, verb


@verb("modelfleet console", "modelfleet console --no-open      only print the link")
def console(
    session: Session,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the link and open nothing.")] = False,
) -> None:
    """Open the web console, signed in.

    The link works once, within ten minutes. Over SSH, forward the port first: `ssh -L 7070:127.0.0.1:7070 HOST`.
    """
    link = session.client.console_link()
    if session.json:
        session.out.json(link)
        return
    session.out.long_line(link.url)
    if not no_open and _has_browser() and webbrowser.open(link.url):
        session.say("Opened in your browser. The link worked for this one time.")
    else:
        session.say(f"Open it in a browser on this machine, once, within {link.expires_in_s / 60:.0f} minutes.")


def _has_browser() -> bool:
    """Whether a window can be opened. Without one Python would run a browser of the terminal, in this terminal."""
    if sys.platform == "darwin":
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
