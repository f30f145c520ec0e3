"""The last good table on disk, for a start without a control plane. It is always whole.

A table that came whole is written as it came, at once. After a delta the table is written anew, a little later, so that
many changes in a row cost one writing; what is not written yet when the gateway ends is written then. Requests go on
meanwhile: the text is made in stretches, and a thread writes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from router.contract import TableError, encode, encode_in_steps
from router.server import Gateway
from router.stretches import in_stretches

# 10,000 models are 30 ms of work: one part in a hundred, however often the table changes.
WRITE_AFTER_S: Final = 3.0
_writings = itertools.count(1)


class KeptTable:
    """The kept table of one gateway, in the file `path`; None keeps none."""

    def __init__(self, gateway: Gateway, path: Path | None) -> None:
        self._gateway = gateway
        self._path = path
        self._later: asyncio.Task[None] | None = None
        # Guards the file: of two writings the one that began later has the newer table.
        self._writing = asyncio.Lock()

    async def keep(self, pieces: Iterable[bytes]) -> None:
        """Writes the table in force, whose text is at hand."""
        if self._path is not None:
            async with self._writing:
                with self._reported():
                    await asyncio.to_thread(_write, self._path, pieces)

    def note_change(self) -> None:
        """The table in force is another than the one on disk."""
        if self._path is not None and (self._later is None or self._later.done()):
            self._later = asyncio.create_task(self._write_later(), name="kept table")

    def close(self) -> None:
        """Writes at once what waits to be written."""
        table = self._gateway.held.table
        if self._later is None or self._later.done() or self._path is None or table is None:
            return
        self._later.cancel()
        with self._reported():
            _write(self._path, [encode(table)])

    async def _write_later(self) -> None:
        await asyncio.sleep(WRITE_AFTER_S)
        table = self._gateway.held.table
        if table is not None:
            await self.keep(await in_stretches(encode_in_steps(table)))

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """A disk that is full stops no table from being in force."""
        try:
            yield
        except OSError as exc:
            self._gateway.log.warning("table not kept on disk", file=str(self._path), reason=str(exc))


async def load_cache(gateway: Gateway) -> None:
    """Applies the table kept on disk, if there is a good one."""
    path = Path(gateway.config.table_cache)
    try:
        await gateway.load(await asyncio.to_thread(path.read_bytes))
    except FileNotFoundError:
        return
    except (OSError, TableError) as exc:
        gateway.log.warning("kept table refused", file=str(path), reason=str(exc))


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    """Replaces the file in one step; readable by its owner alone. Several processes of a gateway may do so at once."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{next(_writings)}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
