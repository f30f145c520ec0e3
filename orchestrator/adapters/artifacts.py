"""Model files by content: a source is brought once into a read-only directory named by the SHA-256 of its files.

Replicas mount that copy, so that editing or deleting a source never changes what runs. An artifact is there whole or
not at all (made beside its place, renamed into it). Local files are known again by path, size, times and inode, remote
ones by what `sources/` tells of their state, so that planning what did not change reads nothing; the content decides.
`sources/transfer.py` downloads, `sources/unpack.py` opens archives.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.adapters._content import Artifact, ContentStore
from orchestrator.adapters._digest_cache import DigestCache
from orchestrator.adapters._tree_digest import CHUNK_BYTES, TreeFile, file_digest, tree_digest, tree_files
from orchestrator.adapters.sources.memory import Known, SourceMemory, key_of
from orchestrator.adapters.sources.places import open_remote
from orchestrator.adapters.sources.remote import Access, ChangedError, Listing, Patience, Remote, Stop
from orchestrator.adapters.sources.transfer import LOOK_ATTEMPTS, Download, Meter, Report, patiently
from orchestrator.adapters.sources.unpack import unpack
from orchestrator.core.errors import UnavailableError, UserError
from orchestrator.core.sources import Source, archive_suffix, is_remote, path_of_file_url, redacted

# A source that changes while it is read is read again so often.
READINGS = 3
# How long what a plan read is good for its apply, where nothing but the content tells of a change.
FRESH_S = 300.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a source told: the digest of its content, or "" where only a fetch can tell.

    `size_bytes` is what a fetch would bring, None if unknown. `state` names what was seen, to compare two looks.
    """

    digest: str
    size_bytes: int | None = None
    state: str = ""


