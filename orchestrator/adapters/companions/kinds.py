"""What a companion is (`Kind`), what somebody wants of it (`Settings`), and all that one runs with (`Recipe`).

Values alone. A recipe is made for one home directory, for inside a container that is another one than outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orchestrator.adapters._build_context import digest_of
from orchestrator.core.errors import UnavailableError

# In a wheel beside the package, in a checkout beside the packages.
_SHIPPED = (Path(__file__).parents[2] / "configs", Path(__file__).parents[3] / "configs")


class CompanionFailed(UnavailableError):  # noqa: N818
    """It does not run; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Kind:
    """`name` stands in paths, labels, events and the manifest's key, `title` in sentences.

    `image` is the official one, `entrypoint` its program; `dockerfile` (below `configs/`, "": none) makes another on
    the base of the worker images. `programs` are looked for on the PATH, and `words` come between one found there and a
    recipe's arguments. `reloads`: SIGHUP has it read its files again. `memory_bytes` limits a container.
    """

    name: str
    title: str
    image: str
    entrypoint: tuple[str, ...]
    programs: tuple[str, ...]
    words: Callable[[str], tuple[str, ...]]
    advice: str
    health: str
    memory_bytes: int
    dockerfile: str = ""
    reloads: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """The first argument names a file of the home directory: no other process has such a word.

    `files` are by path below that directory. `secrets` are files of it with a random word in them, which are made once.
    """

    arguments: tuple[str, ...]
    files: Mapping[str, bytes]
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()

    def digest(self, kind: Kind) -> str:
        """Of all that takes another start to change."""
        variables = [f"{name}={value}" for name, value in sorted(self.environment.items())]
        words = [kind.image, str(kind.memory_bytes), *kind.entrypoint, *self.arguments, *variables]
        return digest_of(*(word.encode() for word in words), b"" if kind.reloads else self.content().encode())

    def content(self) -> str:
        """Digest of the files."""
        return digest_of(*(part for name, content in sorted(self.files.items()) for part in (name.encode(), content)))


class Settings(Protocol):
    """What a manifest wants of one companion. Equal ones want the same."""

    @property
    def port(self) -> int: ...

    @property
    def url(self) -> str: ...

    def facts(self) -> dict[str, str]:
        """Every setting in words, by its name in the manifest."""

    def recipe(self, home: Path) -> Recipe: ...


def shipped(name: str) -> Path:
    """A file or directory of `configs/`, as it came with the package."""
    return next((path / name for path in _SHIPPED if (path / name).exists()), _SHIPPED[-1] / name)
