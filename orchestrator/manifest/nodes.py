"""YAML text to a tree that knows where everything stands, within bounds.

Owns the limits on size, depth, nodes and aliases, duplicate keys, and the refusal of what a manifest has no use for
(tags, merge keys, several documents). Scalars keep their text as written: `1.10`, `08` and `on` stay names, and what is
a number or a boolean is decided by the field that reads it (`kinds.py`). Never builds a Python object that YAML asks
for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, NoReturn

import yaml

from orchestrator.manifest.diagnostics import ManifestError, Path, Problems, shown

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 20
# About three times what a thousand models with two versions and every field written out come to.
MAX_NODES = 200_000

# libyaml parses twenty times as fast; its absence only costs time.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NULL = frozenset({"", "~", "null", "Null", "NULL"})


class Mark(NamedTuple):
    """A place in the text: `line` and `column` count from 1, `offset` counts characters from 0."""

    line: int
    column: int
    offset: int


START = Mark(1, 1, 0)


@dataclass(frozen=True, slots=True)
class Scalar:
    """`plain` is false where the text was quoted, which makes it a text whatever it looks like."""

    text: str
    plain: bool
    start: Mark
    end: Mark
    size: int = 1

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in _NULL


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key: value` of a mapping."""

    key: Scalar
    value: Node

    @property
    def mark(self) -> Mark:
        """Where a message about the value points: at the value, but at its key if it stands on other lines."""
        return self.value.start if self.value.start.line == self.key.start.line else self.key.start


@dataclass(slots=True)
class Mapping:
    """`size` counts the nodes below with aliases expanded; `flow` is true for `{...}`."""

    start: Mark
    end: Mark
    flow: bool
    entries: dict[str, Entry] = field(default_factory=dict)
    size: int = 1


@dataclass(slots=True)
class Sequence:
    start: Mark
    end: Mark
    flow: bool
    items: list[Node] = field(default_factory=list)
    size: int = 1


Node = Scalar | Mapping | Sequence


def what_is(node: Node) -> str:
    """What a message calls this node."""
    if isinstance(node, Scalar):
        return "nothing" if node.is_null else shown(node.text)
    return "a mapping" if isinstance(node, Mapping) else "a list"


def locate(root: Node, path: Path, *, key: bool = False) -> Mark:
    """Where `path` stands, or the nearest part of it that exists. `key`: at the key, not at its value."""
    node, mark = root, root.start
    for part in path:
        if isinstance(node, Mapping) and isinstance(part, str) and (entry := node.entries.get(part)):
            node, mark = entry.value, entry.key.start if key else entry.mark
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            mark = node.start
        else:
            break
    return mark


def parse(text: str, problems: Problems) -> Node:
    """The tree of the one document in `text`. Duplicate keys are added to `problems` and the first of them stays; any
    other fault raises `ManifestError`, because nothing that follows it could be trusted."""
    _check_text(text, problems)
    return _Composer(text, problems).compose()


def _check_text(text: str, problems: Problems) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        problems.add(1, 1, (), f"{size:,} bytes; a manifest has at most {MAX_BYTES:,}; split it into several clusters")
    elif match := _FORBIDDEN.search(text):
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - (text.rfind("\n", 0, match.start()) + 1) + 1
        code = f"U+{ord(match.group()):04X}"
        problems.add(line, column, (), f"control character {code}; a manifest is plain text in UTF-8; remove it")
    problems.raise_if_any()


@dataclass(slots=True)
class _Open:
    """A collection that is not complete yet. `key` is the key that waits for its value."""

    node: Mapping | Sequence
    anchor: str | None
    path: Path
    key: Scalar | None = None
    skips_value: bool = False


