"""Unpacks an archive that nobody vouches for: files and folders alone, inside the target, within bounds.

Nothing is taken from the archive but names and content: no owner, mode, time or device. A link becomes a copy of the
file in the archive that it leads to, and any other link refuses the archive. Bounds hold for what is really written,
whatever the archive says of itself, so that a bomb ends at them.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, cast

from orchestrator.adapters.sources.remote import Stop
from orchestrator.core.errors import UnavailableError, UserError
from orchestrator.core.sources import archive_suffix

MAX_MEMBERS = 100_000
MAX_DEPTH = 64
_CHUNK_BYTES = 1024 * 1024
_SPARED_BYTES = 64 * 1024 * 1024
_MAX_LINKS = 40
# Names and attributes of one tar member, which tarfile holds in memory; larger ones are no names.
_MAX_HEADER_BYTES = 1024 * 1024
_HEADER_TYPES = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, NotImplementedError,
    RuntimeError, ValueError,
)  # fmt: skip


class _BoundedHeader(tarfile.TarInfo):
    """Refuses a header that claims gigabytes before tarfile reads them into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _HEADER_TYPES and found.size > _MAX_HEADER_BYTES:
            raise ValueError(f"a header of {found.size:,} bytes")
        return found


@dataclass(frozen=True, slots=True)
class Member:
    """One entry: a folder, a file with a way to its content, or a link to another name of the archive."""

    name: str
    is_folder: bool = False
    link: str = ""
    open: Callable[[], AbstractContextManager[IO[bytes]]] | None = None


