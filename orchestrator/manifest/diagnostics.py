"""What is wrong with a manifest and where: `Diagnostic`, the collection of them, and the words they share.

Everything that finds a fault adds it to one `Problems`, so that a user reads all of them at once. Nothing here knows
YAML or the fields of a manifest.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.core.errors import UserError

Path = tuple[str | int, ...]
# A file with more errors than this has one cause that is repeated; reading on would only cost time.
MAX_DIAGNOSTICS = 100
_LONGEST_SHOWN = 60
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error. `line` and `column` count from 1; `field` is "" where the whole file is meant."""

    file: str
    line: int
    column: int
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: "
        return f"{where}{self.field}: {self.message}" if self.field else f"{where}{self.message}"


class ManifestError(UserError):
    """A manifest that cannot be used. `diagnostics` are sorted by line; `str()` has one a line."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        # A fault behind an alias is met once for each use, at the same place.
        ordered = sorted(set(diagnostics), key=lambda d: (d.line, d.column, d.field, d.message))
        self.diagnostics: tuple[Diagnostic, ...] = tuple(ordered)
        super().__init__("\n".join(map(str, self.diagnostics)))


class Problems:
    """The errors found in one file so far. Raises `ManifestError` by itself when there are too many to be read."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[Diagnostic] = []

    def add(self, line: int, column: int, path: Path, message: str) -> None:
        self.found.append(Diagnostic(self.file, line, column, dotted(path), message))
        if len(self.found) >= MAX_DIAGNOSTICS:
            raise ManifestError(self.found)

    def raise_if_any(self) -> None:
        if self.found:
            raise ManifestError(self.found)


def dotted(path: Path) -> str:
    """`models.iris.versions["1.10"].source`: names that hold more than letters, digits, - and _ are bracketed."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_NAME.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f'["{shortened(part)}"]'
    return text


def shortened(text: str) -> str:
    """`text` on one line and no longer than a message can bear."""
    escaped = text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    return escaped if len(escaped) <= _LONGEST_SHOWN else escaped[: _LONGEST_SHOWN - 1] + "…"


def shown(text: str) -> str:
    return f"'{shortened(text)}'"


def listed(names: Iterable[str], most: int = 12) -> str:
    """`a, b and 3 more`, for a message that names what does exist."""
    all_names = [shortened(name) for name in names]
    if len(all_names) <= most:
        return ", ".join(all_names)
    return f"{', '.join(all_names[:most])} and {len(all_names) - most} more"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known name that is nearest to `name`, or "" if none is near."""
    options = list(known)
    if len(name) > _LONGEST_SHOWN:
        return ""
    by_case = [option for option in options if option.lower() == name.lower()]
    near = by_case or difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    return near[0] if near else ""


def unknown_name(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that does not exist: a suggestion, else the names that do."""
    options = list(known)
    near = did_you_mean(name, options)
    return f"did you mean {shown(near)}?" if near else f"there are: {listed(options) or 'none'}"
