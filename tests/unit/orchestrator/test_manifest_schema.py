"""The JSON Schema accepts what `load` accepts and refuses what a single field must not be; the reference is complete.

`conforms` below is the part of JSON Schema 2020-12 that the schema uses; an unknown keyword fails the test.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.manifest import ManifestError, json_schema, load
from orchestrator.manifest.schema import reference

REPOSITORY = Path(__file__).resolve().parents[3]
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "null": (type(None),),
}  # fmt: skip
ANNOTATIONS = {"$schema", "title", "description", "default"}


def conforms(value: Any, schema: dict[str, Any]) -> bool:
    checks = {
        "type": lambda want: any(_is(value, each) for each in ([want] if isinstance(want, str) else want)),
        "enum": lambda options: value in options,
        "anyOf": lambda schemas: any(conforms(value, each) for each in schemas),
        "pattern": lambda pattern: not isinstance(value, str) or re.search(pattern, value) is not None,
        "maxLength": lambda most: not isinstance(value, str) or len(value) <= most,
        "minimum": lambda least: not _is(value, "number") or value >= least,
        "maximum": lambda most: not _is(value, "number") or value <= most,
        "required": lambda keys: not isinstance(value, dict) or set(keys) <= value.keys(),
        "minProperties": lambda least: not isinstance(value, dict) or len(value) >= least,
        "maxProperties": lambda most: not isinstance(value, dict) or len(value) <= most,
        "propertyNames": lambda names: not isinstance(value, dict) or all(conforms(key, names) for key in value),
        "properties": lambda known: (
            not isinstance(value, dict) or all(conforms(value[key], known[key]) for key in value.keys() & known.keys())
        ),
        "additionalProperties": lambda other: (
            not isinstance(value, dict)
            or all(
                other is not False and conforms(value[key], other)
                for key in value.keys() - schema.get("properties", {}).keys()
            )
        ),
    }
    assert schema.keys() <= checks.keys() | ANNOTATIONS
    return all(checks[key](schema[key]) for key in schema.keys() & checks.keys())


def _is(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


class TestJsonSchema:
    def test_accepts_the_example_manifest(self) -> None:
        document = yaml.safe_load((REPOSITORY / "configs" / "models.yaml").read_text())

        assert conforms(document, json_schema())

    @pytest.mark.parametrize(
        "text",
        [
            'models: {iris: {versions: {"1": {source: m, backend: pytorch}}}}',
            'models: {iris: {versions: {"1": {source: m, backend: onnx, resources: {memory: 512M8}}}}}',
            'models: {Iris: {versions: {"1": {source: m, backend: onnx}}}}',
            "models: {iris: {versions: {}}}",
            'models: {iris: {concurency: 3, versions: {"1": {source: m, backend: onnx}}}}',
            'models: {iris: {secrets: {A: {env: A, file: a}}, versions: {"1": {source: m, backend: onnx}}}}',
            "cluster: demo",
            "{engine: swarm, models: {}}",
            "{gateway: {port: 0}, models: {}}",
            "{defaults: {scaling: {min: 0}}, models: {}}",
            "{defaults: {env: {MODELFLEET_PORT: x}}, models: {}}",
        ],
    )
    def test_refuses_what_load_refuses_in_one_field(self, text: str) -> None:
        with pytest.raises(ManifestError, match=r"models\.yaml:1:"):
            load(text, file="models.yaml", base_dir=Path("/"))

        assert not conforms(yaml.safe_load(text), json_schema())

    def test_describes_every_field(self) -> None:
        def undescribed(schema: dict[str, Any], path: str) -> list[str]:
            properties = schema.get("properties", {})
            missing = [f"{path}.{key}" for key, each in properties.items() if not each.get("description")]
            return missing + [each for key, below in properties.items() for each in undescribed(below, f"{path}.{key}")]

        assert undescribed(json_schema(), "") == []


@pytest.mark.parametrize("heading", reference())
def test_the_reference_in_the_documentation_is_what_the_fields_declare(heading: str) -> None:
    """After a change of `model.py`, put the table that this test shows into docs/MANIFEST.md."""
    documentation = (REPOSITORY / "docs" / "MANIFEST.md").read_text()

    assert f"## {heading}\n" in documentation
    assert reference()[heading] in documentation
