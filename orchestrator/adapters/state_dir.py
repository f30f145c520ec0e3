"""The state directory: where everything that must outlive a process is kept, for its owner alone.

    control.lock   held (flock) by the one control plane; its first line is the holder's process id
    control.json   where that control plane answers         token   bearer token of the admin API
    key            keys the digests of secrets              secrets/   values of secrets, by keyed digest
    state.sqlite   what was asked for and what happened     artifacts/  model files by content
    gateway/       configuration, table cache               logs/
    prometheus/    configuration and data, if one is managed; grafana/ too, with the password of its `admin`

Every directory is 0700 and every secret file 0600. Who holds the lock may write here; everybody else only reads.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import threading
from pathlib import Path
from typing import Any

from orchestrator.core.errors import ConflictError, UserError


class StateDir:
    """Paths, and the small files in them. `open()` makes what is missing; nothing is made before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = root / "state.sqlite"
        self.artifacts = root / "artifacts"
        self.gateway = root / "gateway"
        self.logs = root / "logs"
        self.token_file = root / "token"
        self.control_file = root / "control.json"
        self._lock_file = root / "control.lock"
        self._lock: int | None = None

    def open(self) -> None:
        """Makes the directories and the token. Raises `UserError` where that is not allowed."""
        try:
            for directory in (self.root, self.artifacts, self.gateway, self.logs, self.root / "secrets"):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(self.root, 0o700)
            self._make_secret(self.token_file)
            self._make_secret(self.root / "key")
        except OSError as exc:
            raise UserError(
                f"state directory {self.root}: {exc.strerror}; it must be a directory that you own and may write; "
                f"name another with --state-dir"
            ) from exc

    def acquire(self) -> None:
        """Takes the lock for this process' life. Raises `ConflictError` that names the holder's process id."""
        descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise ConflictError(
                f"state directory {self.root}: another control plane (process id {holder}) is using it; a directory "
                f"has one control plane; use that one, end it with `modelfleet down`, or name another with --state-dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def release(self) -> None:
        self.control_file.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def token(self) -> str:
        return self.token_file.read_text().strip()

    def announce(self, facts: dict[str, Any]) -> None:
        """Writes control.json, whole or not at all."""
        write_private(self.control_file, json.dumps(facts, indent=2).encode() + b"\n")

    def keep_secret(self, value: str) -> str:
        """Stores a secret's value and returns its keyed digest, by which `secret` finds it again."""
        key = (self.root / "key").read_bytes()
        digest = hmac.new(key, value.encode(), hashlib.sha256).hexdigest()[:32]
        path = self.root / "secrets" / digest
        if not path.exists():
            write_private(path, value.encode())
        return digest

    def secret(self, digest: str) -> str:
        return (self.root / "secrets" / digest).read_text()

    def _make_secret(self, path: Path) -> None:
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32).encode() + b"\n")


def write_private(path: Path, content: bytes) -> None:
    """Writes a 0600 file by atomic rename, so that a reader sees the old or the new one, never a half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