class ArtifactStore:
    """All artifacts below `root`. Safe for several threads and processes."""

    def __init__(self, root: Path, patience: Patience | None = None) -> None:
        self.content = ContentStore(root)
        self._patience = patience or Patience()
        self._stop = Stop()
        self._cache = DigestCache(root / "digests.json")
        self._memory = SourceMemory(root / "sources.json")
        # When this process read a remote source to its end, by the source's key. Guarded by the lock.
        self._read_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Ends what other threads fetch, soon; what they have is kept for the next process."""
        self._stop.set()

    def look(self, source: Source, base_dir: Path, access: Access | None = None) -> Seen:
        """What the source is now, as cheaply as it can be known. Raises `UserError` or `UnavailableError`."""
        with _explained(source):
            local = local_path(source.text, base_dir)
            if local is not None:
                return Seen(self._look_local(source, local, access or Access()))
            if found := self._pinned(source):
                return Seen(found.digest)
            return self._look_remote(source, access or Access())

    def fetch(
        self, source: Source, base_dir: Path, access: Access | None = None, report: Report | None = None
    ) -> Artifact:
        """Brings the source into the store, if it is not there. Raises `UserError` or `UnavailableError`.

        `report` is told of bytes done and in all, from any thread.
        """
        with _explained(source):
            local = local_path(source.text, base_dir)
            if local is not None:
                return self._fetch_local(source, local, access or Access(), report or _silent)
            if found := self._pinned(source):
                return found
            return self._fetch_remote(source, access or Access(), report or _silent)

    @property
    def root(self) -> Path:
        return self.content.root

    def path(self, digest: str) -> Path:
        """Where a stored artifact lies. Raises `NotFoundError`."""
        return self.content.path(digest)

    def find(self, digest: str) -> Artifact | None:
        """What an earlier fetch stored, without looking at its source."""
        return self.content.find(digest)

    def remove_scratch(self) -> None:
        """Removes what killed fetches left. Only for the one owner of the store, before its first fetch."""
        self.content.remove_scratch()

    def remove_unreferenced(self, keep: set[str]) -> None:
        """Removes what is not in `keep`. The caller knows what runs and what history can roll back to."""
        self._memory.forget_all_but(self.content.remove_unreferenced(keep))
        self._cache.prune()

    # -- what is known -------------------------------------------------------------------------------------------

    def _pinned(self, source: Source) -> Artifact | None:
        """What is known to have the wanted SHA-256: no source needs to be asked for it."""
        if not source.sha256:
            return None
        known = self._memory.of(source)
        if known and source.sha256 in (known.file_sha256, known.digest):
            return self.content.claim(known.digest)
        return self.content.claim(source.sha256)

    # -- local sources -------------------------------------------------------------------------------------------

    def _look_local(self, source: Source, local: Path, access: Access) -> str:
        files = _files_of(source, local)
        if not (suffix := self._is_archive(source, local)):
            return self._checked(source, self._digest(files), files)
        archive = self._cache.through(lambda digest_of: digest_of(files[0]))
        digest = self._memory.unpacked(archive, suffix) or self._fetch_local(source, local, access, _silent).digest
        _check_pin(source, digest, archive)
        return digest

    def _fetch_local(self, source: Source, local: Path, access: Access, report: Report) -> Artifact:
        files = _files_of(source, local)
        if suffix := self._is_archive(source, local):
            return self._fetch_archive(source, files[0], suffix, access)
        digest = self._checked(source, self._digest(files), files)
        if found := self.content.claim(digest):
            return found
        with self.content.once(digest):
            if found := self.content.find(digest):
                return found
            self.content.check_room(f"source {source}", sum(file.size_bytes for file in files))
            with self.content.scratch() as scratch:
                self._copy_files(files, scratch, report)
                copied = tree_digest(tree_files(scratch), lambda file: file_digest(file.path))
                if copied != digest or _stamps(_files_of(source, local)) != _stamps(files):
                    raise UserError(f"source {source}: changed while it was copied; let its writer finish; apply again")
                return self.content.store(scratch, digest)

    def _fetch_archive(self, source: Source, file: TreeFile, suffix: str, access: Access) -> Artifact:
        archive = self._cache.through(lambda digest_of: digest_of(file))
        if known := self.content.claim(self._memory.unpacked(archive, suffix)):
            _check_pin(source, known.digest, archive)
            return known
        artifact, read = self._take(source, [(file.name, file.path)], access, is_file=True)
        if read != archive:
            raise UserError(f"source {source}: changed while it was read; let its writer finish; apply again")
        return artifact

    @staticmethod
    def _is_archive(source: Source, local: Path) -> str:
        return archive_suffix(local.name) if source.unpack and local.is_file() else ""

    def _digest(self, files: list[TreeFile]) -> str:
        return self._cache.through(lambda digest_of: tree_digest(files, digest_of))

    def _checked(self, source: Source, digest: str, files: list[TreeFile]) -> str:
        """The digest of local files, if it is the one that is wanted."""
        if source.sha256 and source.sha256 != digest:
            alone = self._cache.through(lambda digest_of: digest_of(files[0])) if len(files) == 1 else ""
            _check_pin(source, digest, alone)
        return digest

    def _copy_files(self, files: list[TreeFile], target: Path, report: Report) -> None:
        meter = Meter(sum(file.size_bytes for file in files), report)
        for file in files:
            destination = target / file.name
            destination.parent.mkdir(parents=True, exist_ok=True)
            with file.path.open("rb") as reader, destination.open("wb") as writer:
                while chunk := reader.read(CHUNK_BYTES):
                    self._stop.check()
                    writer.write(chunk)
                    meter.add(len(chunk))
                writer.flush()
                os.fsync(writer.fileno())

    # -- remote sources ------------------------------------------------------------------------------------------

    def _look_remote(self, source: Source, access: Access) -> Seen:
        with self._remote(source, access) as remote:
            listing = self._listed(source, remote)
        if digest := self._digest_of_state(source, listing):
            return Seen(digest, listing.size_bytes, listing.state)
        if listing.state:
            return Seen("", listing.size_bytes, listing.state)
        # Nothing but its content tells whether it changed.
        return Seen(self._fetch_remote(source, access, _silent, is_fresh=False).digest, listing.size_bytes)

    def _fetch_remote(self, source: Source, access: Access, report: Report, *, is_fresh: bool = True) -> Artifact:
        """One download a source at a time on this host; who waited for it finds what it brought.

        `is_fresh`: a source whose state cannot be told may be taken as this process read it a moment ago for a plan.
        """
        with self.content.once(f"source-{key_of(source)}"), self._remote(source, access) as remote:
            for _ in range(READINGS):
                self._stop.check()
                if found := self._pinned(source):
                    return found
                listing = self._listed(source, remote)
                if known := self.content.claim(self._digest_of_state(source, listing)):
                    return known
                if is_fresh and not listing.state and (read := self._just_read(source)):
                    return read
                with contextlib.suppress(ChangedError):
                    return self._bring(source, access, remote, listing, report)
        raise UserError(f"source {source}: changes again and again while it is fetched; let its writer finish")

    def _bring(self, source: Source, access: Access, remote: Remote, listing: Listing, report: Report) -> Artifact:
        place = self.content.partial(key_of(source))
        download = Download(
            f"source {source}", remote, listing, place, access.max_bytes, self._patience, self._stop, report
        )
        brought = download.run()
        if listing.state and self._listed(source, remote).state != listing.state:
            raise ChangedError
        files = [(file.name, path) for file, path in brought]
        artifact, alone = self._take(source, files, access, listing.is_file)
        self._memory.learn(source, Known(listing.state, artifact.digest, alone))
        with self._lock:
            self._read_at[key_of(source)] = time.monotonic()
        shutil.rmtree(place)
        return artifact

    @contextlib.contextmanager
    def _remote(self, source: Source, access: Access) -> Iterator[Remote]:
        remote = open_remote(source.text, access)
        try:
            yield remote
        finally:
            remote.close()

    def _listed(self, source: Source, remote: Remote) -> Listing:
        patience = replace(self._patience, attempts=min(LOOK_ATTEMPTS, self._patience.attempts))
        listing = patiently(remote.listing, f"source {source}", patience, self._stop)
        _check_listing(source, listing)
        return listing

    def _digest_of_state(self, source: Source, listing: Listing) -> str:
        """The digest that the source had in the state that was listed now, "" if that was never fetched."""
        known = self._memory.of(source)
        if known is None or not listing.state or known.state != listing.state:
            return ""
        _check_pin(source, known.digest, known.file_sha256)
        return known.digest

    def _just_read(self, source: Source) -> Artifact | None:
        known = self._memory.of(source)
        with self._lock:
            read_at = self._read_at.get(key_of(source))
        if known is None or read_at is None or time.monotonic() - read_at > FRESH_S:
            return None
        return self.content.claim(known.digest)

    # -- into the store ------------------------------------------------------------------------------------------

    def _take(
        self, source: Source, files: list[tuple[str, Path]], access: Access, is_file: bool
    ) -> tuple[Artifact, str]:
        """Makes an artifact of files that lie on this disk, unpacked if they are an archive; with the SHA-256 of the
        one file, "" if the source is none.
        """
        name = files[0][0] if is_file else ""
        suffix = archive_suffix(name) if source.unpack else ""
        alone = file_digest(files[0][1]) if is_file else ""
        with self.content.scratch() as scratch:
            if suffix:
                unpack(f"source {source}", files[0][1], name, scratch, access.max_bytes, self._stop)
            else:
                _link_files(files, scratch)
            found = tree_files(scratch)
            _check_content(source, found)
            digest = tree_digest(found, lambda file: alone if is_file and not suffix else file_digest(file.path))
            _check_pin(source, digest, alone)
            if suffix:
                self._memory.learn_unpacked(alone, suffix, digest)
            with self.content.once(digest):
                return self.content.claim(digest) or self.content.store(scratch, digest), alone


def local_path(source: str, base_dir: Path) -> Path | None:
    """The path that `source` names, relative ones from `base_dir` (the manifest's); None for a remote one."""
    if is_remote(source):
        return None
    if source.lower().startswith("file:"):
        return Path(path_of_file_url(source))
    return base_dir / Path(source).expanduser()


def _files_of(source: Source, local: Path) -> list[TreeFile]:
    if not local.exists() and not local.is_symlink():
        raise UserError(
            f"source {source}: {local} does not exist; a source is a file, a directory or a URL; correct it"
        )
    files = tree_files(local)
    _check_content(source, files)
    return files


def _check_content(source: Source, files: list[TreeFile]) -> None:
    if not files:
        raise UserError(f"source {source}: an empty directory; it must hold the model's files; put them there")
    if all(file.size_bytes == 0 for file in files):
        raise UserError(
            f"source {source}: every file in it is empty; was its copy cut off; put the model's files there"
        )


def _stamps(files: list[TreeFile]) -> list[tuple[str, tuple[int, int, int, int]]]:
    return [(file.name, file.stamp) for file in files]


def _check_listing(source: Source, listing: Listing) -> None:
    """Names come from elsewhere: none may lead out of the artifact, or be a file and a folder at once."""
    if not listing.files:
        raise UserError(f"source {source}: nothing is there; it must hold the model's files; correct the address")
    names = {file.name for file in listing.files}
    for file in listing.files:
        parts = file.name.split("/")
        if not {"", ".", ".."}.isdisjoint(parts) or "\0" in file.name or len(names) < len(listing.files):
            raise UserError(f"source {source}: {file.name!r} is no name of a file here; rename it there")
        if any("/".join(parts[:depth]) in names for depth in range(1, len(parts))):
            raise UserError(f"source {source}: {file.name!r} lies in what is a file too; rename one of them there")


def _check_pin(source: Source, digest: str, file_sha256: str) -> None:
    """For one file the wanted SHA-256 is what `sha256sum` prints, for a folder (and for a file too) our own digest."""
    if source.sha256 and source.sha256 not in (digest, file_sha256):
        raise UserError(
            f"source {source}: its SHA-256 is {file_sha256 or digest}, and the manifest wants {source.sha256}; put the "
            f"right content there, or correct `sha256`"
        )


def _link_files(files: list[tuple[str, Path]], target: Path) -> None:
    """Into `target` without copying: the download stays whole until the artifact is stored."""
    for name, path in files:
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, destination)
        except OSError as exc:
            if exc.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise
            shutil.copyfile(path, destination)


@contextlib.contextmanager
def _explained(source: Source) -> Iterator[None]:
    """Errors of this disk as a sentence with whose fault it is."""
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UnavailableError(
                f"source {source}: the disk is full; free some space and apply again: a download goes on where it "
                f"stopped"
            ) from exc
        if exc.errno in (errno.EACCES, errno.EPERM):
            raise UserError(
                f"source {source}: {exc.filename or ''} may not be read; give its reader permission"
            ) from exc
        if exc.errno == errno.ENOENT:
            raise UserError(f"source {source}: {exc.filename or ''} was not found; correct the path") from exc
        said = redacted(str(exc))
        raise UnavailableError(f"source {source}: could not be read: {said}; try again, or correct the source") from exc


def _silent(done_bytes: int, total_bytes: int | None) -> None:
    """Progress for nobody."""
