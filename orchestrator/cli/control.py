"""Where the control plane of a state directory is, as its files and the process table say.

Only reads. It never asks the control plane itself (`client.py` does) and never starts one (`launch.py` does).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli.errors import CliError, NotRunningError


@dataclass(frozen=True, slots=True)
class Control:
    """What control.json says of the control plane, and the token that it wants."""

    pid: int
    url: str
    cluster: str
    token: str


def find(state_dir: Path) -> Control:
    """The control plane of `state_dir`. Raises `NotRunningError`, which says so when it ended without a farewell."""
    try:
        facts = json.loads((state_dir / "control.json").read_text())
        control = Control(int(facts["pid"]), facts["url"], facts["cluster"], (state_dir / "token").read_text().strip())
    except FileNotFoundError:
        raise NotRunningError(f"no control plane is running on {state_dir}") from None
    except PermissionError as exc:
        raise CliError(
            f"{exc.filename}: not readable by you; a state directory belongs to one user",
            hint="become that user, or name another directory with --state-dir",
        ) from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise NotRunningError(f"{state_dir / 'control.json'}: not what a control plane writes") from exc
    if not is_alive(control.pid):
        raise NotRunningError(
            f"the control plane on {state_dir} (process {control.pid}) has died; what it started still runs",
            hint="`modelfleet up` starts another, which takes over what runs",
        )
    return control


def has_died(state_dir: Path) -> bool:
    """Whether control.json names a process that is gone: a control plane that was killed, not ended."""
    if not (state_dir / "control.json").exists():
        return False
    try:
        find(state_dir)
    except NotRunningError:
        return True
    return False


def is_alive(pid: int) -> bool:
    """Whether process `pid` runs. A zombie does not: nobody may have waited for it yet (in a container, say)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (OSError, IndexError):
        return True
