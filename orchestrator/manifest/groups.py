"""Kinds that hold other kinds: a mapping with known keys or with names of the author's, a list, "or null", "or true".

A group is declared once, as a frozen dataclass whose fields are made by `setting()`: reading, building, the JSON Schema
and the reference in docs/MANIFEST.md all follow from that. Reading gives plain dictionaries of what was written and no
defaults, so that `resolve.py` can merge layers; `build` fills in the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.manifest.diagnostics import Path, did_you_mean, listed, shortened, shown
from orchestrator.manifest.kinds import (
    INVALID,
    Duration,
    Json,
    Kind,
    Report,
    Size,
    Text,
    duration_text,
    size_text,
)
from orchestrator.manifest.nodes import Entry, Node, Scalar, Sequence, what_is
from orchestrator.manifest.nodes import Mapping as MappingNode

_METADATA = "setting"

# Keys of the design that come in later releases. Refused by name, so that nobody believes in a field that does nothing.
# fmt: off
NOT_YET = frozenset({
    "swarm", "rollout", "canary", "autoscaling",
    "accelerators", "gpus",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a group. `default` is None where `required` or where absence is its own meaning."""

    key: str
    attribute: str
    kind: Kind
    meaning: str
    default: Any
    required: bool

    @property
    def default_text(self) -> str:
        if self.required:
            return "required"
        if self.default is None or isinstance(self.default, dict) or dataclasses.is_dataclass(self.default):
            return ""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if isinstance(self.default, tuple):
            return f"[{', '.join(self.default)}]" if self.default else ""
        if isinstance(self.kind, Size):
            return size_text(self.default)
        if isinstance(self.kind, Duration):
            return duration_text(self.default)
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


def setting(
    kind: Kind,
    meaning: str,
    *,
    default: Any = dataclasses.MISSING,
    factory: Callable[[], Any] | None = None,
    key: str = "",
) -> Any:
    """A dataclass field that is read from the key of the same name (or `key`). Without a default it is required."""
    metadata = {_METADATA: (kind, meaning, key)}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def settings_of(cls: type) -> dict[str, Setting]:
    """The settings of a dataclass by their keys."""
    found = {}
    for each in dataclasses.fields(cls):
        if _METADATA not in each.metadata:
            continue
        kind, meaning, key = each.metadata[_METADATA]
        default = _default_of(each)
        required = default is dataclasses.MISSING
        found[key or each.name] = Setting(
            key or each.name, each.name, kind, meaning, None if required else default, required
        )
    return found


def _default_of(each: dataclasses.Field[Any]) -> Any:
    if each.default_factory is not dataclasses.MISSING:
        return each.default_factory()
    return each.default


class Group:
    """A mapping with the keys of `cls` and, where layers inherit, of `inherits` too.

    `elsewhere`: keys that people look for here, with where they belong.
    """

    def __init__(
        self,
        cls: type,
        *,
        inherits: type | None = None,
        not_yet: frozenset[str] = frozenset(),
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        self.elsewhere = elsewhere or {}
        self.cls = cls
        self.own = settings_of(cls)
        self.settings = self.own | (settings_of(inherits) if inherits else {})
        self.not_yet = NOT_YET | not_yet

    @property
    def rule(self) -> str:
        return f"a mapping with {listed(self.settings)}"

    def read(self, node: Node, path: Path, report: Report) -> Any:
        entries = _entries(node, path, report, self.rule)
        if entries is None:
            return INVALID
        for key in entries.keys() - self.settings.keys():
            report.add((*path, key), self._about_unknown(key), key=True)
        for key, each in self.settings.items():
            if each.required and key not in entries:
                report.add(path, f"{key} is missing; write `{key}:` with {each.kind.rule}")
        return {
            key: self.settings[key].kind.read(entry.value, (*path, key), report)
            for key, entry in entries.items()
            if key in self.settings
        }

    def build(self, value: Any) -> Any:
        own = (each for key, each in self.own.items() if key in value)
        return self.cls(**{each.attribute: each.kind.build(value[each.key]) for each in own})

    def schema(self) -> Json:
        properties = {key: _documented(each) for key, each in self.settings.items()}
        required = sorted(key for key, each in self.settings.items() if each.required)
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": properties,
            **({"required": required} if required else {}),
        }

    def _about_unknown(self, key: str) -> str:
        if key in self.not_yet:
            return f"has no effect in this release; supported here: {listed(self.settings, 99)}; remove it"
        if key in self.elsewhere:
            return f"belongs to {self.elsewhere[key]}; move it there"
        for parent, each in self.settings.items():
            if isinstance(each.kind, Group) and key in each.kind.settings:
                return f"belongs under {parent}; write `{parent}: {{{key}: …}}`"
        near = did_you_mean(key, self.settings)
        return (
            f"unknown key; did you mean {shown(near)}?" if near else f"unknown key; known: {listed(self.settings, 99)}"
        )


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping whose keys the author chooses. `example` shows one entry."""

    key: Text
    value: Kind
    example: str
    least: int = 0

    @property
    def rule(self) -> str:
        return f"a mapping such as {{{self.example}}}"

    def read(self, node: Node, path: Path, report: Report) -> Any:
        entries = _entries(node, path, report, self.rule)
        if entries is None:
            return INVALID
        if len(entries) < self.least:
            report.add(path, f"empty; at least {self.least} is needed; write {self.rule}")
            return INVALID
        return {
            name: self.value.read(entry.value, (*path, name), report)
            for name, entry in entries.items()
            if self._takes(entry.key, (*path, name), report)
        }

    def build(self, value: Any) -> Any:
        return {name: self.value.build(each) for name, each in value.items()}

    def schema(self) -> Json:
        names = {"pattern": f"^(?:{self.key.pattern})$", "maxLength": self.key.longest}
        least = {"minProperties": self.least} if self.least else {}
        return {"type": "object", "propertyNames": names, "additionalProperties": self.value.schema(), **least}

    def _takes(self, key: Scalar, path: Path, report: Report) -> bool:
        if len(key.text) > self.key.longest:
            wrong = f"a name of {len(key.text)} characters; at most {self.key.longest} are allowed; shorten it"
        elif not self.key.matches(key.text):
            wrong = f"{shown(key.text)} is not allowed as a name; use {self.key.rule}"
        else:
            return True
        report.add(path, wrong, key=True)
        return False


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of different values of one kind."""

    value: Kind

    @property
    def rule(self) -> str:
        return f"a list of {self.value.rule}"

    def read(self, node: Node, path: Path, report: Report) -> Any:
        if not isinstance(node, Sequence):
            report.add(path, f"{shortened(what_is(node))} is not a list; write {self.rule}, in brackets")
            return INVALID
        values = [self.value.read(item, (*path, index), report) for index, item in enumerate(node.items)]
        for index, value in enumerate(values):
            if value is not INVALID and value in values[:index]:
                report.add((*path, index), f"{shown(str(value))} stands in the list already; remove one")
        return INVALID if INVALID in values else values

    def build(self, value: Any) -> Any:
        return tuple(self.value.build(each) for each in value)

    def schema(self) -> Json:
        return {"type": "array", "items": self.value.schema(), "uniqueItems": True}


