"""What a manifest may hold, for editors (JSON Schema 2020-12) and for people (the table in docs/MANIFEST.md).

Both are made from the declarations in `model.py`. The schema says what one field may be; the rules that span fields
only `modelfleet validate` knows.
"""

from __future__ import annotations

from orchestrator.manifest.gateway import GatewayConfig
from orchestrator.manifest.groups import Group, GroupOrFlag, GroupOrText, OrNull, Setting
from orchestrator.manifest.kinds import Json
from orchestrator.manifest.model import MANIFEST, ImagesConfig, Manifest, ModelConfig, VersionConfig
from orchestrator.manifest.sources import SourcesConfig

_ALSO: dict[type, str] = {
    Group: "a mapping",
    OrNull: "a mapping, or null",
    GroupOrFlag: "true, false or a mapping",
    GroupOrText: "a name, or a mapping",
}


def json_schema() -> Json:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Modelfleet manifest",
        "description": "The models that one cluster serves. Run `modelfleet validate` for the rules that span fields.",
        **MANIFEST.schema(),
    }


def reference() -> dict[str, str]:
    """Markdown tables of every field, by the heading that each belongs under."""
    return {
        "The file": _table(Manifest, without={"gateway", "images", "sources"}),
        "gateway": _table(GatewayConfig),
        "images": _table(ImagesConfig),
        "sources": _table(SourcesConfig),
        "A model": _table(ModelConfig),
        "A version": _table(VersionConfig),
    }


def _table(cls: type, without: frozenset[str] | set[str] = frozenset()) -> str:
    rows = [row for key, each in Group(cls).own.items() if key not in without for row in _rows(each, "")]
    return "\n".join(("| field | value | default | meaning |", "|---|---|---|---|", *rows))


def _rows(each: Setting, prefix: str) -> list[str]:
    inner = getattr(each.kind, "kind", each.kind)
    if isinstance(inner, Group) and type(each.kind) in _ALSO:  # a secret is one value to its reader
        nested = [row for below in inner.own.values() for row in _rows(below, f"{prefix}{each.key}.")]
        return [_row(each, prefix, _ALSO[type(each.kind)]), *nested]
    return [_row(each, prefix, each.kind.rule)]


def _row(each: Setting, prefix: str, rule: str) -> str:
    cells = (f"`{prefix}{each.key}`", rule, each.default_text and f"`{each.default_text}`", each.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