class _Composer:
    """Builds the tree from parser events, without recursion, and stops at the first broken bound."""

    def __init__(self, text: str, problems: Problems) -> None:
        self._text = text
        self._problems = problems
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._root: Node | None = None
        self._documents = 0

    def compose(self) -> Node:
        try:
            for event in self._events():
                self._take(event)
        except yaml.YAMLError as exc:
            at = self._place_of(exc)
            self._fail(at, _syntax_sentence(exc, self._line(at.line)))
        if self._root is None:
            self._fail(START, "the file is empty; a manifest has at least `models:`; write `models: {}` for none")
        return self._root

    def _place_of(self, exc: yaml.YAMLError) -> Mark:
        """Where the parser stopped; but what is never closed is shown where it opens, not at the end of the file."""
        stopped, opened = getattr(exc, "problem_mark", None), getattr(exc, "context_mark", None)
        if stopped and opened and stopped.index >= len(self._text.rstrip()):
            stopped = opened
        mark = stopped or opened
        return Mark(mark.line + 1, mark.column + 1, mark.index) if mark else START

    def _events(self) -> Iterator[yaml.Event]:
        loader = _LOADER(self._text)
        try:
            while loader.check_event():
                yield loader.get_event()
        finally:
            loader.dispose()

    def _take(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._fail(_start(event), "a second document (---); a manifest is one; remove what follows")
            case yaml.AliasEvent():
                self._add(self._aliased(event), None)
            case yaml.ScalarEvent():
                self._check_tag(event)
                plain = event.style is None or event.style == ""
                self._add(Scalar(event.value, plain, _start(event), _end(event)), event.anchor)
            case yaml.MappingStartEvent():
                self._begin(event, Mapping(_start(event), _end(event), bool(event.flow_style)))
            case yaml.SequenceStartEvent():
                self._begin(event, Sequence(_start(event), _end(event), bool(event.flow_style)))
            case yaml.CollectionEndEvent():
                self._finish(event)

    def _check_tag(self, event: Any) -> None:
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._fail(_start(event), f"tag {shown(tag)}; a manifest has no use for tags; remove it")

    def _begin(self, event: Any, node: Mapping | Sequence) -> None:
        self._check_tag(event)
        if len(self._open) >= MAX_DEPTH:
            self._fail(node.start, f"nested more than {MAX_DEPTH} deep; no field of a manifest is; remove the nesting")
        if event.anchor:
            self._anchors.pop(event.anchor, None)
        self._open.append(_Open(node, event.anchor, self._path()))

    def _finish(self, event: yaml.CollectionEndEvent) -> None:
        done = self._open.pop()
        # The end of a block collection is where the next token starts, after comments: its last child's end is truer.
        done.node.end = _end(event) if done.node.flow else _last_end(done.node)
        self._add(done.node, done.anchor)

    def _aliased(self, event: Any) -> Node:
        target = self._anchors.get(event.anchor)
        if target is None:
            self._fail(
                _start(event),
                f"alias *{event.anchor}; no value that is anchored &{event.anchor} ends before it; define it first",
            )
        # A copy, so that messages point at the alias and not at the anchor.
        return replace(target, start=_start(event), end=_end(event))

    def _add(self, node: Node, anchor: str | None) -> None:
        """Puts a complete node into the collection that is open, as a key or as a value."""
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if anchor:
            self._anchors[anchor] = node
        if isinstance(parent.node, Sequence):
            parent.node.items.append(node)
        elif parent.key is None:
            parent.key = self._key(node)
            return
        else:
            self._put(parent, parent.node, parent.key, node)
        parent.node.size += node.size
        if parent.node.size > MAX_NODES:
            self._fail(node.start, f"more than {MAX_NODES:,} values with aliases expanded; use fewer aliases or models")

    def _key(self, node: Node) -> Scalar:
        if not isinstance(node, Scalar):
            self._fail(node.start, f"{what_is(node)} as a key; a key is a name; write one word before the colon")
        if node.plain and node.text == "<<":
            self._fail(node.start, "merge key '<<'; it is not supported; use `defaults:` or repeat the fields")
        return node

    def _put(self, parent: _Open, mapping: Mapping, key: Scalar, value: Node) -> None:
        parent.key = None
        if first := mapping.entries.get(key.text):
            message = f"duplicate key; it stands on line {first.key.start.line} already; remove or rename one"
            self._problems.add(key.start.line, key.start.column, (*parent.path, key.text), message)
        else:
            mapping.entries[key.text] = Entry(key, value)
        mapping.end = value.end

    def _path(self) -> Path:
        if not self._open:
            return ()
        parent = self._open[-1]
        if isinstance(parent.node, Sequence):
            return (*parent.path, len(parent.node.items))
        return (*parent.path, parent.key.text) if parent.key else parent.path

    def _line(self, number: int) -> str:
        lines = self._text.splitlines()
        return lines[number - 1] if 0 < number <= len(lines) else ""

    def _fail(self, mark: Mark, message: str) -> NoReturn:
        self._problems.add(mark.line, mark.column, (), message)
        raise ManifestError(self._problems.found)


def _start(event: Any) -> Mark:
    mark = event.start_mark
    return Mark(mark.line + 1, mark.column + 1, mark.index)


def _end(event: Any) -> Mark:
    mark = event.end_mark
    return Mark(mark.line + 1, mark.column + 1, mark.index)


def _last_end(node: Mapping | Sequence) -> Mark:
    if isinstance(node, Mapping):
        return node.end
    return node.items[-1].end if node.items else node.start


_SYNTAX = (
    (
        "mapping values are not allowed",
        "a colon where no key can be; align it with its siblings, quote the value, or add the colon above",
    ),
    ("could not find expected ':'", "a key without its colon; write `key: value`, or close the quote above"),
    ("did not find expected key", "a line that is indented unlike its siblings; align it with the keys beside it"),
    (
        "did not find expected ',' or",
        "a list or mapping in brackets that is not closed; add a comma or the closing bracket",
    ),
    ("found unexpected end of stream", "the file ends inside a quoted text; close the quote"),
    ("did not find expected <document start>", "text after the end of the mapping; indent it like the keys above"),
    ("while scanning a quoted scalar", "a quoted text that is broken; close the quote"),
    (
        "did not find expected node content",
        "a list or mapping in brackets that is not closed, or a comma with nothing before it",
    ),
    ("cannot start any token", "a value cannot begin with @, ` or %; quote it"),
    ("unknown escape character", 'a backslash in "..." that escapes nothing; write \\\\, or use single quotes'),
    ("found undefined tag handle", "a tag; a manifest has no use for tags; remove it"),
)


def _syntax_sentence(exc: yaml.YAMLError, line: str) -> str:
    """What to say of a syntax error: the parser's words help only those who know how YAML is parsed."""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab indents this line; YAML allows spaces alone; replace it with spaces"
    said = f"{getattr(exc, 'context', None) or ''} {getattr(exc, 'problem', None) or ''}"
    for words, sentence in _SYNTAX:
        if words in said:
            return f"not YAML: {sentence}"
    return f"not YAML: {said.strip()}; correct this line or the one above"
