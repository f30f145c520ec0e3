"""The environment of a replica: what is read, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker_image.server.errors import ModelFailed
from worker_image.server.settings import Batching, add_secrets, limit_threads, read, refuse_telemetry

LEAST = {
    "MODELFLEET_MODEL": "iris",
    "MODELFLEET_VERSION": "1",
    "MODELFLEET_BACKEND": "sklearn",
    "MODELFLEET_MODEL_DIR": "/model",
}


class TestRead:
    def test_has_the_contracts_defaults(self) -> None:
        settings = read({**LEAST, "MODELFLEET_CPUS": "0.5"})

        assert (settings.port, settings.threads, settings.tuning.concurrency) == (8000, 1, 32)
        assert settings.tuning.max_body_bytes == 67_108_864
        assert settings.batching == Batching(max_size="auto", max_delay_ms=0, max_request_rows=None)

    def test_reads_the_json_of_the_contract(self) -> None:
        text = '{"concurrency": 8, "load_timeout_s": 1.5, "batching": {"max_size": 4, "max_delay_ms": 2}}'

        settings = read({**LEAST, "MODELFLEET_SETTINGS": text, "MODELFLEET_CPUS": "2.9"})

        assert settings.threads == 2
        assert settings.tuning.load_timeout_s == 1.5
        assert settings.batching == Batching(4, 2)

    @pytest.mark.parametrize(
        ("variable", "value", "words"),
        [
            ("MODELFLEET_MODEL", "", "MODELFLEET_MODEL: not set"),
            ("MODELFLEET_PORT", "http", "MODELFLEET_PORT: 'http'; a port is a whole number in 1..65535"),
            ("MODELFLEET_CPUS", "two", "MODELFLEET_CPUS: 'two'"),
            ("MODELFLEET_CPUS", "nan", "MODELFLEET_CPUS: 'nan'"),
            ("MODELFLEET_SETTINGS", "{", "MODELFLEET_SETTINGS: '{'"),
            ("MODELFLEET_SETTINGS", '{"concurency": 1}', "unknown field `concurency`"),
            ("MODELFLEET_SETTINGS", '{"concurrency": 0}', "MODELFLEET_SETTINGS: concurrency: 0; the least value is 1"),
            ("MODELFLEET_SETTINGS", '{"batching": {"max_size": 0}}', "batching.max_size: 0"),
            ("MODELFLEET_SETTINGS", '{"batching": {"max_size": "all"}}', "Invalid enum value 'all'"),
            ("MODELFLEET_SETTINGS", '{"batching": {"max_request_rows": 0}}', "batching.max_request_rows: 0"),
            ("MODELFLEET_SETTINGS", '{"slo_ms": 0}', "slo_ms: 0"),
        ],
    )
    def test_refuses_what_is_wrong_with_exit_code_64(self, variable: str, value: str, words: str) -> None:
        with pytest.raises(ModelFailed) as failed:
            read({**LEAST, variable: value})

        assert failed.value.exit_code == 64
        assert words in failed.value.reason


class TestEnvironment:
    def test_secrets_become_variables_without_their_last_line_break(self, tmp_path: Path) -> None:
        (tmp_path / "TOKEN").write_text("s3cret\n")
        (tmp_path / "..data").mkdir()
        environ: dict[str, str] = {}

        add_secrets(str(tmp_path), environ)

        assert environ == {"TOKEN": "s3cret"}

    def test_a_secrets_directory_that_is_not_there_is_a_wrong_setting(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFailed, match="MODELFLEET_SECRETS_DIR"):
            add_secrets(str(tmp_path / "none"), {})

    def test_thread_counts_follow_the_cpu_limit_unless_the_version_sets_them(self) -> None:
        environ = {"OMP_NUM_THREADS": "7"}

        limit_threads(2, environ)

        assert environ["OMP_NUM_THREADS"] == "7"
        assert environ["OPENBLAS_NUM_THREADS"] == "2"

    def test_telemetry_of_libraries_is_off(self) -> None:
        environ: dict[str, str] = {}

        refuse_telemetry(environ)

        assert environ == {"ORT_DISABLE_TELEMETRY": "1"}
