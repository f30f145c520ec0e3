"""Digests of local files by path and stamp (size, modification time, inode, device): a file that kept all is unchanged.

Only a cache: a lost or broken file of it costs a second reading, never a wrong answer. A file that was modified in the
last two seconds is not remembered, because a second write within the clock's grain would leave its stamp as it is.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.adapters._tree_digest import TreeFile, file_digest
from orchestrator.adapters.state_dir import write_private

_GRAIN_S = 2.0


class DigestCache:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, list[object]] | None = None
        # Guards the entries and the file; not held while files are read.
        self._lock = threading.Lock()

    def through(self, compute: Callable[[Callable[[TreeFile], str]], str]) -> str:
        """The result of `compute`, which is given a function that digests files by way of the cache."""
        fresh: dict[str, list[object]] = {}

        def digest_of(file: TreeFile) -> str:
            known = self._known().get(str(file.path.absolute()))
            if known is not None and known[:-1] == list(file.stamp):
                return str(known[-1])
            digest = file_digest(file.path)
            if time.time() - file.stamp[1] / 1e9 > _GRAIN_S:
                fresh[str(file.path.absolute())] = [*file.stamp, digest]
            return digest

        result = compute(digest_of)
        if fresh:
            self._add(fresh)
        return result

    def prune(self) -> None:
        """Forgets files that are gone."""
        with self._lock:
            entries = self._load()
            kept = {path: entry for path, entry in entries.items() if Path(path).exists()}
            if len(kept) != len(entries):
                self._save(kept)

    def _known(self) -> dict[str, list[object]]:
        with self._lock:
            return self._load()

    def _add(self, fresh: dict[str, list[object]]) -> None:
        with self._lock:
            self._save({**self._load(), **fresh})

    def _load(self) -> dict[str, list[object]]:
        if self._entries is None:
            try:
                self._entries = dict(json.loads(self._path.read_text()))
            except (OSError, ValueError, TypeError):
                self._entries = {}
        return self._entries

    def _save(self, entries: dict[str, list[object]]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._path, json.dumps(entries).encode())
        self._entries = entries
