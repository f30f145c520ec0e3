"""A directory per replica under the state directory: its secrets, and with the process engine its record and log.

`root` is 0700, so that what lies below is its owner's alone on the host. The secrets' own directory and files are
readable by everybody *below* that door, because a container sees just them, as uid 65534, through a bind mount.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path


class ReplicaDirs:
    """All replica directories of one cluster on one kind of engine. Nothing is made before `prepare`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(self.root, 0o700)

    def of(self, replica_id: str) -> Path:
        return self.root / replica_id

    def ids(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(entry.name for entry in self.root.iterdir() if not entry.name.startswith("."))
        return []

    def write_secrets(self, replica_id: str, secrets: Mapping[str, str]) -> Path | None:
        """The directory with one file per secret, None where there is none."""
        if not secrets:
            return None
        self.prepare()
        directory = self.of(replica_id) / "secrets"
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        # mkdir's mode is cut by the umask; a container's user must be able to list it.
        os.chmod(directory, 0o755)
        for name, value in secrets.items():
            _write_readable(directory / name, value)
        return directory

    def remove(self, replica_id: str) -> None:
        """Whole or not at all for readers: it is renamed first. Absence is success, anything else is raised."""
        hidden = self.root / f".{replica_id}.removed"
        try:
            os.rename(self.of(replica_id), hidden)
        except FileNotFoundError:
            if not hidden.exists():
                return
        except OSError:  # an earlier removal was cut short and left `hidden` with something in it
            shutil.rmtree(hidden)
            os.rename(self.of(replica_id), hidden)
        shutil.rmtree(hidden)


def _write_readable(path: Path, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o444)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), 0o444)
        file.write(value)
