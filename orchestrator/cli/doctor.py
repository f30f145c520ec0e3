"""`modelfleet doctor`: what is wrong here, and the command that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from orchestrator.cli import checks, render, words
from orchestrator.cli.errors import FAILED, CliError
from orchestrator.cli.verb import Session, verb

if TYPE_CHECKING:
    from orchestrator.api import schemas


@verb("modelfleet doctor", "modelfleet doctor -o json | jq '.[] | select(.ok | not)'")
def doctor(session: Session) -> int | None:
    """Check this machine, the engine and the cluster; exit code 1 if a check failed."""
    results = _examine(session)
    failed = sum(1 for each in results if not each.ok)
    if session.json:
        session.out.json(results)
    else:
        for line in render.check_lines(results if not session.quiet else [each for each in results if not each.ok]):
            session.out.long_line(*line)
        session.say()
        session.say(
            (f"{words.count(failed, 'check')} failed", "bold red") if failed else ("Everything is in order", "green"),
            ".",
        )
    return FAILED if failed else None


def _examine(session: Session) -> list[schemas.Check]:
    """The control plane's own checks replace ours of the same name: it knows what it uses."""
    up = checks.control_plane(session.state_dir)
    found = [checks.python(), checks.state_dir(session.state_dir), up]
    try:
        remote = session.client.doctor() if up.ok and up.detail != "not running" else []
        engine = session.client.status().engine if remote else "docker"
    except CliError as exc:
        remote, engine = [], "docker"
        found.append(checks.check("admin API", False, exc.message, exc.hint))
    if not remote:
        found += [checks.disk(session.state_dir), *checks.ports(session.state_dir), checks.sources()]
    if engine == "docker":
        found += checks.docker_engine()
    theirs = {each.name for each in remote}
    return cast("list[schemas.Check]", [each for each in found if each.name not in theirs] + list(remote))
