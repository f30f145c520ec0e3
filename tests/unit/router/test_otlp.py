"""What a collector is told of us, and what is refused before anything is sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from router.config import Config, ConfigError, Tracing, check
from router.otlp import endpoint_of, read_headers


class TestHeaders:
    def test_of_a_file_are_its_lines(self, tmp_path: Path) -> None:
        file = tmp_path / "h"
        file.write_text("# mine\nAuthorization: Bearer a:b\n\nx-tenant: 7\n")

        assert read_headers(Tracing("http://c", headers_file=str(file))) == {
            "authorization": "Bearer a:b",
            "x-tenant": "7",
        }

    def test_of_a_variable_are_as_opentelemetry_has_them(self) -> None:
        environ = {"OTLP": "authorization=Bearer%20x=y, x-tenant=7"}

        assert read_headers(Tracing("http://c", headers_env="OTLP"), environ) == {
            "authorization": "Bearer x=y", "x-tenant": "7",
        }  # fmt: skip

    @pytest.mark.parametrize("text", ["s3cret", "authorization:", ": s3cret", "a b: s3cret"])
    def test_that_are_none_are_refused_without_being_shown(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "h"
        file.write_text(text)

        with pytest.raises(ConfigError) as caught:
            read_headers(Tracing("http://c", headers_file=str(file)))
        assert "s3cret" not in str(caught.value)
        assert "entry 1 is no header field" in str(caught.value)

    def test_that_are_not_there_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be read: no such file"):
            read_headers(Tracing("http://c", headers_file=str(tmp_path / "none")))
        with pytest.raises(ConfigError, match="'NONE' is not set where the gateway runs"):
            read_headers(Tracing("http://c", headers_env="NONE"), {})


class TestSettings:
    @pytest.mark.parametrize(
        ("otlp", "endpoint"),
        [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("https://c/otlp", "https://c/otlp/v1/traces"),
            ("http://c:4318/v1/traces", "http://c:4318/v1/traces"),
        ],
    )
    def test_the_path_of_traces_is_added(self, otlp: str, endpoint: str) -> None:
        assert endpoint_of(otlp) == endpoint

    @pytest.mark.parametrize(
        "otlp", ["c:4318", "grpc://c", "http://", "http://c:x", "http://c?key=s3cret", "http://u:s3cret@c"]
    )
    def test_an_address_that_is_none_is_refused(self, otlp: str) -> None:
        with pytest.raises(ConfigError, match=r"^it: tracing\.otlp: "):
            check(Config(table_file="t", tracing=Tracing(otlp)), "it")

    def test_without_the_packages_the_gateway_says_what_to_install(self, tmp_path: Path) -> None:
        table = tmp_path / "table.json"
        table.write_text('{"epoch": "e", "revision": 1, "cluster": "c", "models": {}}')
        code = (
            "import sys; sys.modules['opentelemetry'] = None; from router.__main__ import main; "
            f"sys.exit(main(['--table', {str(table)!r}, '--otlp', 'http://127.0.0.1:4318', '--check']))"
        )

        done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

        assert done.returncode == 2
        assert done.stderr.strip() == (
            "Error: tracing: the packages of OpenTelemetry are not installed; traces need them; run: pip install "
            "'modelfleet[tracing]'"
        )
