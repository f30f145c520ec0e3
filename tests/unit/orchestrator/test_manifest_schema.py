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


class Words(yaml.SafeLoader):
    """YAML 1.2, as manifests and editors read it: `on` and `off` are words."""


Words.yaml_implicit_resolvers = {
    letter: [(tag, form) for tag, form in found if tag != "tag:yaml.org,2002:bool" or letter in "tTfF"]
    for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "null": (type(None),),
    "array": (list,),
}  # fmt: skip
ANNOTATIONS = {"$schema", "title", "description", "default"}


def conforms(value: Any, schema: dict[str, Any]) -> bool:
    checks = {
        "type": lambda want: any(_is(value, each) for each in ([want] if isinstance(want, str) else want)),
        "enum": lambda options: value in options,
        "items": lambda each: not isinstance(value, list) or all(conforms(item, each) for item in value),
        "uniqueItems": lambda _: not isinstance(value, list) or len({repr(item) for item in value}) == len(value),
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
    @pytest.mark.parametrize("name", ["models.yaml", "traffic.yaml", "scaling.yaml"])
    def test_accepts_the_example_manifest(self, name: str) -> None:
        document = yaml.load((REPOSITORY / "configs" / name).read_text(), Words)

        assert conforms(document, json_schema())

    @pytest.mark.parametrize(
        "text",
        [
            'models: {iris: {versions: {"1": {source: m, backend: keras}}}}',
            'models: {iris: {versions: {"1": {source: m, backend: onnx, resources: {memory: 512M8}}}}}',
            'models: {Iris: {versions: {"1": {source: m, backend: onnx}}}}',
            "models: {iris: {versions: {}}}",
            'models: {iris: {concurency: 3, versions: {"1": {source: m, backend: onnx}}}}',
            'models: {iris: {secrets: {A: {env: A, file: a}}, versions: {"1": {source: m, backend: onnx}}}}',
            "cluster: demo",
            "{engine: swarm, models: {}}",
            "{gateway: {port: 0}, models: {}}",
            "{defaults: {scaling: {min: -1}}, models: {}}",
            "{defaults: {scaling: {schedule: [{min: 1}]}}, models: {}}",
            "{cluster: {max_cpus: 0}, models: {}}",
            "{autoscaler: {source: nowhere}, models: {}}",
            "{defaults: {env: {MODELFLEET_PORT: x}}, models: {}}",
            '{defaults: {retry: {"on": [connect, connect]}}, models: {}}',
            '{defaults: {retry: {"on": [timeout]}}, models: {}}',
            "{defaults: {balance: any}, models: {}}",
            "{gateway: {processes: 0}, models: {}}",
            "{gateway: {tls: {certificate: a}}, models: {}}",
            "{gateway: {access_log: {share: 2}}, models: {}}",
            'models: {iris: {sticky: user, versions: {"1": {source: m, backend: onnx}}}}',
            'models: {iris: {shadow: {}, versions: {"1": {source: m, backend: onnx}}}}',
            'models: {iris: {rate_limit: {requests_per_s: 0}, versions: {"1": {source: m, backend: onnx}}}}',
        ],
    )
    def test_refuses_what_load_refuses_in_one_field(self, text: str) -> None:
        with pytest.raises(ManifestError, match=r"models\.yaml:1:"):
            load(text, file="models.yaml", base_dir=Path("/"))

        assert not conforms(yaml.safe_load(text), json_schema())

    def test_accepts_every_way_to_write_a_routing_field(self) -> None:
        text = """
        gateway: {processes: auto, auth: "off", access_log: true, tls: {certificate: a, key: b}}
        defaults: {source: m, backend: onnx, retry: {budget: 0, max: 1, "on": [connect, 503, "reset"]}, websocket: true}
        models:
          iris:
            sticky: header:x-user
            shadow: {version: 1, percent: 10, tolerance: 0.001}
            rate_limit: {requests_per_s: 0.5, burst: 3}
            versions: {"1": {}, "2": {balance: least, eject: false}}
        """
        load(text, file="models.yaml", base_dir=Path("/"))

        assert conforms(yaml.safe_load(text), json_schema())

    def test_accepts_every_way_to_write_a_scaling_field(self) -> None:
        text = """
        cluster: {name: demo, max_cpus: 8, max_memory: 16Gi, max_starting: 2}
        autoscaler: {source: prometheus, prometheus: "http://127.0.0.1:9090"}
        defaults: {source: m, backend: onnx, slo: {latency_ms: 50, percentile: 99.5}}
        models:
          iris:
            scaling: {min: 0, max: 4, standby: 1, idle_after: 10m, gone_after: null, worth: 3, priority: -1,
                      schedule: [{cron: "0 8 * * mon-fri", min: 2, zone: Europe/Berlin}]}
            versions: {"1": {}, "2": {scaling: {max: null, gone_after: 1h}}}
        """
        load(text, file="models.yaml", base_dir=Path("/"))

        assert conforms(yaml.safe_load(text), json_schema())

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
