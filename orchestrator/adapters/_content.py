"""The content-addressed directories of an `ArtifactStore`: made whole or not at all, read-only, named by their digest.

Owns the layout below the root and nothing of where content comes from: `artifacts.py` brings it.

    DIGEST/          an artifact: files 0444, folders 0555      .partial-KEY/   a download that can go on
    .fetch-*/        scratch of a fetch that runs               .locks/         what must be done once at a time
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters._locks import file_lock
from orchestrator.adapters._tree_digest import tree_files
from orchestrator.core.errors import NotFoundError, UnavailableError

SCRATCH = ".fetch-"
PARTIAL = ".partial-"
# Unfinished downloads wait this long for somebody to go on with them.
KEEP_PARTIAL_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model's files in the store. `path` is a directory, also for a source that is one file."""

    digest: str
    path: Path
    size_bytes: int


class ContentStore:
    """All artifacts below `root`. Safe for several threads and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # Brought by this process: someone is about to refer to them, so `remove_unreferenced` leaves them alone until
        # they were named in a `keep` once. Guarded by the lock.
        self._new: set[str] = set()
        self._lock = threading.Lock()

    def path(self, digest: str) -> Path:
        """Where a stored artifact lies. Raises `NotFoundError`."""
        path = self.root / digest
        if not digest or not path.is_dir():
            raise NotFoundError(f"artifact {digest[:12]}: not in {self.root}; it was removed; apply again to fetch it")
        return path

    def find(self, digest: str) -> Artifact | None:
        """What an earlier fetch stored, without looking at its source."""
        path = self.root / digest
        if not digest or not path.is_dir():
            return None
        return Artifact(digest, path, sum(file.size_bytes for file in tree_files(path)))

    def claim(self, digest: str) -> Artifact | None:
        """What `find` gives. From now on nobody removes what has this digest before it was named in a `keep`."""
        if not digest:
            return None
        with self._lock:
            self._new.add(digest)
            return self.find(digest)

    @contextlib.contextmanager
    def once(self, name: str) -> Iterator[None]:
        """One holder of `name` at a time on this machine."""
        with file_lock(self.root / ".locks" / f"{name}.lock"):
            yield

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=self.root))
        try:
            yield scratch
        finally:
            if scratch.exists():
                _remove_tree(scratch)

    def store(self, scratch: Path, digest: str) -> Artifact:
        """Makes a scratch directory the artifact of that digest. The caller holds it `once`."""
        _make_read_only(scratch)
        final = self.root / digest
        os.rename(scratch, final)
        # Renaming a directory needs write permission on it (its `..` changes), so its own mode comes last.
        os.chmod(final, 0o555)
        _sync_directory(self.root)
        stored = self.find(digest)
        assert stored is not None
        return stored

    def check_room(self, source: str, size_bytes: int) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if size_bytes > free:
            raise UnavailableError(
                f"{source}: {size_bytes:,} bytes, but {free:,} are free under {self.root}; free some disk space"
            )

    def partial(self, key: str) -> Path:
        """Where a download lies that another process may go on with."""
        return self.root / f"{PARTIAL}{key}"

    def remove_scratch(self) -> None:
        """Removes what fetches left that were killed, but downloads that can go on. Only for the one owner of the
        store, before its first fetch.
        """
        for path in self.root.glob(f"{SCRATCH}*"):
            _remove_tree(path)
        self._remove_old_downloads()

    def remove_unreferenced(self, keep: set[str]) -> set[str]:
        """Removes what is not in `keep`, and answers what stayed."""
        with self._lock:
            self._new -= keep
            kept = keep | self._new
            for path in self._artifacts():
                if path.name not in kept:
                    _remove_tree(path)
        self._remove_old_downloads()
        return kept

    def _artifacts(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        return [p for p in self.root.iterdir() if p.is_dir() and len(p.name) == 64]

    def _remove_old_downloads(self) -> None:
        for path in self.root.glob(f"{PARTIAL}*"):
            newest = max((each.stat().st_mtime for each in [path, *path.iterdir()]), default=0.0)
            if time.time() - newest > KEEP_PARTIAL_S:
                shutil.rmtree(path, ignore_errors=True)


def _make_read_only(root: Path) -> None:
    """0444 and 0555: readable by a container's user, writable by nobody. The root itself is left to the caller."""
    for directory, _, names in os.walk(root, topdown=False):
        for name in names:
            os.chmod(os.path.join(directory, name), 0o444)
        if Path(directory) != root:
            os.chmod(directory, 0o555)


def _remove_tree(root: Path) -> None:
    hidden = root.with_name(f".removed-{root.name.lstrip('.')}")
    os.chmod(root, 0o700)
    os.rename(root, hidden)
    for directory, _, _ in os.walk(hidden):
        os.chmod(directory, 0o700)
    shutil.rmtree(hidden)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
