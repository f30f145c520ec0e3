"""Cuts one model out of a manifest's text, reads it, puts another in its place, or moves its traffic; every other
character stays as its author wrote it.

Works by the marks of the nodes, never by writing YAML anew: comments and formatting survive. The comment lines directly
above a model belong to it, and so do those below it that are indented deeper. An edit that would change anything else
is refused.
"""

from __future__ import annotations

import json
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
    wanted = _plain(place.root)
    del wanted["models"][name]
    _verify(result, wanted, ("models", name), "cut out")
    return result


def with_all_traffic(text: str, name: str, version: str) -> str:
    """`text` with all of a model's traffic on `version`. Versions that had a share stand there with 0 from now on.

    Raises `NotFoundError`, or `UserError` where only a person can write it.
    """
    place = _find(text, name)
    model = place.entry.value
    if not isinstance(model, Mapping) or not model.entries:
        raise NotFoundError(f"model {shown(name)}: has no versions in the manifest; there is nothing to move")
    traffic = model.entries.get("traffic")
    shares = traffic.value.entries if traffic and isinstance(traffic.value, Mapping) else {}
    if shares and traffic is not None and isinstance(traffic.value, Mapping):
        result = _reshared(text, traffic.value, version)
    elif traffic is not None:
        # `traffic:` without anything, or `{}`.
        colon = text.index(":", traffic.key.end.offset) + 1
        end = traffic.value.end.offset if isinstance(traffic.value, Mapping) else colon
        result = f"{text[:colon]} {_all_on(version)}{text[end:]}"
    else:
        result = _with_line(text, place, model, f"traffic: {_all_on(version)}")
    wanted = _plain(place.root)
    wanted["models"][name]["traffic"] = {**dict.fromkeys(shares, "0"), version: "100"}
    _verify(result, wanted, ("models", name, "traffic"), "changed")
    return result


def with_model(text: str, name: str, written: str) -> str:
    """`text` with a model as it is `written` (what `section` gives), in the place of the one of this name or after the
    last. Raises `UserError` where only a person can write it."""
    root = _parsed(text)
    parent = root.entries.get("models") if isinstance(root, Mapping) else None
    models = parent.value if parent else None
    if not isinstance(root, Mapping) or not isinstance(models, Mapping) or not models.entries:
        raise _by_hand(("models", name), "put in")
    if models.flow:
        last = list(models.entries.values())[-1].value.end.offset
        known = models.entries.get(name)
        start, end = (known.key.start.offset, known.value.end.offset) if known else (last, last)
        result = text[:start] + ("" if known else ", ") + written.rstrip() + text[end:]
    else:
        result = _with_lines(text, models, name, written)
    wanted = _plain(root)
    new_root = _parsed(written)
    wanted["models"][name] = _plain(new_root)[name] if isinstance(new_root, Mapping) else None
    _verify(result, wanted, ("models", name), "put in")
    return result


def _with_lines(text: str, models: Mapping, name: str, written: str) -> str:
    lines = text.splitlines(keepends=True)
    if not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    known = models.entries.get(name)
    neighbour = known or list(models.entries.values())[-1]
    start, end = _line_span(lines, neighbour)
    new = textwrap.indent(written, " " * (neighbour.key.start.column - 1))
    return "".join([*lines[: start if known else end], new, *lines[end:]])


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


def _reshared(text: str, shares: Mapping, version: str) -> str:
    """Every share where it stands, so that what is written beside it stays."""
    for name, entry in sorted(shares.entries.items(), key=lambda item: -item[1].value.start.offset):
        share = "100" if name == version else "0"
        text = text[: entry.value.start.offset] + share + text[entry.value.end.offset :]
    if version in shares.entries:
        return text
    first = next(iter(shares.entries.values())).key.start
    between = ", " if shares.flow else "\n" + " " * (first.column - 1)
    return f"{text[: first.offset]}{json.dumps(version)}: 100{between}{text[first.offset :]}"


def _with_line(text: str, place: _Place, model: Mapping, line: str) -> str:
    """A field more, before the first: above the comments that belong to that."""
    first = next(iter(model.entries.values())).key.start
    if model.flow:
        return f"{text[: first.offset]}{line}, {text[first.offset :]}"
    lines = text.splitlines(keepends=True)
    at = first.line - 1
    while at > place.entry.key.start.line and _comment_indent(lines[at - 1]) == first.column - 1:
        at -= 1
    return "".join([*lines[:at], " " * (first.column - 1) + line + "\n", *lines[at:]])


def _all_on(version: str) -> str:
    return f"{{{json.dumps(version)}: 100}}"


def _verify(result: str, wanted: Any, path: tuple[str, ...], what: str) -> None:
    """The edit must have done this and nothing else."""
    try:
        done = _plain(_parsed(result)) == wanted
    except ManifestError:
        done = False
    if not done:
        raise _by_hand(path, what)


def _by_hand(path: tuple[str, ...], what: str) -> UserError:
    return UserError(
        f"{dotted(path)}: cannot be {what} by itself; an alias elsewhere needs an anchor in it, or it shares a line "
        "with another section; edit the file by hand and apply it"
    )


def _plain(node: Node) -> Any:
    if isinstance(node, Scalar):
        return None if node.is_null else node.text
    if isinstance(node, Mapping):
        return {key: _plain(entry.value) for key, entry in node.entries.items()}
    return [_plain(item) for item in node.items]
