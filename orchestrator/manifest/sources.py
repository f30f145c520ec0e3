"""The manifest's `sources:` section, and how a version's `source` is checked as written. Nothing is fetched here."""

# ruff: noqa: RUF009  (`setting()` makes a dataclasses.field)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.core.sources import fault_of, redacted
from orchestrator.manifest.diagnostics import Path, shown
from orchestrator.manifest.groups import Group, MapOf, setting
from orchestrator.manifest.kinds import GI, INVALID, MI, Report, Size, Text
from orchestrator.manifest.nodes import Node, Scalar
from orchestrator.manifest.secrets import SecretKind, SecretRef

HOST = Text(
    "a host name or address in lower case, with or without :port",
    r"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?",
    260,
)
FIELD_NAME = Text("the name of a header field, such as PRIVATE-TOKEN", r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", 100)


class SourceText(Text):
    """A path or URL. Messages show it without what is secret in it."""

    def _parse(self, scalar: Scalar) -> str:
        if len(scalar.text) > self.longest or not self.matches(scalar.text):
            raise ValueError("control characters, or more than 4096 of any, are not allowed")
        if fault := fault_of(scalar.text):
            raise ValueError(f"{shown(redacted(scalar.text))} {fault}")
        return scalar.text

    def read(self, node: Node, path: Path, report: Report) -> Any:
        if isinstance(node, Scalar) and not node.is_null:
            try:
                return self._parse(node)
            except ValueError as exc:
                report.add(path, str(exc))
                return INVALID
        return super().read(node, path, report)


@dataclass(frozen=True, slots=True)
class CredentialConfig:
    """What one host is sent: a token, or a name with a password."""

    token: SecretRef | None = setting(
        SecretKind(SecretRef), "A token, sent as `Authorization: Bearer …`, or alone in `header`.", default=None
    )
    header: str | None = setting(FIELD_NAME, "The header field that carries the token.", default=None)
    user: str | None = setting(Text("a name", r"[^\x00-\x1f\x7f:]+", 255), "A name, with `password`.", default=None)
    password: SecretRef | None = setting(SecretKind(SecretRef), "Its password.", default=None)


class CredentialKind(Group):
    """The kind of a `CredentialConfig`: exactly one of its two forms."""

    def read(self, node: Node, path: Path, report: Report) -> Any:
        value = super().read(node, path, report)
        if value is INVALID or INVALID in value.values():
            return value
        if value.keys() not in ({"token"}, {"token", "header"}, {"user", "password"}):
            report.add(path, f"{' and '.join(sorted(value)) or 'nothing'} is given; write {self.rule}")
            return INVALID
        return value

    @property
    def rule(self) -> str:
        return "{token: {env: NAME}}, with `header:` or without, or {user: NAME, password: {env: NAME}}"


@dataclass(frozen=True, slots=True)
class SourcesConfig:
    """How sources are fetched, all of them."""

    max_size_bytes: int = setting(
        Size(1 * MI, 65_536 * GI),
        "Most bytes of one source, as fetched and as unpacked; beyond it the apply is refused.",
        default=256 * GI,
        key="max_size",
    )
    credentials: dict[str, CredentialConfig] = setting(
        MapOf(HOST, CredentialKind(CredentialConfig), "models.example.com: {token: {env: MODELS_TOKEN}}"),
        "What is sent to a host over http(s), by its name; others get nothing of it.",
        factory=dict,
    )