@dataclass(frozen=True, slots=True)
class GroupOrFlag:
    """A group; `true` stands for one with every default, `false` for none."""

    kind: Group

    @property
    def rule(self) -> str:
        return f"true, false or {self.kind.rule}"

    def read(self, node: Node, path: Path, report: Report) -> Any:
        if not isinstance(node, Scalar) or node.is_null:
            return self.kind.read(node, path, report)
        if not node.plain or node.text.lower() not in ("true", "false"):
            report.add(path, f"{shown(node.text)} is neither a boolean nor a mapping; write {self.rule}")
            return INVALID
        return {} if node.text.lower() == "true" else None

    def build(self, value: Any) -> Any:
        return None if value is None else self.kind.build(value)

    def schema(self) -> Json:
        return {"anyOf": [self.kind.schema(), {"type": "boolean"}]}


@dataclass(frozen=True, slots=True)
class GroupOrText:
    """A group; one text stands for a group that has only `key`, with this value."""

    kind: Group
    key: str

    @property
    def rule(self) -> str:
        return f"{self.kind.own[self.key].kind.rule}, or {self.kind.rule}"

    def read(self, node: Node, path: Path, report: Report) -> Any:
        if isinstance(node, MappingNode):
            return self.kind.read(node, path, report)
        text = self.kind.own[self.key].kind.read(node, path, report)
        return INVALID if text is INVALID else {self.key: text}

    def build(self, value: Any) -> Any:
        return self.kind.build(value)

    def schema(self) -> Json:
        return {"anyOf": [self.kind.own[self.key].kind.schema(), self.kind.schema()]}


@dataclass(frozen=True, slots=True)
class OrNull:
    """`kind`, or null for what absence means."""

    kind: Kind

    @property
    def rule(self) -> str:
        return f"{self.kind.rule}, or null"

    def read(self, node: Node, path: Path, report: Report) -> Any:
        if isinstance(node, Scalar) and node.is_null:
            return None
        return self.kind.read(node, path, report)

    def build(self, value: Any) -> Any:
        return None if value is None else self.kind.build(value)

    def schema(self) -> Json:
        return {"anyOf": [self.kind.schema(), {"type": "null"}]}


def _entries(node: Node, path: Path, report: Report, rule: str) -> dict[str, Entry] | None:
    """A key with nothing after it counts as an empty mapping: that is what commenting out its content leaves."""
    if isinstance(node, MappingNode):
        return node.entries
    if isinstance(node, Scalar) and node.is_null:
        return {}
    report.add(path, f"{shortened(what_is(node))} is not a mapping; write {rule}")
    return None


def _documented(each: Setting) -> Json:
    default = {"default": _default_of_schema(each)}
    has_default = each.default is not None and each.default_text != ""
    return {**each.kind.schema(), "description": each.meaning, **(default if has_default else {})}


def _default_of_schema(each: Setting) -> Any:
    if isinstance(each.default, tuple):
        return list(each.default)
    return each.default_text if isinstance(each.kind, (Size, Duration)) else each.default
