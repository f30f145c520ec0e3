"""The digest of a file tree: the names of its files and their content, and nothing that copying would change.

Modes, times and owners do not count. A symbolic link counts as what it leads to and must not leave the tree; what is
neither a file nor a directory is refused. Reading is in chunks: a model may be larger than memory.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.errors import UserError

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One file of a tree. `name` is its path below the root with `/`, `stamp` changes whenever the file does."""

    name: str
    path: Path
    size_bytes: int
    stamp: tuple[int, int, int, int]


def tree_files(root: Path) -> list[TreeFile]:
    """All files, sorted by name; `root` may be a single file. Raises `UserError` for what cannot be taken."""
    real_root = root.resolve()
    if real_root.is_file():
        return [_tree_file(root.name, real_root)]
    found = [_tree_file(path.relative_to(root).as_posix(), path) for path in _walk(root, real_root)]
    return sorted(found, key=lambda file: file.name)


def tree_digest(files: list[TreeFile], digest_of: Callable[[TreeFile], str]) -> str:
    """SHA-256 over each name and content digest. Names are hashed by length too: no two trees can look the same."""
    hasher = hashlib.sha256(b"modelfleet tree 1\n")
    for file in files:
        name = file.name.encode(errors="surrogateescape")
        hasher.update(len(name).to_bytes(8, "big") + name + bytes.fromhex(digest_of(file)))
    return hasher.hexdigest()


def file_digest(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def _walk(directory: Path, real_root: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(directory), key=lambda e: e.name):
        path = Path(entry.path)
        if entry.is_symlink():
            _check_link(path, real_root)
        if entry.is_dir():
            yield from _walk(path, real_root)
        else:
            yield path


def _check_link(path: Path, real_root: Path) -> None:
    target = path.resolve()
    if not target.is_relative_to(real_root):
        raise UserError(
            f"source {path}: a symbolic link to {os.readlink(path)}; links must stay inside the source, as only "
            f"that is copied; put the file itself there"
        )
    if path.parent.resolve().is_relative_to(target):
        raise UserError(f"source {path}: a symbolic link to a directory that holds it; the tree never ends; remove it")


def _tree_file(name: str, path: Path) -> TreeFile:
    try:
        facts = path.stat()
    except FileNotFoundError:
        raise UserError(f"source {path}: a symbolic link to nothing; remove it or put the file there") from None
    if not stat.S_ISREG(facts.st_mode):
        raise UserError(
            f"source {path}: a {_kind(facts.st_mode)}; a source holds files and directories only; take it out of there"
        )
    return TreeFile(name, path, facts.st_size, (facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_dev))


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket", stat.S_IFBLK: "device", stat.S_IFCHR: "device"}
    return kinds.get(stat.S_IFMT(mode), "special file")
