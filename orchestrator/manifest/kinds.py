"""What one value may be: how it is read from a node, what its rule is in words, and its JSON Schema.

A kind reads a scalar's text as written, by YAML 1.2's idea of numbers and booleans (`yes` and `on` are texts). What it
cannot read it reports and answers `INVALID`, so that reading goes on and later rules stay quiet about it. `groups.py`
has the kinds that hold others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Protocol

from orchestrator.manifest.diagnostics import Path, Problems, did_you_mean, shown
from orchestrator.manifest.nodes import Mapping, Node, Scalar, Sequence, locate, what_is

Json = dict[str, Any]

KI, MI, GI = 2**10, 2**20, 2**30
DAY_S = 86_400


class _Invalid:
    def __repr__(self) -> str:
        return "INVALID"


# Stands for a value that was written but is wrong; it never leaves this package.
INVALID: Final = _Invalid()

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?")
_SIZE = re.compile(r"([1-9][0-9]{0,17})(K|M|G|Ki|Mi|Gi)?")
_DURATION = re.compile(r"([1-9][0-9]{0,17})(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True, slots=True)
class Report:
    """Takes the errors of one file, by path, and finds where each stands."""

    root: Node
    problems: Problems

    def add(self, path: Path, message: str, *, key: bool = False) -> None:
        """`key`: the key itself is wrong, not its value."""
        mark = locate(self.root, path, key=key)
        self.problems.add(mark.line, mark.column, path, message)


class Kind(Protocol):
    """Reads one value. `rule` completes "write …"."""

    @property
    def rule(self) -> str: ...

    def read(self, node: Node, path: Path, report: Report) -> Any:
        """The value, or `INVALID` after it was reported."""

    def build(self, value: Any) -> Any:
        """What the manifest holds for a value that `read` gave."""

    def schema(self) -> Json: ...


class ScalarKind:
    """What the kinds of a single value share. `_parse` gives the value, or raises `ValueError` with what is wrong."""

    rule: str

    def read(self, node: Node, path: Path, report: Report) -> Any:
        try:
            if isinstance(node, (Mapping, Sequence)) or node.is_null:
                raise ValueError(f"{what_is(node)} stands where one value belongs")
            return self._parse(node)
        except ValueError as exc:
            report.add(path, f"{exc}; write {self.rule}")
            return INVALID

    def build(self, value: Any) -> Any:
        return value

    def _parse(self, scalar: Scalar) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Integer(ScalarKind):
    """A whole number. `note` ends the sentence about one that is out of range."""

    least: int
    most: int
    note: str = ""

    @property
    def rule(self) -> str:  # type: ignore[override]
        return f"a whole number in {self.least}..{self.most}{self.note and f'; {self.note}'}"

    def _parse(self, scalar: Scalar) -> int:
        _check_unquoted(scalar, _INTEGER)
        if not _INTEGER.fullmatch(scalar.text):
            raise ValueError(f"{shown(scalar.text)} is not a whole number")
        return int(_in_range(int(scalar.text), self.least, self.most, scalar.text))

    def schema(self) -> Json:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class AutoOr(ScalarKind):
    """A whole number, or the word `auto`."""

    number: Integer

    @property
    def rule(self) -> str:  # type: ignore[override]
        return f"auto, or {self.number.rule}"

    def _parse(self, scalar: Scalar) -> int | str:
        return "auto" if scalar.text == "auto" else self.number._parse(scalar)

    def schema(self) -> Json:
        return {"anyOf": [{"enum": ["auto"]}, self.number.schema()]}


@dataclass(frozen=True)
class Number(ScalarKind):
    least: float
    most: float

    @property
    def rule(self) -> str:  # type: ignore[override]
        return f"a number in {self.least:.15g}..{self.most:.15g}"

    def _parse(self, scalar: Scalar) -> float:
        _check_unquoted(scalar, _NUMBER)
        if not _NUMBER.fullmatch(scalar.text):
            raise ValueError(f"{shown(scalar.text)} is not a number")
        return _in_range(float(scalar.text), self.least, self.most, scalar.text)

    def schema(self) -> Json:
        return {"type": "number", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Duration(ScalarKind):
    """A length of time with its unit, in seconds. `least` and `most` are written so too."""

    least: str
    most: str

    @property
    def rule(self) -> str:  # type: ignore[override]
        return f"a whole number with ms, s, m or h, such as 60s, in {self.least}..{self.most}"

    def _parse(self, scalar: Scalar) -> float:
        value = self._seconds(scalar.text)
        if value is None:
            raise ValueError(f"{shown(scalar.text)} is not a length of time")
        return _in_range(value, self._seconds(self.least) or 0, self._seconds(self.most) or 0, scalar.text)

    def schema(self) -> Json:
        return {"type": "string", "pattern": f"^{_DURATION.pattern}$"}

    @staticmethod
    def _seconds(text: str) -> float | None:
        match = _DURATION.fullmatch(text)
        return None if match is None else int(match[1]) * _SECONDS[match[2]]


@dataclass(frozen=True)
class Size(ScalarKind):
    """A number of bytes, with or without a unit."""

    least: int
    most: int

    @property
    def rule(self) -> str:  # type: ignore[override]
        example = min(max(512 * 2**20, self.least), self.most)
        return (
            f"a whole number with K, M, G, Ki, Mi, Gi or no unit (bytes), such as {size_text(example)}, "
            f"in {size_text(self.least)}..{size_text(self.most)}"
        )

    def _parse(self, scalar: Scalar) -> int:
        match = _SIZE.fullmatch(scalar.text)
        if not match:
            raise ValueError(f"{shown(scalar.text)} is not a size")
        value = int(match[1]) * _UNITS[match[2] or ""]
        return int(_in_range(value, self.least, self.most, scalar.text))

    def schema(self) -> Json:
        return {"type": ["string", "integer"], "pattern": f"^{_SIZE.pattern}$", "minimum": self.least}


@dataclass(frozen=True)
class Flag(ScalarKind):
    rule = "true or false"

    def _parse(self, scalar: Scalar) -> bool:
        if not scalar.plain or scalar.text.lower() not in ("true", "false"):
            raise ValueError(f"{shown(scalar.text)} is not a boolean")
        return scalar.text.lower() == "true"

    def schema(self) -> Json:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Choice(ScalarKind):
    """One word of a few. `later` are words that a later release takes."""

    options: tuple[str, ...]
    later: tuple[str, ...] = ()

    @property
    def rule(self) -> str:  # type: ignore[override]
        return " or ".join((", ".join(self.options[:-1]), self.options[-1]))

    def _parse(self, scalar: Scalar) -> str:
        if scalar.text in self.options:
            return scalar.text
        if scalar.text in self.later:
            raise ValueError(f"{shown(scalar.text)} has no effect in this release")
        near = did_you_mean(scalar.text, self.options)
        hint = f"; did you mean {shown(near)}?" if near else ""
        raise ValueError(f"{shown(scalar.text)} is not known{hint}")

    def schema(self) -> Json:
        # A word of digits is a number to an editor.
        numbers = [int(option) for option in self.options if option.isdigit()]
        return {"enum": [*self.options, *numbers]}


@dataclass(frozen=True)
class IntegerOr(ScalarKind):
    """A whole number, or one word that stands for `value`."""

    word: str
    value: int
    number: Integer

    @property
    def rule(self) -> str:  # type: ignore[override]
        return f"{self.word} or {self.number.rule}"

    def _parse(self, scalar: Scalar) -> int:
        return self.value if scalar.text == self.word else self.number._parse(scalar)

    def schema(self) -> Json:
        return {"anyOf": [{"enum": [self.word]}, self.number.schema()]}


@dataclass(frozen=True)
class Text(ScalarKind):
    """A text that matches `pattern` whole. Numbers and booleans are taken as the text they were written as.

    `is_shown` is false where a secret may stand by mistake: messages then do not repeat what was written.
    """

    rule: str
    pattern: str = r"[^\x00-\x1f\x7f]+"
    longest: int = 4096
    is_shown: bool = True

    def matches(self, text: str) -> bool:
        return re.fullmatch(self.pattern, text) is not None

    def _parse(self, scalar: Scalar) -> str:
        if len(scalar.text) > self.longest:
            raise ValueError(f"{len(scalar.text)} characters are more than {self.longest}")
        if not self.matches(scalar.text):
            raise ValueError(f"{shown(scalar.text) if self.is_shown else 'this'} is not allowed")
        return scalar.text

    def schema(self) -> Json:
        return {"type": ["string", "number", "boolean"], "pattern": f"^(?:{self.pattern})$", "maxLength": self.longest}


def size_text(value: int) -> str:
    """`512Mi`: the shortest exact form with a binary unit."""
    for unit in ("Gi", "Mi", "Ki"):
        if value and value % _UNITS[unit] == 0:
            return f"{value // _UNITS[unit]}{unit}"
    return str(value)


def duration_text(value_s: float) -> str:
    """`10m`: the shortest exact form with one unit."""
    for unit in ("h", "m", "s", "ms"):
        count = round(value_s / _SECONDS[unit], 6)
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{value_s:g}s"


def _check_unquoted(scalar: Scalar, form: re.Pattern[str]) -> None:
    if not scalar.plain and form.fullmatch(scalar.text):
        raise ValueError(f'"{scalar.text}" is quoted, which makes it a text; remove the quotes')


def _in_range(value: float, least: float, most: float, written: str) -> float:
    if not least <= value <= most:
        raise ValueError(f"{written} is out of range")
    return value
