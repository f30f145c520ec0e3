"""`modelfleet up`: from nothing to predictions. Running it again redoes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import apply, launch, manifests, sample
from orchestrator.cli.apply import TimeoutOption
from orchestrator.cli.errors import UsageError
from orchestrator.cli.manifests import ManifestArgument
from orchestrator.cli.verb import Session, verb
from orchestrator.config import ENGINES


@verb(
    "modelfleet up",
    "modelfleet up configs/models.yaml --example      # trains the example models first",
    "modelfleet up --engine process                   # without Docker",
    "modelfleet up --no-apply                         # only the control plane",
)
def up(
    session: Session,
    manifest: ManifestArgument = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="docker|process", show_default=False, help="What runs the replicas [default: as the manifest says]."
        ),
    ] = None,
    api_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, metavar="N", show_default=False, help="The admin API's port; 0 is any [default: 7070]."
        ),
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="Overrides the manifest's.")
    ] = None,
    base_image: Annotated[
        str | None, typer.Option(metavar="IMAGE", show_default=False, help="What worker images are built on.")
    ] = None,
    no_apply: Annotated[bool, typer.Option("--no-apply", help="Start the control plane and stop there.")] = False,
    example: Annotated[bool, typer.Option("--example", help="Train the example models if they are not there.")] = False,
    timeout: TimeoutOption = 300,
) -> None:
    """Start the control plane in the background, apply the manifest, predict.

    Without MANIFEST, ./models.yaml or ./configs/models.yaml is applied if there is one.
    """
    if engine is not None and engine not in ENGINES:
        raise UsageError(f"engine {engine!r}: not one of {', '.join(ENGINES)}", hint="choose one of them")
    path = None if no_apply else manifests.chosen(manifest) if manifest or example else manifests.default()
    options = launch.Options(engine, api_port, cluster, base_image)
    _ensure_up(session, options)
    if example and path is not None:
        _train(session, path, engine or session.client.status().engine, base_image)
    if path is None:
        _end_without_apply(session)
        return
    apply.run(session, path, yes=True, timeout_s=timeout)
    if session.tells:
        sample.show_predictions(session, path)
        _show_console(session)


def _ensure_up(session: Session, options: launch.Options) -> None:
    running = launch.answering(session.state_dir)
    if running is None:
        started = launch.start(session.state_dir, options)
        session.say(
            ("Control plane up", "green"), f": {started.url}, process {started.pid}, state in {session.state_dir}"
        )
        return
    _refuse_difference(session, options)
    session.say(f"Control plane is up already: {running.url}, process {running.pid}")


def _refuse_difference(session: Session, options: launch.Options) -> None:
    """An option that a running control plane does not follow is refused, never ignored."""
    status = session.client.status()
    port = session.control.url.rsplit(":", 1)[-1]
    pairs = (
        ("--engine", options.engine, status.engine),
        ("--cluster", options.cluster, status.cluster),
        ("--api-port", str(options.api_port) if options.api_port else None, port),
    )
    for name, asked, runs in pairs:
        if asked is not None and asked != runs:
            raise UsageError(
                f"{name} {asked}: the control plane that is up has {runs}",
                hint="end it first with `modelfleet down`, or use another directory with --state-dir",
            )


def _train(session: Session, manifest: Path, engine: str, base_image: str | None) -> None:
    from orchestrator import examples

    examples.ensure(manifest.parent, engine, state_dir=session.state_dir, base_image=base_image, say=session.say)


def _show_console(session: Session) -> None:
    """On a terminal a link that signs in; what goes to a file or a log has nothing in it that lets anybody in."""
    session.say()
    if not session.out.is_terminal:
        session.say(f"Console: {session.control.url}/console/; `modelfleet console` opens it signed in.")
        return
    link = session.client.console_link()
    session.say(f"Console, for {link.expires_in_s / 60:.0f} minutes, once (`modelfleet console` gives another link):")
    session.out.long_line(link.url)


def _end_without_apply(session: Session) -> None:
    if session.json:
        session.out.json(session.client.status())
    else:
        session.say("Next: `modelfleet init FOLDER` makes a manifest, `modelfleet apply` runs it.")
