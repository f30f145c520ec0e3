"""The routing table's schema: what is refused, and by which sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.contract import (
    Endpoint,
    ModelRoute,
    Table,
    TableError,
    VersionRoute,
    check,
    decode,
    decode_delta,
    decode_in_steps,
    encode,
)


def table(**version: Any) -> dict[str, Any]:
    return {
        "epoch": "e",
        "revision": 1,
        "cluster": "c",
        "models": {"m": {"versions": {"1": version}, "weights": {"1": 100}, "labels": {"stable": "1"}}},
    }


def problem(document: dict[str, Any]) -> str:
    with pytest.raises(TableError) as caught:
        decode(json.dumps(document).encode())
    return str(caught.value)


class TestDecode:
    def test_reads_what_encode_wrote(self) -> None:
        route = VersionRoute((Endpoint("a", "h", 1),), state="")
        written = Table("e", 7, "c", {"m": ModelRoute({"1": route}, {"1": 3}, {"x": "1"})})

        assert decode(encode(written)) == written
        assert written.tag == "e:7"

    def test_refuses_an_unknown_field(self) -> None:
        assert "unknown field `colour`" in problem(table(colour="red"))

    @pytest.mark.parametrize(
        "raw",
        [
            b'{"epoch":"\xff"}',
            b'{"epoch":"e","revision":1,"cluster":"c","models":{"m\xff":{}}}',
            b'{"epoch":"e","revision":1,"cluster":"c","models":{"m":{"versions":{"\xff":{}},"weights":{}}}}',
            b'{"epoch":"e","revision":1,"cluster":"c","models":{"m":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        ],
        ids=["epoch", "model", "version", "depth"],
    )
    def test_refuses_what_is_no_utf_8_or_has_no_end(self, raw: bytes) -> None:
        with pytest.raises(TableError):
            decode(raw)
        with pytest.raises(TableError):
            decode_delta(raw)

    def test_names_the_model(self) -> None:
        assert problem(table(concurrency="many")).startswith("routing table: model 'm': Expected `int`")

    def test_refuses_weights_and_labels_of_unknown_versions(self) -> None:
        document = table()
        document["models"]["m"]["weights"] = {"2": 1}
        assert problem(document) == "routing table: model 'm': weight for unknown version '2'"

        document = table()
        document["models"]["m"]["labels"] = {"new": "9"}
        assert problem(document) == "routing table: model 'm': label 'new' names unknown version '9'"

    @pytest.mark.parametrize("weight", [-1, 1_000_001])
    def test_refuses_a_weight_out_of_range(self, weight: int) -> None:
        document = table()
        document["models"]["m"]["weights"] = {"1": weight}

        assert problem(document) == f"routing table: model 'm': weight {weight} is not in 0..1000000"

    @pytest.mark.parametrize("limit", [{"concurrency": 0}, {"queue_max": -1}, {"request_timeout_ms": 0}])
    def test_refuses_a_limit_below_its_least_value(self, limit: dict[str, int]) -> None:
        assert problem(table(**limit)).endswith("a limit is below its least value")

    def test_refuses_a_replica_that_is_named_twice(self) -> None:
        twice = [{"id": "a", "host": "h", "port": 1}] * 2

        assert problem(table(endpoints=twice)) == "routing table: replica 'a' is named twice; it serves one version"

    def test_refuses_what_is_not_json(self) -> None:
        with pytest.raises(TableError):
            decode(b"{")

    def test_moves_on_in_steps(self) -> None:
        models = {f"m{i}": ModelRoute({}, {}) for i in range(1000)}

        assert len(list(decode_in_steps(encode(Table("e", 1, "c", models))))) >= 30


class TestCheck:
    def test_finds_in_a_table_what_decode_finds_in_bytes(self) -> None:
        bad = Table("e", 1, "c", {"m": ModelRoute({"1": VersionRoute((Endpoint("a", "h", 0),))}, {})})

        with pytest.raises(TableError, match="port 0"):
            check(bad)
