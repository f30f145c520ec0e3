"""The settings of one control-plane process: read once from the command line and environment, then passed in.

What the cluster should be stands in the manifest; here is only what a process must know before it can read one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.core.errors import UserError

EngineName = Literal["docker", "process"]
ENGINES: tuple[EngineName, ...] = ("docker", "process")
DEFAULT_API_PORT = 7070
VERSION = "0.1.0"


@dataclass(frozen=True, slots=True)
class Config:
    """`engine`, `cluster` and the ports override the manifest when given; None leaves the word to it.

    `api_port` 0 picks a free one (it stands in control.json).
    """

    state_dir: Path
    api_port: int = DEFAULT_API_PORT
    engine: EngineName | None = None
    cluster: str | None = None
    base_image: str | None = None
    gateway_port: int | None = None
    metrics_port: int | None = None
    grpc_port: int | None = None


def default_state_dir() -> Path:
    """`$MODELFLEET_STATE_DIR`, else `modelfleet` under `$XDG_STATE_HOME` or `~/.local/state`."""
    named = os.environ.get("MODELFLEET_STATE_DIR")
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "modelfleet"


def port_from_environment(name: str) -> int | None:
    """The port in environment variable `name`, None when it is unset or empty. Raises `UserError`."""
    text = os.environ.get(name, "")
    if not text:
        return None
    if not text.isdigit() or not 0 <= int(text) < 65536:
        raise UserError(f"environment variable {name}: {text!r}; it must be a port, 1 to 65535; correct or unset it")
    return int(text)
