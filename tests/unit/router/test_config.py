"""config.json: what is read, and the sentence for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from router.config import ConfigError, Limits, limits_from, read_config

GOOD = {"control_url": "http://127.0.0.1:7070", "token_file": "t", "limits": {"body_bytes": 4096}}


def read(tmp_path: Path, document: dict[str, Any]) -> Any:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document))
    return read_config(path)


class TestReadConfig:
    def test_fills_in_defaults(self, tmp_path: Path) -> None:
        config = read(tmp_path, GOOD)

        assert (config.port, config.metrics_port, config.limits.body_bytes) == (8080, 8082, 4096)
        assert config.limits.fields == Limits().fields

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"colour": 1}, "unknown field `colour`"),
            ({"port": 70_000}, "`$.port`"),
            ({"limits": {"idle_timeout_s": 0}}, "`$.limits.idle_timeout_s`"),
            ({"table_file": "x"}, "exactly one of control_url and table_file"),
            ({"token_file": ""}, "token_file is missing"),
            ({"control_url": "ftp://x"}, "is not an http:// or https:// URL"),
            ({"auth": "sometimes"}, "`$.auth`"),
            ({"host": "0.0.0.0"}, "auth: 'off' on host '0.0.0.0'"),
            ({"host": "gateway.example"}, "set auth to required, or host to 127.0.0.1"),
            ({"limits": {"head_bytes": 2048, "target_bytes": 4096}}, "4096 is above head_bytes (2048)"),
        ],
    )
    def test_names_the_file_and_what_is_wrong(self, tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
        with pytest.raises(ConfigError) as caught:
            read(tmp_path, {**GOOD, **change})

        assert str(tmp_path / "config.json") in str(caught.value)
        assert sentence in str(caught.value)

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
    def test_lets_loopback_do_without_keys(self, tmp_path: Path, host: str) -> None:
        assert read(tmp_path, {**GOOD, "host": host}).auth == "off"

    def test_lets_others_in_with_keys(self, tmp_path: Path) -> None:
        assert read(tmp_path, {**GOOD, "host": "0.0.0.0", "auth": "required"}).host == "0.0.0.0"

    def test_says_that_the_file_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no such file"):
            read_config(tmp_path / "none.json")


class TestLimitsFrom:
    def test_refuses_a_flag_out_of_range(self) -> None:
        with pytest.raises(ConfigError, match="fields"):
            limits_from({"fields": 1}, "limits")
