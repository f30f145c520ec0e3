"""predict: the request as any HTTP client would send it, and the gateway's answer to the byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.core.keys import compose
from tests.fakes.admin_api import FakeAdminApi, FakeGateway, World
from tests.fakes.certificates import Certificate, self_signed
from tests.unit.orchestrator.cli.conftest import Run

V1 = '{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
V2 = '{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}]}'
V2_ANSWER = b'{"model_name":"iris","outputs":[{"name":"label","datatype":"BYTES","shape":[1],"data":["setosa"]}]}'


@pytest.fixture
def gateway(world: World) -> Iterator[FakeGateway]:
    def script(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        fields = {"x-request-id": "r-1", "x-model-version": "2"}
        if "/nope" in path or "/versions/9" in path:
            code = "MODEL_NOT_FOUND" if "nope" in path else "VERSION_NOT_FOUND"
            return 404, fields, json.dumps({"error": "it is not here", "code": code, "request_id": "r-1"}).encode()
        if path.startswith("/v2"):
            return 200, fields, V2_ANSWER
        return 200, fields, b'{"predictions": [1]}'

    with FakeGateway(script) as gateway:
        world.gateway_url = gateway.url
        yield gateway


class TestKeys:
    """A gateway with `auth: required`."""

    @pytest.fixture
    def locked(self, world: World) -> Iterator[FakeGateway]:
        def script(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
            if locked.requests[-1][2].get("authorization") == "Bearer good":
                return 200, {}, b'{"predictions": [1]}'
            refusal = {"error": "this gateway wants an API key", "code": "UNAUTHENTICATED", "request_id": "r"}
            return 401, {}, json.dumps(refusal).encode()

        with FakeGateway(script) as locked:
            world.gateway_url = locked.url
            yield locked

    def test_sends_the_key_of_the_option(self, api: FakeAdminApi, locked: FakeGateway, run: Run) -> None:
        assert run("predict", "iris", "--data", V1, "--key", "good").exit_code == 0

    def test_sends_the_key_of_the_environment_and_shows_it_nowhere(
        self, api: FakeAdminApi, locked: FakeGateway, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MODELFLEET_API_KEY", "good")

        result = run("predict", "iris", "--data", V1, "-v")

        assert result.exit_code == 0
        assert '-H "authorization: Bearer $MODELFLEET_API_KEY"' in result.stderr
        assert "good" not in result.output

    def test_says_how_to_get_one(self, api: FakeAdminApi, locked: FakeGateway, run: Run) -> None:
        result = run("predict", "iris", "--data", V1)

        assert result.exit_code == 1
        assert "Hint: `modelfleet keys create NAME` makes a key" in result.stderr

    def test_says_that_a_key_was_cut(self, api: FakeAdminApi, locked: FakeGateway, run: Run) -> None:
        whole = compose(bytes(range(25)))[1]

        assert "not copied whole" in run("predict", "iris", "--data", V1, "--key", whole[:-1]).stderr
        assert "not copied whole" not in run("predict", "iris", "--data", V1, "--key", whole).stderr


class TestRouting:
    @pytest.mark.parametrize(
        ("arguments", "path"),
        [
            (["iris", "--data", V1], "/v1/models/iris:predict"),
            (["iris@2", "--data", V1], "/v1/models/iris/versions/2:predict"),
            (["iris", "--label", "stable", "--data", V1], "/v1/models/iris/labels/stable:predict"),
            (["iris", "--data", V2], "/v2/models/iris/infer"),
            (["iris@2", "--data", V2], "/v2/models/iris/versions/2/infer"),
            (["iris", "--data", '{"inputs": {"a": [1], "b": [2]}}'], "/v1/models/iris:predict"),
        ],
    )
    def test_sends_each_form_where_it_is_understood(
        self, api: FakeAdminApi, gateway: FakeGateway, run: Run, arguments: list[str], path: str
    ) -> None:
        result = run("predict", *arguments)

        assert result.exit_code == 0, result.output
        method, asked, fields, body = gateway.requests[0]
        assert (method, asked, body.decode()) == ("POST", path, arguments[-1])
        assert fields["content-type"] == "application/json"

    def test_sends_the_timeout(self, api: FakeAdminApi, gateway: FakeGateway, run: Run) -> None:
        run("predict", "iris", "--data", V1, "--timeout-ms", "250")

        assert gateway.requests[0][2]["x-request-timeout-ms"] == "250"

    def test_reads_a_file(self, api: FakeAdminApi, gateway: FakeGateway, run: Run, tmp_path: Path) -> None:
        (tmp_path / "request.json").write_text(V2)

        run("predict", "iris", "--file", str(tmp_path / "request.json"))

        assert gateway.requests[0][3].decode() == V2

    def test_reads_a_file_that_is_named_as_for_curl(
        self, api: FakeAdminApi, gateway: FakeGateway, run: Run, tmp_path: Path
    ) -> None:
        (tmp_path / "request.json").write_text(V2)

        run("predict", "iris", "-d", f"@{tmp_path / 'request.json'}")

        assert gateway.requests[0][3].decode() == V2

    def test_reads_standard_input(self, api: FakeAdminApi, gateway: FakeGateway, run: Run) -> None:
        assert run("predict", "iris", stdin=V1).exit_code == 0

        assert gateway.requests[0][3].decode() == V1

    def test_asks_the_gateway_while_the_control_plane_is_down(
        self, gateway: FakeGateway, run: Run, state_dir: Path
    ) -> None:
        (state_dir / "gateway").mkdir()
        port = int(gateway.url.rsplit(":", 1)[1])
        (state_dir / "gateway" / "config.json").write_text(json.dumps({"host": "0.0.0.0", "port": port}))

        assert run("predict", "iris", "--data", V1).exit_code == 0


class TestTls:
    @pytest.fixture
    def made(self, tmp_path: Path) -> Certificate:
        return self_signed(tmp_path)

    @pytest.fixture
    def configured(self, gateway: FakeGateway, made: Certificate, state_dir: Path) -> None:
        """The gateway speaks TLS, and its own settings say so."""
        gateway.wear(made.certificate, made.key)
        (state_dir / "gateway").mkdir()
        config = {
            "host": "0.0.0.0",
            "port": int(gateway.url.rsplit(":", 1)[1]),
            "tls": {"certificate": "a", "key": "b"},
        }
        (state_dir / "gateway" / "config.json").write_text(json.dumps(config))

    @pytest.mark.usefixtures("configured")
    def test_asks_over_tls_whom_it_believes(self, run: Run, made: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(made.certificate))

        assert run("predict", "iris", "--data", V1).exit_code == 0

    @pytest.mark.usefixtures("configured")
    def test_says_how_to_believe_a_certificate(self, run: Run) -> None:
        result = run("predict", "iris", "--data", V1)

        assert result.exit_code == 1
        assert "its certificate is not believed: self" in result.stderr
        assert "SSL_CERT_FILE" in result.stderr


class TestAnswer:
    def test_json_is_the_gateways_body_to_the_byte(self, api: FakeAdminApi, gateway: FakeGateway, run: Run) -> None:
        assert run("predict", "iris", "--data", V2, "-o", "json").stdout_bytes == V2_ANSWER + b"\n"

    def test_shows_tensors_as_a_table(self, api: FakeAdminApi, gateway: FakeGateway, run: Run) -> None:
        lines = run("predict", "iris", "--data", V2).stdout.splitlines()

        assert lines == [
            "OUTPUT  TYPE   SHAPE  VALUES",
            'label   BYTES  [1]    ["setosa"]',
            "answered by version 2",
        ]

    def test_shows_predictions_by_row(self, api: FakeAdminApi, gateway: FakeGateway, run: Run) -> None:
        assert run("predict", "iris", "--data", V1, "-q").stdout == "#  PREDICTION\n0  1\n"

    def test_verbose_shows_the_curl_line_and_the_header_fields(
        self, api: FakeAdminApi, gateway: FakeGateway, run: Run
    ) -> None:
        result = run("predict", "iris", "--data", V1, "-v", "-o", "json")

        assert f"> curl {gateway.url}/v1/models/iris:predict -d '{V1}'" in result.stderr
        assert "< x-request-id: r-1" in result.stderr
        assert json.loads(result.stdout) == {"predictions": [1]}


class TestRefusal:
    def test_of_an_unknown_model_proposes_the_nearest(
        self, api: FakeAdminApi, gateway: FakeGateway, world: World, run: Run
    ) -> None:
        world.models = [world.models[0].model_copy(update={"name": "nopes"})]

        result = run("predict", "nope", "--data", V1)

        assert result.exit_code == 1
        assert result.stderr == (
            "Error: it is not here (MODEL_NOT_FOUND, status 404, request r-1)\nHint: did you mean 'nopes'?\n"
        )

    def test_of_an_unknown_version_names_those_there_are(
        self, api: FakeAdminApi, gateway: FakeGateway, run: Run
    ) -> None:
        assert "Hint: there are: 1, 2" in run("predict", "iris@9", "--data", V1).stderr

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["iris", "--data", "[1, 2]"], "the request is a JSON list; two forms are accepted"),
            (["iris", "--data", '{"x": 1}'], "the request is an object with 'x'; two forms are accepted"),
            (["iris", "--data", "{"], "the request is not JSON"),
            (["iris@", "--data", V1], "not MODEL or MODEL@VERSION"),
            (["iris", "--file", "nowhere.json"], "No such file"),
            (["iris", "--data", V1, "--file", "x"], "both were given"),
            (["iris@1", "--label", "a", "--data", V1], "both were given"),
            (["iris", "--label", "stable", "--data", V2], "the v2 protocol knows no labels"),
        ],
    )
    def test_of_what_cannot_be_meant_ends_with_two(
        self, api: FakeAdminApi, gateway: FakeGateway, run: Run, arguments: list[str], sentence: str
    ) -> None:
        result = run("predict", *arguments)

        assert result.exit_code == 2
        assert sentence in result.stderr
        assert gateway.requests == []

    def test_of_a_gateway_that_does_not_answer_points_to_doctor(
        self, api: FakeAdminApi, world: World, run: Run, free_port: Callable[[], int]
    ) -> None:
        world.gateway_url = f"http://127.0.0.1:{free_port()}"

        result = run("predict", "iris", "--data", V1)

        assert result.exit_code == 1
        assert "modelfleet doctor" in result.stderr
