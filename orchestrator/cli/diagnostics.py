"""Prints what is wrong with a manifest: file:line:col: message, and on a terminal the line itself with a caret."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.screen import Screen
from orchestrator.core.sources import redacted

if TYPE_CHECKING:
    from orchestrator.cli.errors import Diagnostic

_WIDEST_SOURCE = 160


def show(screen: Screen, diagnostics: Sequence[Diagnostic]) -> None:
    lines: dict[str, list[str]] = {}
    for each in diagnostics:
        where = f"{each.file}:{each.line}:{each.column}: "
        field = f"{each.field}: " if each.field else ""
        screen.line((where, "bold"), (field, "cyan"), each.message)
        if screen.is_terminal:
            _show_source(screen, each, lines)


def _show_source(screen: Screen, each: Diagnostic, lines: dict[str, list[str]]) -> None:
    source = lines.setdefault(each.file, _lines_of(Path(each.file)))
    if not 1 <= each.line <= len(source):
        return
    # A tab is as wide as the terminal likes; one column for it keeps the caret below its character.
    text = redacted(source[each.line - 1].replace("\t", " "))
    first = max(0, each.column - _WIDEST_SOURCE // 2)
    gutter = f"{each.line:>6} | "
    screen.long_line((gutter, "dim"), text[first : first + _WIDEST_SOURCE])
    screen.long_line((" " * 6 + " | ", "dim"), " " * (each.column - 1 - first), ("^", "bold red"))


def _lines_of(path: Path) -> list[str]:
    """The file's lines, none where it cannot be read: the diagnostic stands without them."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
