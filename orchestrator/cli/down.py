"""`modelfleet down`: ends what `up` started, and returns when it has ended."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import launch, words
from orchestrator.cli.apply import YesOption
from orchestrator.cli.client import Client
from orchestrator.cli.control import Control
from orchestrator.cli.verb import Session, verb


@verb(
    "modelfleet down",
    "modelfleet down --keep-replicas      # predictions go on; `modelfleet up` adopts them",
    "modelfleet down --yes",
)
def down(
    session: Session,
    keep_replicas: Annotated[
        bool, typer.Option("--keep-replicas", help="Leave replicas and gateway running; end only the control plane.")
    ] = False,
    yes: YesOption = False,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long to wait for it.")] = 120,
) -> None:
    """End replicas, gateway and control plane. What was applied is kept for the next `up`."""
    running = _running(session, keep_replicas=keep_replicas)
    if running is None:
        _tell(session, "Nothing is running", was_running=False)
        return
    client = Client(running)
    if not (keep_replicas or yes) and session.out.is_terminal and session.tells:
        _ask(session, client)
    client.down(keep_replicas=keep_replicas)
    session.say("Ending" + (" the control plane ..." if keep_replicas else " replicas, gateway and control plane ..."))
    launch.await_end(running.pid, timeout)
    _tell(session, "Down", was_running=True, keeps=keep_replicas)


def _running(session: Session, *, keep_replicas: bool) -> Control | None:
    """The control plane that is up, None where nothing is to be ended.

    One that was killed has left its replicas behind. Only a control plane knows which are ours, so one is started to
    end them.
    """
    running = launch.answering(session.state_dir)
    if running is not None or keep_replicas or not (session.state_dir / "control.json").exists():
        return running
    session.say("The control plane had died; starting one to end what it left running ...")
    return launch.start(session.state_dir, launch.Options(api_port=0))


def _ask(session: Session, client: Client) -> None:
    """Asks where requests are being served; there is nothing to lose otherwise."""
    serving = [model for model in client.status().models if any(model.routed.values())]
    if serving:
        session.confirm(f"End {words.count(len(serving), 'serving model')}?", yes=False, default=True)


def _tell(session: Session, text: str, *, was_running: bool, keeps: bool = False) -> None:
    if session.json:
        session.out.json({"state": "down", "was_running": was_running, "kept_replicas": keeps})
    else:
        session.say(f"{text}; `modelfleet up` takes over the replicas and the gateway." if keeps else f"{text}.")
