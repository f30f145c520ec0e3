"""bench: load on a real server through the command, what it shows, and how it ends."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.admin_api import FakeAdminApi, FakeGateway, World
from tests.fakes.certificates import Certificate, self_signed
from tests.unit.orchestrator.cli.conftest import Run, Spawn, eventually
from tests.unit.orchestrator.cli.terminal import Terminal

V1 = '{"instances": [[1]]}'
METADATA = {"name": "iris", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], "outputs": []}


@pytest.fixture
def gateway(world: World) -> Iterator[FakeGateway]:
    """Knows iris, wants no key, and answers text with 503."""

    def script(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if method == "GET":
            return 200, {}, json.dumps(METADATA).encode()
        if "/nope" in path:
            return 404, {}, b'{"error": "it is not here", "code": "MODEL_NOT_FOUND", "request_id": "r"}'
        if "/text" in path:
            return 503, {}, b'{"error": "the queue is full", "code": "OVERLOADED", "request_id": "r"}'
        return 200, {}, b'{"predictions": [1]}'

    with FakeGateway(script) as gateway:
        world.gateway_url = gateway.url
        yield gateway


def short(*more: str) -> list[str]:
    return ["bench", "iris", "--rate", "50", "--duration", "400ms", "--arrivals", "constant", *more]


class TestLoad:
    def test_at_a_rate_sends_so_many(self, api: FakeAdminApi, gateway: FakeGateway, run: Run) -> None:
        result = run(*short("--data", V1))

        assert result.exit_code == 0, result.output
        assert "20 sent, 20 answered (50.0/s)" in result.stdout
        assert "errors: none" in result.stdout
        assert [(path, body.decode()) for _, path, _, body in gateway.requests] == [
            ("/v1/models/iris:predict", V1)
        ] * 20

    def test_of_a_closed_loop(self, api: FakeAdminApi, gateway: FakeGateway, run: Run) -> None:
        result = run("bench", "iris", "--concurrency", "2", "--duration", "300ms", "--data", V1, "-o", "json")

        shown = json.loads(result.stdout)
        assert shown["mode"] == "closed"
        assert shown["answered"] == len(gateway.requests) > 2

    def test_of_a_trace_is_compressed_and_scaled(
        self, api: FakeAdminApi, gateway: FakeGateway, run: Run, tmp_path: Path
    ) -> None:
        trace = tmp_path / "t.csv"
        trace.write_text("t_seconds\n0\n10\n20\n40\n")

        result = run("bench", "iris", "--trace", str(trace), "--compress", "400ms", "--scale", "3", "--data", V1)

        assert result.exit_code == 0, result.output
        assert "12 requests of t.csv in 0.40" in result.stdout or "12 requests of t.csv in 40" in result.stdout
        assert len(gateway.requests) == 12

    def test_without_a_request_makes_one_of_the_metadata(
        self, api: FakeAdminApi, gateway: FakeGateway, run: Run
    ) -> None:
        assert run(*short()).exit_code == 0

        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0.0] * 4}
        assert gateway.requests[0][1] == "/v2/models/iris"
        assert {(path, body) for _, path, _, body in gateway.requests[1:]} == {
            ("/v2/models/iris/infer", json.dumps({"inputs": [tensor]}).encode())
        }

    def test_of_a_version_asks_for_it(self, api: FakeAdminApi, gateway: FakeGateway, run: Run) -> None:
        run("bench", "iris@2", "--rate", "20", "--duration", "100ms", "--data", V1)

        assert {path for _, path, _, _ in gateway.requests} == {"/v1/models/iris/versions/2:predict"}

    def test_sends_the_key(self, api: FakeAdminApi, gateway: FakeGateway, run: Run) -> None:
        run(*short("--data", V1, "--key", "secret"))

        assert {fields["authorization"] for _, _, fields, _ in gateway.requests} == {"Bearer secret"}

    def test_over_tls(
        self, gateway: FakeGateway, run: Run, state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: Certificate = self_signed(tmp_path)
        gateway.wear(made.certificate, made.key)
        (state_dir / "gateway").mkdir()
        config = {"host": "127.0.0.1", "port": int(gateway.url.rsplit(":", 1)[1]), "tls": {"certificate": "a"}}
        (state_dir / "gateway" / "config.json").write_text(json.dumps(config))

        assert "its certificate is not believed" in run(*short("--data", V1)).stderr
        monkeypatch.setenv("SSL_CERT_FILE", str(made.certificate))
        assert run(*short("--data", V1)).exit_code == 0


class TestFigures:
    def test_as_json_have_all_that_was_counted(self, api: FakeAdminApi, gateway: FakeGateway, run: Run) -> None:
        shown = json.loads(run(*short("--data", V1, "--slo", "10s", "-o", "json")).stdout)

        assert (shown["sent"], shown["answered"], shown["unfinished"]) == (20, 20, 0)
        assert shown["errors"] == {"count": 0, "percent": 0.0, "by_kind": {}}
        assert shown["late"] == {"slo_ms": 10_000.0, "count": 0, "percent": 0.0}
        assert set(shown["latency_ms"]) == {"min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"}
        assert sum(second["sent"] for second in shown["seconds"]) == 20
        assert sum(count for _, count in shown["histogram"]) == 20

    def test_name_errors_by_their_code_and_end_with_one(
        self, api: FakeAdminApi, gateway: FakeGateway, run: Run
    ) -> None:
        result = run("bench", "text", "--rate", "50", "--duration", "200ms", "--arrivals", "constant", "--data", V1)

        assert result.exit_code == 1
        assert "errors: 10 (100 %): 10 × 503 OVERLOADED" in result.stdout

    def test_are_held_against_limits(self, api: FakeAdminApi, gateway: FakeGateway, run: Run) -> None:
        kept = run(*short("--data", V1, "--assert", "p99<30s,errors<0.1%"))
        broken = run(*short("--data", V1, "--assert", "p99<30s,max<1us"))

        assert (kept.exit_code, broken.exit_code) == (0, 1)
        assert "kept    errors<0.1%: 0.0000 %" in kept.stdout
        assert "BROKEN  max<1us" in broken.stdout

    def test_are_shown_when_interrupted(self, api: FakeAdminApi, gateway: FakeGateway, spawn: Spawn) -> None:
        benching = spawn("bench", "iris", "--rate", "50", "--duration", "10m", "--data", V1)
        eventually(lambda: len(gateway.requests) > 5)

        benching.send_signal(signal.SIGINT)
        out, err = benching.communicate(timeout=20)

        assert benching.returncode == 130
        assert "interrupted: what was measured until then" in out
        assert "P99.9" in out
        assert "Traceback" not in err

    def test_go_on_in_one_line_on_a_terminal(self, api: FakeAdminApi, gateway: FakeGateway, state_dir: Path) -> None:
        arguments = ["bench", "iris", "--rate", "50", "--duration", "1500ms", "--data", V1]

        with Terminal(arguments, columns=120) as terminal:
            terminal.wait_for("answered  0 failed")
            terminal.wait_for("errors: none")


class TestRefusal:
    def test_of_an_unknown_model_proposes_the_nearest(
        self, api: FakeAdminApi, gateway: FakeGateway, world: World, run: Run
    ) -> None:
        world.models = [world.models[0].model_copy(update={"name": "nopes"})]

        result = run("bench", "nope", "--rate", "10", "--data", V1)

        assert result.exit_code == 1
        assert "it is not here (MODEL_NOT_FOUND, status 404" in result.stderr
        assert "Hint: did you mean 'nopes'?" in result.stderr

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            ([], "no load was given"),
            (["--rate", "1", "--concurrency", "1"], "--rate and --concurrency: 2 were given"),
            (["--rate", "1", "--speed", "2"], "--speed and --compress change a trace"),
            (["--trace", "t.csv", "--speed", "2", "--compress", "1m"], "--speed and --compress: both were given"),
            (["--trace", "t.csv"], "trace 't.csv': No such file or directory"),
            (["--rate", "1", "--duration", "10"], "duration '10': not a number with a unit"),
            (["--rate", "0"], "'--rate'"),
            (["--rate", "1", "--duration", "0s"], "--duration 0s: not longer than nothing"),
            (["--trace", "TRACE", "--compress", "0s"], "--compress 0s: not longer than nothing"),
            (["--rate", "1", "--timeout", "0s"], "--timeout 0s: not longer than nothing"),
            (["--rate", "1", "--assert", "p99<1"], "column 6: the end; here stands the unit of p99"),
            (["--rate", "1", "--key", "a\nb"], "the API key has characters that no key has"),
        ],
    )
    def test_of_what_cannot_be_meant_ends_with_two(
        self, api: FakeAdminApi, gateway: FakeGateway, run: Run, arguments: list[str], sentence: str, tmp_path: Path
    ) -> None:
        (tmp_path / "t.csv").write_text("0\n1\n")

        result = run(
            "bench", "iris", "--data", V1, *[each.replace("TRACE", str(tmp_path / "t.csv")) for each in arguments]
        )

        assert result.exit_code == 2
        assert sentence in result.stderr
        assert gateway.requests == []

    def test_of_a_gateway_that_does_not_answer(self, api: FakeAdminApi, world: World, run: Run) -> None:
        result = run("bench", "iris", "--rate", "1", "--data", V1)

        assert result.exit_code == 1
        assert "Error: gateway http://127.0.0.1:9: no answer" in result.stderr
