"""`modelfleet keys`: API keys of the gateway. A key is shown once, when it is made.

The text of a key goes to standard output alone, so that `KEY=$(modelfleet keys create ci)` holds it and nothing else;
all other words go to standard error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import render, words
from orchestrator.cli.apply import YesOption
from orchestrator.cli.errors import UsageError
from orchestrator.cli.verb import Session, verb

if TYPE_CHECKING:
    from orchestrator.api import schemas

HELP = "Make, list and revoke the API keys that clients ask the gateway with."


@verb(
    "modelfleet keys create ci",
    "modelfleet keys create shop --model iris --model text --requests-per-s 50 --burst 100",
    "modelfleet keys create nightly --concurrency 4 --expires 30d",
    "KEY=$(modelfleet keys create ci -q)",
)
def create(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="Whose it is; unique.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="MODEL", show_default=False, help="It may ask this one; repeat [default: all]."
        ),
    ] = None,
    requests_per_s: Annotated[
        float | None,
        typer.Option(metavar="N", show_default=False, help="Most requests a second on average [default: any]."),
    ] = None,
    burst: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", show_default=False, help="Most at once after a pause [default: those of a second]."
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", show_default=False, help="Most in flight or queued [default: any]."),
    ] = None,
    expires: Annotated[
        str, typer.Option(metavar="AGE", show_default=False, help="It works so long: 12h, 30d [default: for ever].")
    ] = "",
) -> None:
    """Make an API key and show it, this once.

    Clients send it as `authorization: Bearer KEY` or `x-api-key: KEY`.
    """
    if burst is not None and requests_per_s is None:
        raise UsageError("--burst without --requests-per-s", hint="a burst belongs to a rate: give both")
    if requests_per_s is not None and requests_per_s <= 0:
        raise UsageError(f"--requests-per-s {requests_per_s:g}: not above 0", hint="leave it out for no limit")
    made = session.client.create_key(
        {
            "name": name,
            "models": model or None,
            "requests_per_s": requests_per_s or 0,
            "burst": burst or max(1, round(requests_per_s or 1)),
            "concurrency": concurrency or 0,
            "expires_in_s": words.duration_s(expires) if expires else None,
        }
    )
    for warning in made.warnings:
        session.err.line(("Warning: ", "yellow"), warning)
    if session.json:
        session.out.json(made)
        return
    session.out.long_line((made.secret, "bold"))
    if not session.quiet:
        _explain(session, made)


def _explain(session: Session, made: schemas.KeyCreated) -> None:
    session.err.line(
        f"Key {made.key.name} ({made.key.id}) may ask {render.key_scope(made.key)}. It is not shown again."
    )
    if not made.in_force:
        session.err.line(
            ("Not in force yet: ", "yellow"), "the gateway has not taken it over; `modelfleet status` says why"
        )


@verb("modelfleet keys list", "modelfleet keys list -o json | jq -r '.[] | select(.expired) | .id'")
def list_all(session: Session) -> None:
    """Show the keys, oldest first; never the keys themselves."""
    found = session.client.api_keys()
    if session.json:
        session.out.json(found)
    elif found:
        session.out.table(render.keys_grid(found))
    else:
        session.say("No keys; `modelfleet keys create NAME` makes one.")


@verb("modelfleet keys revoke k7w2m9qd", "modelfleet keys revoke ci --yes")
def revoke(
    session: Session,
    key: Annotated[str, typer.Argument(metavar="ID|NAME", show_default=False, help="Which, as `keys list` shows it.")],
    yes: YesOption = False,
) -> None:
    """Take a key away: the gateway refuses it from now on."""
    known = session.client.api_keys()
    found = next((each for each in known if key in (each.id, each.name)), None)
    if found is None:
        raise words.unknown("key", key, [each.name for each in known])
    session.confirm(f"Revoke key {found.name} ({found.id})?", yes=yes)
    revoked = session.client.revoke_key(found.id)
    if session.json:
        session.out.json(revoked)
        return
    session.say(f"Key {found.name} ({found.id}) is revoked.")
    if not revoked.in_force:
        session.err.line(
            ("Not in force yet: ", "yellow"), "the gateway still takes it until it has the newest table; "
            "`modelfleet status` says why",
        )  # fmt: skip
