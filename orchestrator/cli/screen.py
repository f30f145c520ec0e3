"""Where a command's words go: Rich on a terminal, plain text in a pipe, JSON for scripts.

Owns colour, width and layout, and knows nothing of models. Plain text has no colour, no boxes, and no width: a line
is as long as what it says, so that grep and awk see whole values. Rich is imported only where a terminal wants it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# A piece of text, or one with its Rich style.
Span = str | tuple[str, str]
Cell = Span | list[Span]


@dataclass(frozen=True, slots=True)
class Column:
    """`wraps`: may break into lines where a terminal is narrow; others keep their value whole."""

    title: str
    right: bool = False
    wraps: bool = False


@dataclass(slots=True)
class Grid:
    columns: Sequence[Column]
    rows: list[Sequence[Cell]] = field(default_factory=list)

    def add(self, *cells: Cell) -> None:
        self.rows.append(cells)


class Screen:
    """One output stream."""

    def __init__(self, stream: TextIO, *, color: bool = True) -> None:
        self.stream = stream
        self.is_terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._color = color and not os.environ.get("NO_COLOR")

    @cached_property
    def console(self) -> Console:
        from rich.console import Console

        # Without a colour system not even bold is written: a terminal that was asked for plain text gets it.
        return Console(
            file=self.stream, highlight=False, markup=False, emoji=False, force_terminal=True,
            color_system="auto" if self._color else None,
        )  # fmt: skip

    @property
    def width(self) -> int | None:
        """Columns of the terminal, None where lines have no end."""
        return self.console.width if self.is_terminal else None

    def line(self, *spans: Span) -> None:
        """One line of text; a terminal folds it at words."""
        if self.is_terminal:
            self.console.print(rich_text(spans), soft_wrap=False)
        else:
            self.write(plain_text(spans) + "\n")

    def long_line(self, *spans: Span) -> None:
        """One line that must stay whole, for it is copied or is not ours: a command, a log line, source text."""
        if self.is_terminal:
            self.console.print(rich_text(spans), soft_wrap=True)
        else:
            self.write(plain_text(spans) + "\n")

    def table(self, grid: Grid) -> None:
        if self.is_terminal:
            self.console.print(rich_table(grid))
        else:
            self.write("".join(f"{line}\n" for line in plain_table(grid)))

    def json(self, value: Any, *, one_line: bool = False) -> None:
        """`one_line` for a stream of values."""
        layout: dict[str, Any] = {"separators": (",", ":")} if one_line else {"indent": 2}
        self.write(json.dumps(value, ensure_ascii=False, **layout) + "\n")

    def write(self, text: str) -> None:
        # Names and log lines may hold what this stream's encoding lacks; a lost character must not end a command.
        encoding = self.stream.encoding or "utf-8"
        self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        self.stream.flush()


def rich_text(spans: Sequence[Span]) -> Text:
    from rich.text import Text

    return Text.assemble(*(_harmless(span) for span in spans))


def plain_text(spans: Sequence[Span]) -> str:
    return "".join(_harmless(span)[0] for span in spans)


def rich_table(grid: Grid) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold dim")
    for column in grid.columns:
        justify = "right" if column.right else "left"
        table.add_column(column.title, justify=justify, no_wrap=not column.wraps, overflow="fold")  # type: ignore[arg-type]
    for row in grid.rows:
        table.add_row(*(rich_text(_spans(cell)) for cell in row))
    return table


def plain_table(grid: Grid) -> list[str]:
    rows = [[column.title for column in grid.columns]]
    # An empty cell would shift the fields that awk counts.
    rows += [[" ".join(plain_text(_spans(cell)).split("\n")) or "-" for cell in row] for row in grid.rows]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join(_justified(grid.columns, widths, row)).rstrip() for row in rows]


def _justified(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str]) -> list[str]:
    return [
        cell.rjust(width) if column.right else cell.ljust(width)
        for column, width, cell in zip(columns, widths, row, strict=True)
    ]


def _spans(cell: Cell) -> list[Span]:
    return cell if isinstance(cell, list) else [cell]


# What a model prints reaches a terminal through us: escape sequences in it could retitle or rewrite that terminal.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def _harmless(span: Span) -> tuple[str, str]:
    text, style = (span, "") if isinstance(span, str) else span
    return text.translate(_CONTROL), style
