"""References to secrets: a manifest names where a value is found and never holds one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from orchestrator.manifest.diagnostics import Path
from orchestrator.manifest.groups import Group, setting
from orchestrator.manifest.kinds import INVALID, Json, Report, Text
from orchestrator.manifest.nodes import Mapping, Node

ENV_NAME = Text(
    "letters, digits and _, not beginning with a digit or with MODELFLEET_, which is ours",
    r"(?!MODELFLEET_(?!LOG_(?:FORMAT|LEVEL)$))[A-Za-z_][A-Za-z0-9_]*",
    255,
)


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a secret's value comes from: exactly one of the two is not None."""

    env: str | None = setting(
        replace(ENV_NAME, is_shown=False), "A variable in the control plane's environment.", default=None
    )
    file: str | None = setting(
        Text("the path of a file"),
        "A file, relative to the manifest; line breaks at its end are not part of it.",
        default=None,
    )


class SecretKind(Group):
    """The kind of a `SecretRef`. It is built when read: two layers that name one secret are never mixed."""

    @property
    def rule(self) -> str:
        return "{env: NAME} or {file: PATH}"

    def read(self, node: Node, path: Path, report: Report) -> Any:
        if not isinstance(node, Mapping):
            # Most likely the secret itself: a message must not carry it into logs and events.
            report.add(path, f"a secret's value cannot stand in a manifest; write {self.rule}")
            return INVALID
        value = super().read(node, path, report)
        if value is INVALID or INVALID in value.values():
            return INVALID
        if len(value) != 1:
            report.add(path, f"{'both env and file' if value else 'neither env nor file'}; write {self.rule}")
            return INVALID
        return super().build(value)

    def build(self, value: Any) -> Any:
        return value

    def schema(self) -> Json:
        return {**super().schema(), "minProperties": 1, "maxProperties": 1}
