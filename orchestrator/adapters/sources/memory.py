"""What earlier fetches taught: the content that a source had in a state, and what an archive unpacks to.

Only a memory: what is lost or broken costs a second download and never a wrong answer, for an entry holds only while
the source is still in the state that was seen. Sources are kept by a digest of their address, so that nothing of it,
secret or not, is written here.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Container
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.adapters.state_dir import write_private
from orchestrator.core.sources import Source, identity


@dataclass(frozen=True, slots=True)
class Known:
    """A source in `state` had the content `digest`; `file_sha256` is that of the one file it was, "" for a folder."""

    state: str
    digest: str
    file_sha256: str


class SourceMemory:
    """Kept in one file. Safe for threads of one process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, dict[str, str]] | None = None
        # Guards the entries and the file.
        self._lock = threading.Lock()

    def of(self, source: Source) -> Known | None:
        return self._get(key_of(source))

    def learn(self, source: Source, known: Known) -> None:
        self._put(key_of(source), known)

    def unpacked(self, archive_sha256: str, suffix: str) -> str:
        """The digest of what an archive unpacks to, "" if it was never unpacked."""
        known = self._get(f"{archive_sha256}{suffix}")
        return known.digest if known else ""

    def learn_unpacked(self, archive_sha256: str, suffix: str, digest: str) -> None:
        self._put(f"{archive_sha256}{suffix}", Known("", digest, archive_sha256))

    def forget_all_but(self, digests: Container[str]) -> None:
        with self._lock:
            entries = self._load()
            kept = {key: entry for key, entry in entries.items() if entry["digest"] in digests}
            if len(kept) != len(entries):
                self._save(kept)

    def _get(self, key: str) -> Known | None:
        with self._lock:
            entry = self._load().get(key)
            return Known(**entry) if entry else None

    def _put(self, key: str, known: Known) -> None:
        with self._lock:
            if self._load().get(key) != asdict(known):
                self._save({**self._load(), key: asdict(known)})

    def _load(self) -> dict[str, dict[str, str]]:
        if self._entries is None:
            try:
                found = json.loads(self._path.read_text())
                self._entries = {str(key): asdict(Known(**entry)) for key, entry in found.items()}
            except (OSError, ValueError, TypeError, AttributeError):
                self._entries = {}
        return self._entries

    def _save(self, entries: dict[str, dict[str, str]]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._path, json.dumps(entries).encode())
        self._entries = entries


def key_of(source: Source) -> str:
    """Names a source, the same for every signature of its address and every pin."""
    return hashlib.sha256(f"{source.unpack} {identity(source.text)}".encode()).hexdigest()[:40]
