"""Model files by content: a source (path or fsspec URL) is copied once into a read-only directory named by its SHA-256.

Replicas mount that copy, so that editing or deleting a source never changes what runs. An artifact is there whole or
not at all (made beside its place, renamed into it). Digests of local files are remembered by path, size, times and
inode, so that planning an unchanged large model reads nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec

from orchestrator.adapters._digest_cache import DigestCache
from orchestrator.adapters._locks import file_lock
from orchestrator.adapters._tree_digest import CHUNK_BYTES, TreeFile, file_digest, tree_digest, tree_files
from orchestrator.core.errors import NotFoundError, UnavailableError, UserError

_PROGRESS_STEP_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model's files in the store. `path` is a directory, also for a source that is one file."""

    digest: str
    path: Path
    size_bytes: int


SCRATCH = ".fetch-"


class ArtifactStore:
    """All artifacts below `root`. Safe for several threads and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._cache = DigestCache(root / "digests.json")
        # Fetched by this process: someone is about to refer to them, so `remove_unreferenced` leaves them alone until
        # they were named in a `keep` once. Guarded by the lock.
        self._new: set[str] = set()
        self._lock = threading.Lock()

    def digest(self, source: str, base_dir: Path) -> str:
        """The SHA-256 of the source's content. A remote source is fetched for it, as nothing else tells it surely."""
        local = local_path(source, base_dir)
        if local is None:
            return self.fetch(source, base_dir).digest
        with _explained(source):
            return self._digest(_files_of(source, local))

    def fetch(self, source: str, base_dir: Path, progress: Callable[[str], None] | None = None) -> Artifact:
        """Copies the source into the store, if it is not there. Raises `UserError` or `UnavailableError`."""
        say = progress or _silent
        local = local_path(source, base_dir)
        with _explained(source):
            if local is None:
                return self._fetch_remote(source, say)
            return self._fetch_local(source, local, say)

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

    def remove_scratch(self) -> None:
        """Removes what fetches left that were killed. Only for the one owner of the store, before its first fetch."""
        for path in self.root.glob(f"{SCRATCH}*"):
            _remove_tree(path)

    def remove_unreferenced(self, keep: set[str]) -> None:
        """Removes what is not in `keep`. The caller knows what runs and what history can roll back to."""
        with self._lock:
            self._new -= keep
            for path in self._artifacts():
                if path.name not in keep and path.name not in self._new:
                    _remove_tree(path)
        self._cache.prune()

    # -- below -------------------------------------------------------------------------------------------------------

    def _artifacts(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        return [p for p in self.root.iterdir() if p.is_dir() and len(p.name) == 64]

    def _digest(self, files: list[TreeFile]) -> str:
        return self._cache.through(lambda digest_of: tree_digest(files, digest_of))

    def _fetch_local(self, source: str, local: Path, say: Callable[[str], None]) -> Artifact:
        files = _files_of(source, local)
        digest = self._digest(files)
        with self._lock:
            self._new.add(digest)
            if found := self.find(digest):
                return found
        with file_lock(self._lock_dir() / f"{digest}.lock"):
            if found := self.find(digest):
                return found
            self._check_room(source, sum(file.size_bytes for file in files))
            with self._scratch() as scratch:
                _copy_files(files, scratch, say)
                copied = tree_digest(tree_files(scratch), lambda file: file_digest(file.path))
                if copied != digest or _stamps(_files_of(source, local)) != _stamps(files):
                    raise UserError(f"source {source}: changed while it was copied; let its writer finish; apply again")
                return self._store(scratch, digest)

    def _fetch_remote(self, source: str, say: Callable[[str], None]) -> Artifact:
        say(f"fetching {source}")
        with self._scratch() as scratch:
            _download(source, scratch)
            files = tree_files(scratch)
            _check_content(source, files)
            digest = tree_digest(files, lambda file: file_digest(file.path))
            with self._lock:
                self._new.add(digest)
            with file_lock(self._lock_dir() / f"{digest}.lock"):
                return self.find(digest) or self._store(scratch, digest)

    def _store(self, scratch: Path, digest: str) -> Artifact:
        _make_read_only(scratch)
        final = self.root / digest
        os.rename(scratch, final)
        # Renaming a directory needs write permission on it (its `..` changes), so its own mode comes last.
        os.chmod(final, 0o555)
        _sync_directory(self.root)
        stored = self.find(digest)
        assert stored is not None
        return stored

    def _lock_dir(self) -> Path:
        return self.root / ".locks"

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=self.root))
        try:
            yield scratch
        finally:
            if scratch.exists():
                _remove_tree(scratch)

    def _check_room(self, source: str, size_bytes: int) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if size_bytes > free:
            raise UnavailableError(
                f"source {source}: {size_bytes:,} bytes, but {free:,} are free under {self.root}; free some disk space"
            )


