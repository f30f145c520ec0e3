"""What a remote source is to the store: a listing of files with what tells their state, and the bytes of each.

`Remote` is implemented once a kind of place (`web.py`, `filesystems.py`, `hub.py`, `mlflow.py`); `places.py` chooses.
A remote raises `UserError` and `UnavailableError` with whole sentences, or one of the two errors below, which only
`transfer.py` catches. It never writes to disk, and blocks: use a thread.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.core.errors import UnavailableError

GIB = 1024**3
DEFAULT_MAX_BYTES = 256 * GIB
# Files of one source that come at a time.
PARALLEL_FILES = 4


class TransientError(Exception):
    """Worth another try. `pause_s` is what the other side asked for, 0 if nothing. `str()` says what happened."""

    def __init__(self, sentence: str, pause_s: float = 0.0) -> None:
        super().__init__(sentence)
        self.pause_s = pause_s


class ChangedError(Exception):
    """The file is not any more what was listed."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One header field for one host."""

    header: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """What a manifest says of fetching: the most bytes of one source, and credentials by host or `host:port`."""

    max_bytes: int = DEFAULT_MAX_BYTES
    credentials: Mapping[str, Credential] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Patience:
    """How a failed transfer is tried again: the first pause, the longest, and failures in a row without progress."""

    first_pause_s: float = 0.5
    longest_pause_s: float = 20.0
    attempts: int = 6


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file: `name` below the source with `/`, `where` for its remote alone.

    `size_bytes` is None where nothing tells. `validator` changes whenever the content does; "" where nothing tells.
    `sha256` is what the place itself says of the content, "" if nothing.
    """

    name: str
    where: str
    size_bytes: int | None = None
    validator: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of a source now. `is_file`: the source is one file and no folder."""

    files: tuple[RemoteFile, ...]
    is_file: bool = False

    @property
    def size_bytes(self) -> int | None:
        sizes = [file.size_bytes for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def state(self) -> str:
        """A digest that changes whenever the content may have; "" where nothing tells."""
        if not self.files or any(not file.validator for file in self.files):
            return ""
        facts = [[file.name, file.size_bytes, file.validator] for file in self.files]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class Remote(Protocol):
    def listing(self) -> Listing:
        """Asks cheaply: no content is read."""

    def read(self, file: RemoteFile, offset: int) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """(where the bytes begin, bytes). They begin at `offset`, or at 0 where the place can only send all."""

    def close(self) -> None: ...


class Stop:
    """Ends every transfer of a store soon after it is set, and every pause at once."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def check(self) -> None:
        if self._event.is_set():
            raise UnavailableError("fetching ended with the control plane; the next one goes on where it stopped")

    def sleep(self, seconds: float) -> None:
        self._event.wait(seconds)
        self.check()
