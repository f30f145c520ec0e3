"""Brings the files of a listing to this disk: several at a time, going on where an earlier transfer stopped.

A download has a directory of its own with two names a file, both made from what the file was when it was listed:
`ID.part` while bytes are missing, `ID.whole` after. So what is left of a killed process fits as long as the file did
not change, and never when it did. Nothing here knows schemes: a `Remote` gives the bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type

from orchestrator.adapters._tree_digest import file_digest
from orchestrator.adapters.sources.remote import (
    PARALLEL_FILES,
    ChangedError,
    Listing,
    Patience,
    Remote,
    RemoteFile,
    Stop,
    TransientError,
)
from orchestrator.core.errors import UnavailableError, UserError
from orchestrator.core.sources import redacted

T = TypeVar("T")

# Looking at a source is part of a plan, whose reader waits.
LOOK_ATTEMPTS = 3
REPORT_EVERY_S = 0.5

Report = Callable[[int, int | None], None]


class Meter:
    """Counts the bytes of one download, from several threads, and reports them at most every half second."""

    def __init__(self, total_bytes: int | None, report: Report) -> None:
        self._total_bytes = total_bytes
        self._report = report
        self._done_bytes = 0
        self._reported_at = 0.0
        # Guards the counts. Reports are made within it, so that they never go back.
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        if not count:
            return
        with self._lock:
            self._done_bytes += count
            now = time.monotonic()
            if now - self._reported_at >= REPORT_EVERY_S or self._done_bytes == self._total_bytes:
                self._reported_at = now
                self._report(self._done_bytes, self._total_bytes)


@dataclass(slots=True)
class Download:
    """One listing on its way into `place`. `run` may be called by one thread at a time on one place."""

    source: str
    remote: Remote
    listing: Listing
    place: Path
    max_bytes: int
    patience: Patience
    stop: Stop
    report: Report
    _meter: Meter = field(init=False)

    def run(self) -> list[tuple[RemoteFile, Path]]:
        """Every file with where it lies, whole. Raises `UserError`, `UnavailableError` or `ChangedError`."""
        self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = [(file, self._id(file)) for file in self.listing.files]
        self._remove_others({name for _, name in files})
        self._check_room()
        self._meter = Meter(self.listing.size_bytes, self.report)
        with ThreadPoolExecutor(PARALLEL_FILES, thread_name_prefix="download") as pool:
            futures = [pool.submit(self._bring, file, name) for file, name in files]
            done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
            for future in waiting:
                future.cancel()
        for future in done:
            future.result()
        return [(file, self.place / f"{name}.whole") for file, name in files]

    def _bring(self, file: RemoteFile, name: str) -> None:
        whole, part = self.place / f"{name}.whole", self.place / f"{name}.part"
        if whole.exists():
            self._meter.add(whole.stat().st_size)
            return
        if part.exists():
            self._meter.add(part.stat().st_size)
        patiently(
            lambda: self._go_on(file, part), self.source, self.patience, self.stop,
            progress=lambda: part.stat().st_size if part.exists() else 0,
        )  # fmt: skip
        self._check_content(file, part)
        os.rename(part, whole)

    def _go_on(self, file: RemoteFile, part: Path) -> None:
        """One connection's worth. Ends when the file is whole, raises `TransientError` when it was cut."""
        self.stop.check()
        have = part.stat().st_size if part.exists() else 0
        if file.size_bytes is not None and have >= file.size_bytes and (have or part.exists()):
            self._cut(part, file.size_bytes, have)
            return
        with self.remote.read(file, have) as (start, chunks), part.open("r+b" if part.exists() else "wb") as writer:
            self._meter.add(start - have)
            writer.truncate(start)
            writer.seek(start)
            at = start
            for chunk in chunks:
                self.stop.check()
                at += len(chunk)
                self._check_size(file, at)
                writer.write(chunk)
                self._meter.add(len(chunk))
            writer.flush()
            os.fsync(writer.fileno())
        if file.size_bytes is not None and at < file.size_bytes:
            raise TransientError(f"{redacted(file.name)} was cut off after {at:,} of {file.size_bytes:,} bytes")

    def _check_size(self, file: RemoteFile, at: int) -> None:
        if file.size_bytes is not None and at > file.size_bytes:
            raise ChangedError
        if at > self.max_bytes:
            raise UserError(_too_large(self.source, at, self.max_bytes))

    @staticmethod
    def _cut(part: Path, size: int, have: int) -> None:
        if have > size:
            part.unlink()
            raise ChangedError

    def _check_content(self, file: RemoteFile, part: Path) -> None:
        if file.sha256 and (got := file_digest(part)) != file.sha256:
            part.unlink()
            raise UnavailableError(
                f"{self.source}: {file.name} arrived with SHA-256 {got}, and {file.sha256} was promised; it was "
                f"damaged on its way; apply again"
            )

    def _check_room(self) -> None:
        total = self.listing.size_bytes or 0
        if total > self.max_bytes:
            raise UserError(_too_large(self.source, total, self.max_bytes))
        here = sum(path.stat().st_size for path in self.place.iterdir())
        free = shutil.disk_usage(self.place).free
        if total - here > free:
            raise UnavailableError(
                f"{self.source}: {total - here:,} bytes, but {free:,} are free under {self.place.parent}; free some "
                f"disk space"
            )

    def _remove_others(self, names: set[str]) -> None:
        for path in self.place.iterdir():
            if path.stem not in names:
                path.unlink()

    @staticmethod
    def _id(file: RemoteFile) -> str:
        # What cannot be known again is never gone on with.
        known = file.validator or file.sha256 or secrets.token_hex(16)
        facts = json.dumps([file.name, file.size_bytes, known])
        return hashlib.sha256(facts.encode()).hexdigest()[:40]


def patiently(
    call: Callable[[], T], source: str, patience: Patience, stop: Stop, progress: Callable[[], int] = lambda: 0
) -> T:
    """`call`, again after each `TransientError`, until that was `patience.attempts` times in a row without progress."""
    failures, furthest = 0, progress()

    def count(_: RetryCallState) -> None:
        nonlocal failures, furthest
        now = progress()
        failures = 1 if now > furthest else failures + 1
        furthest = max(furthest, now)

    def pause_s(state: RetryCallState) -> float:
        asked = state.outcome.exception() if state.outcome else None
        longest: float = min(patience.longest_pause_s, patience.first_pause_s * 2.0 ** (failures - 1))
        # Spread, so that many replicas of a control plane do not come back at one moment.
        own = longest * (0.5 + secrets.randbelow(501) / 1000)
        return max(own, asked.pause_s if isinstance(asked, TransientError) else 0.0)

    retrying = Retrying(
        retry=retry_if_exception_type(TransientError),
        after=count,
        stop=lambda _: failures >= patience.attempts,
        wait=pause_s,
        sleep=stop.sleep,
        reraise=True,
    )
    try:
        return retrying(call)
    except TransientError as exc:
        raise UnavailableError(
            f"{source}: {redacted(str(exc))}; tried {patience.attempts} times; see that it can be reached, and apply "
            f"again: it goes on where it stopped"
        ) from exc


def _too_large(source: str, size: int, most: int) -> str:
    return f"{source}: {size:,} bytes or more; `sources.max_size` allows {most:,}; raise it, or name a smaller source"