class Unpacking:
    """One archive into one empty directory."""

    def __init__(
        self, source: str, archive: Path, name: str, target: Path, max_bytes: int, free_bytes: int, stop: Stop
    ) -> None:
        self._source = source
        self._archive = archive
        self._suffix = archive_suffix(name)
        self._target = target
        self._max_bytes = max_bytes
        self._free_bytes = free_bytes
        self._stop = stop
        self._written = 0
        self._links: dict[str, str] = {}

    def run(self) -> None:
        """Raises `UserError` for what cannot be taken whole."""
        try:
            for count, member in enumerate(self._members(), 1):
                self._stop.check()
                if count > MAX_MEMBERS:
                    raise self._refused(f"more than {MAX_MEMBERS:,} files", "pack the model's own files alone")
                self._take(member)
        except _BROKEN as exc:
            raise self._refused(f"no whole {self._suffix} archive ({exc})", "pack it again") from exc
        for name in self._links:
            self._copy_link(name)
        self._drop_wrapper()

    def _take(self, member: Member) -> None:
        path = self._place(member.name)
        if path == self._target:
            return
        try:
            if member.is_folder:
                path.mkdir(parents=True, exist_ok=True)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise self._refused(f"{member.name!r} is both a file and a folder", "pack it again") from None
        if member.link:
            self._links[_plain(member.name)] = member.link
        elif member.open is not None:
            with member.open() as reader:
                self._write(reader, path, member.name)

    def _write(self, reader: IO[bytes], path: Path, name: str) -> None:
        try:
            writer = path.open("xb")
        except (FileExistsError, IsADirectoryError):
            raise self._refused(f"{name!r} is in it twice", "pack it again") from None
        with writer:
            while chunk := reader.read(_CHUNK_BYTES):
                self._stop.check()
                self._written += len(chunk)
                if self._written > self._max_bytes:
                    raise self._refused(
                        f"more than {self._max_bytes:,} bytes unpacked, which `sources.max_size` allows", "raise it"
                    )
                if self._written > self._free_bytes:
                    raise UnavailableError(
                        f"{self._source}: its archive fills the disk ({self._free_bytes:,} bytes were free for it); "
                        f"free some disk space"
                    )
                writer.write(chunk)

    def _place(self, name: str) -> Path:
        """Where a member goes. The target is empty at first and holds no links, so that names alone decide."""
        plain = _plain(name)
        parts = plain.split("/") if plain else []
        if name.startswith(("/", "\\")) or ".." in name.split("/") or "\0" in name or "\\" in name:
            raise self._refused(f"{name!r} would be written elsewhere", "pack it again with names inside one folder")
        if len(parts) > MAX_DEPTH or any(len(part.encode(errors="surrogateescape")) > 255 for part in parts):
            raise self._refused(f"{name[:60]!r}… is too long a name", "shorten it")
        return self._target.joinpath(*parts)

    # -- links -------------------------------------------------------------------------------------------------

    def _copy_link(self, name: str) -> None:
        """Instead of the link, what it leads to: a stored model is files alone."""
        end = name
        for _ in range(_MAX_LINKS):
            if end not in self._links:
                break
            end = self._links[end]
        path = self._target / end if end and not end.startswith("..") else None
        if path is None or not path.is_file():
            raise self._refused(
                f"the link {name!r} leads to no file in it", "pack the file itself (`tar --dereference`)"
            )
        with path.open("rb") as reader:
            self._write(reader, self._target / name, name)

    def _drop_wrapper(self) -> None:
        """`tar czf model.tgz model/` wraps all in one folder, which is no part of the model."""
        inside = list(self._target.iterdir())
        if len(inside) != 1 or not inside[0].is_dir():
            return
        wrapper = inside[0].rename(self._target.with_name(f"{self._target.name}.wrapper"))
        self._target.rmdir()
        wrapper.rename(self._target)

    # -- formats -----------------------------------------------------------------------------------------------

    def _members(self) -> Iterator[Member]:
        if self._suffix == ".zip":
            yield from self._zip_members()
        else:
            yield from self._tar_members()

    def _tar_members(self) -> Iterator[Member]:
        # As a stream: nothing is sought, and no index is built of what a bomb claims.
        with (
            _decompressed(self._archive) as stream,
            tarfile.open(fileobj=stream, mode="r|", tarinfo=_BoundedHeader) as archive,
        ):
            for each in archive:
                if each.isdir():
                    yield Member(each.name, is_folder=True)
                elif each.isreg():
                    yield Member(each.name, open=lambda each=each: _opened(archive, each))  # type: ignore[misc]
                elif each.issym() or each.islnk():
                    below = posixpath.dirname(_plain(each.name)) if each.issym() else ""
                    yield Member(each.name, link=self._link(each, below))
                else:
                    raise self._refused(f"{each.name!r} is neither a file nor a folder", "pack it without")

    def _link(self, each: tarfile.TarInfo, below: str) -> str:
        if each.linkname.startswith("/"):
            raise self._refused(
                f"the link {each.name!r} leads to {each.linkname!r}, out of it",
                "pack the file itself (`tar --dereference`)",
            )
        return posixpath.normpath(posixpath.join(below, each.linkname))

    def _zip_members(self) -> Iterator[Member]:
        with zipfile.ZipFile(self._archive) as archive:
            for each in archive.infolist():
                kind = stat.S_IFMT(each.external_attr >> 16)
                if each.flag_bits & 1:
                    raise self._refused(f"{each.filename!r} has a password", "pack it without")
                if each.is_dir():
                    yield Member(each.filename, is_folder=True)
                elif kind in (0, stat.S_IFREG):
                    yield Member(each.filename, open=lambda each=each: archive.open(each))  # type: ignore[misc]
                else:
                    raise self._refused(f"{each.filename!r} is neither a file nor a folder", "pack the file itself")

    def _refused(self, what: str, remedy: str) -> UserError:
        return UserError(f"{self._source}: an archive that cannot be taken: {what}; {remedy}, or write `unpack: false`")


def unpack(source: str, archive: Path, name: str, target: Path, max_bytes: int, stop: Stop) -> None:
    """Unpacks `archive`, which is called `name`, into the empty directory `target`. Raises `UserError`."""
    free = shutil.disk_usage(target).free
    # The rest of the machine needs some of it too.
    Unpacking(source, archive, name, target, max_bytes, max(0, free - _SPARED_BYTES), stop).run()


def _decompressed(archive: Path) -> IO[bytes]:
    """By the first bytes: some servers decompress what they send, and some authors forget to compress."""
    with archive.open("rb") as file:
        head = file.read(6)
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(archive, "rb"))
    if head.startswith(b"BZh"):
        return bz2.open(archive, "rb")
    if head.startswith(b"\xfd7zXZ"):
        return lzma.open(archive, "rb")
    return archive.open("rb")


def _plain(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> AbstractContextManager[IO[bytes]]:
    opened = archive.extractfile(member)
    assert opened is not None
    return opened
