"""Cuts one model out of a manifest's text, or reads it, and leaves every other character as its author wrote it.

Works by the marks of the nodes, never by writing YAML anew: comments and formatting survive. The comment lines directly
above a model belong to it, and so do those below it that are indented deeper. A cut that would change anything else is
refused.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from typing import Any

from orchestrator.core.errors import NotFoundError, UserError
from orchestrator.manifest.diagnostics import ManifestError, Problems, dotted, shown, unknown_name
from orchestrator.manifest.nodes import Entry, Mapping, Node, Scalar, parse

_FILE = "manifest"


@dataclass(frozen=True, slots=True)
class _Place:
    """A model in the text: `parent` is the entry of `models`, `models` its value, `entry` the model's."""

    root: Mapping
    parent: Entry
    models: Mapping
    entry: Entry


def without_model(text: str, name: str) -> str:
    """`text` without one model; `models: {}` remains of the last. Raises `NotFoundError`, or `UserError` where only a
    person can cut (another section refers to an anchor in this one)."""
    place = _find(text, name)
    if len(place.models.entries) == 1:
        result = _emptied(text, place)
    elif place.models.flow:
        start, end = _flow_span(place)
        result = text[:start] + text[end:]
    else:
        result = _without_lines(text, place)
    _verify(result, place.root, name)
    return result


def section(text: str, model: str) -> str:
    """The YAML of one model with its comments, not indented. Raises `NotFoundError`."""
    place = _find(text, model)
    if place.models.flow:
        return text[place.entry.key.start.offset : place.entry.value.end.offset] + "\n"
    lines = text.splitlines(keepends=True)
    start, end = _line_span(lines, place.entry)
    return textwrap.dedent("".join(lines[start:end])).rstrip() + "\n"


def _find(text: str, name: str) -> _Place:
    root = _parsed(text)
    parent = root.entries.get("models") if isinstance(root, Mapping) else None
    models = parent.value if parent else None
    known = models.entries if isinstance(models, Mapping) else {}
    if not isinstance(root, Mapping) or not isinstance(models, Mapping) or parent is None or name not in known:
        raise NotFoundError(f"model {shown(name)}: not in the manifest; {unknown_name(name, known)}")
    return _Place(root, parent, models, known[name])


def _parsed(text: str) -> Node:
    problems = Problems(_FILE)
    root = parse(text, problems)
    problems.raise_if_any()
    return root


def _emptied(text: str, place: _Place) -> str:
    if place.models.flow:
        return text[: place.models.start.offset] + "{}" + text[place.models.end.offset :]
    rest = text[place.parent.key.end.offset :]
    colon = re.match(r"\s*:", rest)
    after = place.parent.key.end.offset + (colon.end() if colon else 0)
    head, tail = text[:after], _without_lines(text, place)[after:]
    return f"{head} {{}}{tail}"


def _flow_span(place: _Place) -> tuple[int, int]:
    """From this key to the next; the last one takes the comma before it along."""
    entries = list(place.models.entries.values())
    at = entries.index(place.entry)
    if at + 1 < len(entries):
        return place.entry.key.start.offset, entries[at + 1].key.start.offset
    return entries[at - 1].value.end.offset, place.entry.value.end.offset


def _without_lines(text: str, place: _Place) -> str:
    lines = text.splitlines(keepends=True)
    start, end = _line_span(lines, place.entry)
    opens = start == place.parent.key.start.line or not lines[start - 1].strip()
    while opens and end < len(lines) and not lines[end].strip():
        end += 1
    return "".join(lines[:start] + lines[end:])


def _line_span(lines: list[str], entry: Entry) -> tuple[int, int]:
    """The lines [start, end) of a model in block style, counted from 0."""
    indent = entry.key.start.column - 1
    start = entry.key.start.line - 1
    while start > 0 and _comment_indent(lines[start - 1]) == indent:
        start -= 1
    last = entry.value.end
    end = last.line - 1 if last.column == 1 else last.line
    for number in range(end, len(lines)):
        below = _comment_indent(lines[number])
        if below is not None and below > indent:
            end = number + 1
        elif lines[number].strip():
            break
    return start, end


def _comment_indent(line: str) -> int | None:
    """How far a comment line is indented; None for any other line."""
    content = line.lstrip(" ")
    return len(line) - len(content) if content.startswith("#") else None


def _verify(result: str, before: Mapping, name: str) -> None:
    """The cut must have removed this model and nothing else."""
    wanted = _plain(before)
    del wanted["models"][name]
    try:
        done = _plain(_parsed(result)) == wanted
    except ManifestError:
        done = False
    if not done:
        raise UserError(
            f"{dotted(('models', name))}: cannot be cut out by itself; an alias elsewhere needs an anchor in it, or it "
            "shares a line with another section; edit the file by hand and apply it"
        )


def _plain(node: Node) -> Any:
    if isinstance(node, Scalar):
        return None if node.is_null else node.text
    if isinstance(node, Mapping):
        return {key: _plain(entry.value) for key, entry in node.entries.items()}
    return [_plain(item) for item in node.items]