def local_path(source: str, base_dir: Path) -> Path | None:
    """The path that `source` names, relative ones from `base_dir` (the manifest's); None for a remote URL."""
    parts = urlsplit(source)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "://" in source or "::" in source:
        return None
    return base_dir / Path(source).expanduser()


def _files_of(source: str, local: Path) -> list[TreeFile]:
    if not local.exists() and not local.is_symlink():
        raise UserError(
            f"source {source}: {local} does not exist; a source is a file, a directory or a URL; correct it"
        )
    files = tree_files(local)
    _check_content(source, files)
    return files


def _check_content(source: str, files: list[TreeFile]) -> None:
    if not files:
        raise UserError(f"source {source}: an empty directory; it must hold the model's files; put them there")
    if all(file.size_bytes == 0 for file in files):
        raise UserError(
            f"source {source}: every file in it is empty; was its copy cut off; put the model's files there"
        )


def _stamps(files: list[TreeFile]) -> list[tuple[str, tuple[int, int, int, int]]]:
    return [(file.name, file.stamp) for file in files]


def _copy_files(files: list[TreeFile], target: Path, say: Callable[[str], None]) -> None:
    total = sum(file.size_bytes for file in files)
    done = said = 0
    say(f"copying {len(files)} {'file' if len(files) == 1 else 'files'}, {total / 1e6:,.1f} MB")
    for file in files:
        destination = target / file.name
        destination.parent.mkdir(parents=True, exist_ok=True)
        with file.path.open("rb") as reader, destination.open("wb") as writer:
            while chunk := reader.read(CHUNK_BYTES):
                writer.write(chunk)
                done += len(chunk)
                if done - said >= _PROGRESS_STEP_BYTES:
                    said = done
                    say(f"copied {done / 1e9:.1f} of {total / 1e9:.1f} GB")
            writer.flush()
            os.fsync(writer.fileno())


def _download(source: str, target: Path) -> None:
    filesystem, path = _remote(source)
    if filesystem.isdir(path):
        # The separator says: what is inside, not the directory itself.
        filesystem.get(path.rstrip("/") + "/", f"{target}/", recursive=True)
    elif filesystem.exists(path):
        filesystem.get_file(path, str(target / path.rstrip("/").rpartition("/")[2]))
    else:
        raise UserError(f"source {source}: does not exist there, or may not be seen with these credentials; correct it")


def _remote(source: str) -> tuple[Any, str]:
    try:
        filesystem, path = fsspec.core.url_to_fs(source)
    except ImportError as exc:
        raise UserError(f"source {source}: {exc}; `pip install` that package beside modelfleet") from exc
    except ValueError as exc:
        raise UserError(
            f"source {source}: {exc}; use a path or a URL that fsspec knows (s3://, gs://, https://)"
        ) from exc
    return filesystem, str(path)


@contextlib.contextmanager
def _explained(source: str) -> Iterator[None]:
    """Errors of disks and remote stores, which come in many types, as a sentence with whose fault it is."""
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UnavailableError(f"source {source}: the disk is full; free some space and apply again") from exc
        if exc.errno in (errno.EACCES, errno.EPERM):
            raise UserError(
                f"source {source}: {exc.filename or ''} may not be read; give its reader permission"
            ) from exc
        if exc.errno == errno.ENOENT:
            raise UserError(f"source {source}: {exc.filename or ''} was not found; correct the path") from exc
        raise UnavailableError(f"source {source}: could not be read: {exc}; try again, or correct the source") from exc
    except (UserError, UnavailableError):
        raise
    except Exception as exc:
        # fsspec's back ends raise their own libraries' types; the list would never be complete.
        raise UnavailableError(
            f"source {source}: could not be fetched: {exc}; see its credentials and address"
        ) from exc


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


def _silent(sentence: str) -> None:
    """Progress for nobody."""
