"""What `manifest.load` accepts and how layers merge; that anything else ends in `ManifestError`; files and the world."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orchestrator.manifest import (
    AccessLogConfig,
    BatchingConfig,
    ClusterConfig,
    Manifest,
    ManifestError,
    ModelConfig,
    RateLimitConfig,
    RetryConfig,
    SecretRef,
    ShadowConfig,
    SloConfig,
    VersionConfig,
    check_world,
    load,
    load_file,
)
from tests.fakes.certificates import self_signed

REPOSITORY = Path(__file__).resolve().parents[3]
BASE = Path("/srv/fleet")


RUNS = "defaults: {source: m, backend: onnx}"


def read(text: str) -> Manifest:
    return load(text, file="models.yaml", base_dir=BASE)


def iris(body: str, before: str = "") -> ModelConfig:
    return read(f"{before}\nmodels:\n  iris: {body}\n").models["iris"]


def version(body: str, *, model: str = "", defaults: str = "{}") -> VersionConfig:
    """The version `1` of a model, with fields of the model and of the defaults in flow style."""
    return iris(f"{{{model} versions: {{'1': {body}}}}}", f"defaults: {defaults}").versions["1"]


class TestLoad:
    def test_accepts_the_example_manifest(self) -> None:
        manifest = load_file(REPOSITORY / "configs" / "models.yaml")

        assert manifest.cluster == "demo"
        assert manifest.models["iris"].traffic == {"1": 90, "2": 10}
        assert manifest.models["digits"].versions["1"].batching == BatchingConfig(64, 0)
        assert manifest.base_dir == REPOSITORY / "configs"

    def test_accepts_the_example_of_traffic_settings(self) -> None:
        manifest = load_file(REPOSITORY / "configs" / "traffic.yaml")

        assert manifest.models["iris"].sticky == "header:x-user"
        assert manifest.models["digits"].rate_limit == RateLimitConfig(50, 100)
        assert manifest.gateway.access_log == AccessLogConfig(0.1)
        assert not manifest.gateway.is_open

    def test_accepts_the_example_of_scaling(self) -> None:
        manifest = load_file(REPOSITORY / "configs" / "scaling.yaml")

        digits, iris = (manifest.models[name].versions["1"].scaling for name in ("digits", "iris"))
        assert manifest.cluster_settings == ClusterConfig("demo", 8.0, 8 * 2**30, 4)
        assert (digits.min, digits.max, [each.min for each in digits.schedule]) == (1, 6, [3, 1])
        assert (iris.min, iris.standby, iris.idle_after_s, iris.gone_after_s) == (0, 1, 600, 3600)

    def test_fills_in_safe_defaults(self) -> None:
        manifest = read("models: {}")

        assert manifest == Manifest(models={}, engine="docker")
        assert manifest.cluster == "default"
        assert (manifest.gateway.host, manifest.gateway.port, manifest.gateway.metrics_port) == (
            "127.0.0.1",
            8080,
            8082,
        )
        assert manifest.gateway.limits.body_bytes == 64 * 2**20

    def test_takes_names_as_they_are_written(self) -> None:
        model = iris("{backend: onnx, source: m, versions: {1.10: {}, 08: {}, on: {}, null: {}, 1e3: {}}}")

        assert list(model.versions) == ["1.10", "08", "on", "null", "1e3"]

    def test_takes_environment_values_as_they_are_written(self) -> None:
        env = version("{source: m, backend: onnx, env: {A: 010, B: yes, C: 1.50, D: '', E: ~/x}}").env

        assert env == {"A": "010", "B": "yes", "C": "1.50", "D": "", "E": "~/x"}

    def test_takes_a_key_without_content_for_an_empty_mapping(self) -> None:
        model = read("models:\n  iris:\n    env:\n    traffic:\n    versions:\n      1: {source: m, backend: onnx}\n")

        assert model.models["iris"].versions["1"].env == {}

    def test_shares_values_by_anchor(self) -> None:
        text = "models:\n  a: &a\n    versions: {1: {source: m, backend: onnx}}\n  b: *a\n"

        assert read(text).models["a"] == read(text).models["b"]

    @pytest.mark.parametrize(
        ("written", "bytes_"),
        [("512Mi", 512 * 2**20), ("'1Gi'", 2**30), ("500M", 500 * 10**6), ("65536Ki", 2**26), ("33554432", 2**25)],
    )
    def test_reads_sizes_with_units(self, written: str, bytes_: int) -> None:
        config = version(f"{{source: m, backend: onnx, resources: {{memory: {written}}}}}")

        assert config.resources.memory_bytes == bytes_

    def test_reads_a_secret_from_a_variable_or_a_file(self) -> None:
        config = version("{source: m, backend: onnx, secrets: {KEY: {env: IRIS_KEY}, CERT: {file: iris.pem}}}")

        assert config.secrets == {"KEY": SecretRef(env="IRIS_KEY"), "CERT": SecretRef(file="iris.pem")}

    def test_needs_no_source_with_an_image(self) -> None:
        config = version("{image: 'registry.example/iris:3', port: 9000}")

        assert (config.image, config.port, config.backend, config.source) == (
            "registry.example/iris:3",
            9000,
            None,
            None,
        )

    def test_says_whether_the_text_names_a_key(self) -> None:
        manifest = read("cluster: demo\nmodels: {}")

        assert manifest.says("cluster")
        assert not manifest.says("engine")

    def test_takes_the_name_of_a_cluster_alone_or_with_its_limits(self) -> None:
        named = read("cluster: {name: demo, max_cpus: 2.5, max_memory: 2Gi}\nmodels: {}")
        unnamed = read("cluster: {max_starting: 2}\nmodels: {}")

        assert (named.cluster, named.says("cluster")) == ("demo", True)
        assert named.cluster_settings == ClusterConfig("demo", 2.5, 2 * 2**30)
        assert (unnamed.cluster, unnamed.says("cluster")) == ("default", False)

    def test_loads_a_thousand_models_in_seconds(self) -> None:
        """A thousand models is what the design promises; the bound is generous, for a quadratic step would miss it far."""
        each = "  m{0}: {{versions: {{'1': {{source: m/{0}}}, '2': {{source: n/{0}, env: {{A: b}}}}}}}}\n"
        text = "defaults: {backend: onnx}\nmodels:\n" + "".join(each.format(n) for n in range(1000))

        began = time.perf_counter()
        manifest = read(text)

        assert len(manifest.models) == 1000
        assert time.perf_counter() - began < 10


class TestInheritance:
    @pytest.mark.parametrize(
        ("defaults", "model", "own", "field", "resolved"),
        [
            ("{concurrency: 1}", "", "{}", "concurrency", 1),
            ("{concurrency: 1}", "concurrency: 2,", "{}", "concurrency", 2),
            ("{concurrency: 1}", "concurrency: 2,", "{concurrency: 3}", "concurrency", 3),
            ("{env: {A: a, B: a}}", "env: {B: b, C: b},", "{env: {C: c}}", "env", {"A": "a", "B": "b", "C": "c"}),
            ("{egress: true}", "", "{egress: false}", "egress", False),
            ("{batching: {max_size: 8}}", "", "{batching: {max_delay_ms: 2}}", "batching", BatchingConfig(8, 2.0)),
            ("{batching: {max_size: 8}}", "", "{batching: {max_size: auto}}", "batching", BatchingConfig("auto", 0.0)),
            ("{slo: {latency_ms: 50}}", "", "{}", "slo", SloConfig(50.0)),
            ("{batching: {max_size: 8}}", "", "{batching: null}", "batching", None),
            ("{batching: null}", "", "{batching: {max_size: 8}}", "batching", BatchingConfig(8, 0.0)),
            ("{secrets: {A: {env: A}}}", "", "{secrets: {A: {file: a}}}", "secrets", {"A": SecretRef(file="a")}),
            ("{source: d}", "", "{}", "source", "d"),
        ],
    )
    def test_the_deepest_layer_wins_and_mappings_merge_by_key(
        self, defaults: str, model: str, own: str, field: str, resolved: object
    ) -> None:
        config = version(own, model=f"source: m, backend: onnx, {model}" if "source" not in defaults else
                         f"backend: onnx, {model}", defaults=defaults)  # fmt: skip

        assert getattr(config, field) == resolved

    def test_groups_merge_by_key(self) -> None:
        config = version(
            "{source: m, backend: onnx, queue: {max: 5}, resources: {cpus: 2}}",
            model="resources: {memory: 1Gi},",
            defaults="{queue: {timeout_ms: 9}, resources: {cpus: 1, pids: 99}}",
        )

        assert (config.queue.max, config.queue.timeout_ms) == (5, 9)
        assert (config.resources.cpus, config.resources.memory_bytes, config.resources.pids) == (2.0, 2**30, 99)

    def test_an_image_takes_the_place_of_an_inherited_backend(self) -> None:
        config = version("{image: a/b}", defaults="{backend: sklearn}")

        assert (config.image, config.backend) == ("a/b", None)

    def test_a_backend_takes_the_place_of_an_inherited_image_and_its_port(self) -> None:
        config = version("{backend: onnx, source: m}", defaults="{image: a/b, port: 9000}")

        assert (config.image, config.backend, config.port) == (None, "onnx", 8000)


class TestRouting:
    def test_a_version_inherits_each_part_of_its_retries(self) -> None:
        found = version(
            "{retry: {on: [connect, reset, 503]}}",
            model="retry: {max: 1},",
            defaults="{source: m, backend: onnx, retry: {budget: 0.1}}",
        )

        assert found.retry == RetryConfig(budget=0.1, max=1, on=("connect", "reset", "503"))

    def test_a_version_says_how_its_replicas_are_chosen_and_left_alone(self) -> None:
        found = version("{source: m, backend: onnx, balance: peak_ewma, eject: false, websocket: true}")

        assert (found.balance, found.eject, found.websocket) == ("peak_ewma", False, True)

    def test_nothing_is_retried_when_the_list_of_causes_is_empty(self) -> None:
        assert version("{source: m, backend: onnx, retry: {on: []}}").retry.on == ()

    @pytest.mark.parametrize("sticky", ["header:x-user", "cookie:session_id"])
    def test_a_model_keeps_callers_by_a_field_or_a_cookie(self, sticky: str) -> None:
        assert iris(f"{{sticky: {sticky}, versions: {{1: {{}}}}}}", RUNS).sticky == sticky

    def test_a_model_keeps_callers_by_key_where_keys_are_required(self) -> None:
        found = iris("{sticky: key, versions: {1: {}}}", f"gateway: {{auth: required}}\n{RUNS}")

        assert found.sticky == "key"

    def test_a_shadow_takes_copies_beside_the_version_with_the_traffic(self) -> None:
        found = iris("{shadow: {version: 2, percent: 12.5}, versions: {1: {}, 2: {}}, traffic: {1: 100}}", RUNS)

        assert found.shadow == ShadowConfig(version="2", percent=12.5)

    def test_a_shadow_may_have_a_share_of_the_traffic_itself(self) -> None:
        found = iris("{shadow: {version: 2}, versions: {1: {}, 2: {}}, traffic: {1: 90, 2: 10}}", RUNS)

        assert found.shadow == ShadowConfig(version="2")

    def test_a_rate_limit_lets_one_second_through_at_once_unless_it_says_more(self) -> None:
        found = iris("{rate_limit: {requests_per_s: 2.5}, versions: {1: {}}}", RUNS)

        assert found.rate_limit == RateLimitConfig(requests_per_s=2.5, burst=None)


class TestGateway:
    def test_runs_as_many_processes_as_there_are_cores_when_told_auto(self) -> None:
        assert read("{gateway: {processes: auto}, models: {}}").gateway.processes == 0

    @pytest.mark.parametrize(
        ("written", "log"),
        [("true", AccessLogConfig()), ("false", None), ("{share: 0.01}", AccessLogConfig(share=0.01))],
    )
    def test_writes_an_access_log_when_told(self, written: str, log: AccessLogConfig | None) -> None:
        assert read(f"{{gateway: {{access_log: {written}}}, models: {{}}}}").gateway.access_log == log

    @pytest.mark.parametrize(
        ("host", "is_open"),
        [("127.0.0.1", False), ("127.8.8.8", False), ("::1", False), ("localhost", False),
         ("0.0.0.0", True), ("10.0.0.7", True), ("::", True), ("models.example", True)],
    )  # fmt: skip
    def test_is_open_when_others_than_this_machine_reach_it_without_a_key(self, host: str, is_open: bool) -> None:
        assert read(f"{{gateway: {{host: '{host}'}}, models: {{}}}}").gateway.is_open == is_open
        assert not read(f"{{gateway: {{host: '{host}', auth: required}}, models: {{}}}}").gateway.is_open


class TestTraffic:
    @pytest.mark.parametrize(
        ("versions", "newest"),
        [
            (["1"], "1"),
            (["9", "10"], "10"),
            (["1.10", "1.9"], "1.10"),
            (["2", "2-rc1"], "2"),
            (["2", "2.1"], "2.1"),
            (["v2", "v10"], "v10"),
            (["2024-02-01", "2024-01-31"], "2024-02-01"),
        ],
    )
    def test_goes_to_the_newest_version_when_left_out(self, versions: list[str], newest: str) -> None:
        model = iris("{backend: onnx, source: m, versions: {" + ", ".join(f"{v}: {{}}" for v in versions) + "}}")

        assert model.traffic == {newest: 100}

    def test_stays_as_written(self) -> None:
        model = iris("{backend: onnx, source: m, versions: {1: {}, 2: {}}, traffic: {1: 100, 2: 0}}")

        assert model.traffic == {"1": 100, "2": 0}


class TestLocating:
    TEXT = """\
defaults:
  source: shared
models:
  iris:
    backend: onnx
    versions:
      "1": {concurrency: 3}
"""

    @pytest.mark.parametrize(
        ("path", "place"),
        [
            (("models", "iris", "versions", "1", "concurrency"), "7:26: models.iris.versions.1.concurrency"),
            (("models", "iris", "versions", "1", "backend"), "5:14: models.iris.backend"),
            (("models", "iris", "versions", "1", "source"), "2:11: defaults.source"),
            (("models", "iris", "versions", "1", "image"), "7:12: models.iris.versions.1.image"),
            (("gateway", "port"), "1:1: gateway.port"),
        ],
    )
    def test_an_error_found_later_points_at_what_was_written(self, path: tuple[str, ...], place: str) -> None:
        assert str(read(self.TEXT).diagnostic(path, "in use")) == f"models.yaml:{place}: in use"


def error_of(text: str) -> ManifestError | None:
    """None when it loads. Anything else that is raised goes through, and fails the test."""
    try:
        read(text)
    except ManifestError as error:
        return error
    return None


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


class TestBounds:
    """Hostile or generated text must cost little and end in a sentence."""

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            (bomb(9), "models.yaml:6:15: more than 200,000 values with aliases expanded; use fewer aliases or models"),
            (
                "[" * 1_000_000,
                "models.yaml:1:21: nested more than 20 deep; no field of a manifest is; remove the nesting",
            ),
            (
                "{" * 1_000_000,
                "models.yaml:1:21: nested more than 20 deep; no field of a manifest is; remove the nesting",
            ),
            (
                "- " * 500_000,
                "models.yaml:1:41: nested more than 20 deep; no field of a manifest is; remove the nesting",
            ),
            (
                "#" * 1_048_577,
                "models.yaml:1:1: 1,048,577 bytes; a manifest has at most 1,048,576; split it into several clusters",
            ),
            (
                "é" * 600_000,
                "models.yaml:1:1: 1,200,000 bytes; a manifest has at most 1,048,576; split it into several clusters",
            ),
            (
                "a: 1\nb: \x1b",
                "models.yaml:2:4: control character U+001B; a manifest is plain text in UTF-8; remove it",
            ),
            ("a: \udcff", "models.yaml:1:4: control character U+DCFF; a manifest is plain text in UTF-8; remove it"),
        ],
    )
    def test_is_refused_within_a_second(self, text: str, sentence: str) -> None:
        began = time.perf_counter()
        with pytest.raises(ManifestError) as caught:
            read(text)

        assert str(caught.value) == sentence
        assert time.perf_counter() - began < 5  # a second where nothing else runs

    def test_errors_beyond_a_hundred_are_left_for_the_next_time(self) -> None:
        with pytest.raises(ManifestError) as caught:
            read("models: {}\n" + "".join(f"unknown{n}: 1\n" for n in range(50_000)))

        assert len(caught.value.diagnostics) == 100


YAMLISH = st.lists(
    st.sampled_from(
        ["models", "iris", "versions", "traffic", "defaults", "env", ":", ": ", "\n", "\n  ", "\n    ", "- ", "{", "}", "[", "]", ",",
         "&a ", "*a", "<<", "!!x ", "'", '"', "#", "|", ">", "?", "---", "...", "%", "@", "1", "0.5", "null", "true", "512Mi", "\t", "é", "\x00", "\u2028"]
    ),
    max_size=40,
).map("".join)  # fmt: skip

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["1", "source", "backend", "image", "env", "secrets", "A", "queue", "max", "versions", "traffic"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


class TestAnyText:
    @given(st.text() | YAMLISH)
    @example("\ufeffmodels: {}")
    @example("models:\r\n  iris: {}\r\n")
    @example("? ")
    @example("|\n")
    @example("&a &b c")
    @settings(max_examples=400, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
    def test_loads_or_raises_manifest_error(self, text: str) -> None:
        error = error_of(text)

        assert error is None or error.diagnostics
        assert error is None or all(each.line >= 1 and each.column >= 1 for each in error.diagnostics)

    @given(
        st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("models", "defaults", "gateway", "images", "engine", "cluster"), VALUES)
        ),
        VALUES,
    )
    @settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
    def test_of_any_shape_loads_or_raises_manifest_error(self, top: dict[str, object], model: object) -> None:
        error = error_of(json.dumps({**top, "models": {"iris": model}} if model else top))

        assert error is None or "\n".join(map(str, error.diagnostics)) == str(error)
        assert error is None or list(error.diagnostics) == sorted(error.diagnostics, key=lambda d: d.line)


class TestLoadFile:
    def test_names_a_file_that_does_not_exist(self, tmp_path: Path) -> None:
        path = tmp_path / "models.yaml"

        with pytest.raises(ManifestError) as caught:
            load_file(path)

        assert str(caught.value) == (
            f"{path}:1:1: no such file; name a manifest, or write one with `modelfleet init FOLDER`"
        )

    def test_names_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match="a folder; a manifest is a file; name the file in it"):
            load_file(tmp_path)

    def test_shows_the_byte_that_is_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "models.yaml"
        path.write_bytes(b"cluster: demo\n# caf" + b"\xe9\n")

        with pytest.raises(ManifestError) as caught:
            load_file(path)

        assert str(caught.value) == (
            f"{path}:2:6: byte 0xe9 is not UTF-8; a manifest is UTF-8 text; save it in that encoding"
        )

    def test_reads_no_more_of_a_large_file_than_the_bound(self, tmp_path: Path) -> None:
        path = tmp_path / "models.yaml"
        with path.open("wb") as stream:
            stream.truncate(1 << 40)

        with pytest.raises(ManifestError, match="more than 1,048,576 bytes"):
            load_file(path)

    def test_reads_a_file_with_a_byte_order_mark_and_windows_line_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "models.yaml"
        path.write_bytes(b"\xef\xbb\xbfcluster: demo\r\nmodels: {}\r\n")

        assert load_file(path).cluster == "demo"


class TestCheckWorld:
    def check(self, folder: Path, text: str, **environ: str) -> list[str]:
        manifest = load(text, file="models.yaml", base_dir=folder)
        return [str(each) for each in check_world(manifest, environ=environ)]

    def test_is_content_with_what_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "model.onnx").write_bytes(b"\x08")
        (tmp_path / "key").write_text("s3cret\n")

        text = "models: {a: {versions: {1: {source: m, backend: onnx, secrets: {A: {env: A}, B: {file: key}}}}}}"

        assert self.check(tmp_path, text, A="x") == []

    def test_looks_for_the_headers_of_a_collector(self, tmp_path: Path) -> None:
        text = "{observability: {tracing: {otlp: 'http://c:4318', headers: {file: token}}}, models: {}}"

        (fault,) = self.check(tmp_path, text)

        assert fault == (
            f"models.yaml:1:67: observability.tracing.headers.file: '{tmp_path}/token' does not exist; write the secret "
            "into it, or correct the path"
        )
        (tmp_path / "token").write_text("authorization: Bearer x")
        assert self.check(tmp_path, text) == []

    def test_says_what_traces_need_where_it_is_not_installed(self) -> None:
        code = (
            "import sys; sys.modules['opentelemetry'] = None\n"
            "from pathlib import Path\nfrom orchestrator.manifest import check_world, load\n"
            "text = '{observability: {tracing: {otlp: http://c:4318}}, models: {}}'\n"
            "print(*check_world(load(text, file='models.yaml', base_dir=Path('/')), environ={}))"
        )

        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

        assert done.stdout.strip() == (
            "models.yaml:1:27: observability.tracing: the packages of OpenTelemetry are not installed where the control "
            "plane runs; traces need them; run: pip install 'modelfleet[tracing]'"
        )

    def test_does_not_look_at_remote_sources(self, tmp_path: Path) -> None:
        assert self.check(tmp_path, "models: {a: {versions: {1: {source: 's3://bucket/m', backend: onnx}}}}") == []

    def test_names_every_source_that_cannot_be_served_from(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "hollow.onnx").touch()
        text = (
            "defaults: {backend: onnx}\nmodels:\n  a:\n    versions:\n"
            "      1: {source: empty}\n      2: {source: hollow.onnx}\n      3: {source: absent}\n"
            "      4: {source: ~nobody-by-this-name/m}\n"
        )

        assert self.check(tmp_path, text) == [
            f"models.yaml:5:19: models.a.versions.1.source: '{tmp_path}/empty' is an empty folder; put the model into it",
            f"models.yaml:6:19: models.a.versions.2.source: '{tmp_path}/hollow.onnx' is empty; "
            "put the model there, or correct the path",
            f"models.yaml:7:19: models.a.versions.3.source: '{tmp_path}/absent' does not exist; "
            "put the model there, or correct the path",
            "models.yaml:8:19: models.a.versions.4.source: '~nobody-by-this-name/m' names no place: "
            "Could not determine home directory.; write its path in full",
        ]

    def test_names_an_inherited_source_once(self, tmp_path: Path) -> None:
        text = "defaults: {source: absent, backend: onnx}\nmodels: {a: {versions: {1: {}, 2: {}}}}"

        found = self.check(tmp_path, text)

        assert [each.split(": ")[0] for each in found] == ["models.yaml:1:20"]

    def test_names_secrets_without_a_value_and_never_shows_one(self, tmp_path: Path) -> None:
        (tmp_path / "m.onnx").write_bytes(b"\x08")
        (tmp_path / "hollow").touch()
        (tmp_path / "binary").write_bytes(b"s3cret\xff")
        text = (
            "models:\n  a:\n    source: m.onnx\n    backend: onnx\n    versions: {1: {}}\n    secrets:\n"
            "      A: {env: UNSET}\n      B: {env: HOLLOW}\n      C: {file: hollow}\n      D: {file: binary}\n"
        )

        assert self.check(tmp_path, text, HOLLOW="") == [
            "models.yaml:7:16: models.a.secrets.A.env: 'UNSET' is not set where this was checked; export it before "
            "`modelfleet up`, or use `file:`",
            "models.yaml:8:16: models.a.secrets.B.env: 'HOLLOW' is set but empty; give it a value",
            f"models.yaml:9:17: models.a.secrets.C.file: '{tmp_path}/hollow' is empty; "
            "write the secret into it, or correct the path",
            f"models.yaml:10:17: models.a.secrets.D.file: '{tmp_path}/binary' is not UTF-8 text; a secret becomes an "
            "environment variable; encode it, for example as base64",
        ]

    def test_refuses_a_gateway_that_is_open_to_strangers(self, tmp_path: Path) -> None:
        assert self.check(tmp_path, "gateway:\n  host: 0.0.0.0\nmodels: {}\n") == [
            "models.yaml:2:9: gateway.host: '0.0.0.0' lets other machines in; `auth: off` is for loopback alone; write "
            "`auth: required`, and give each caller a key with `modelfleet keys create`"
        ]
        assert self.check(tmp_path, "{gateway: {host: 0.0.0.0, auth: required}, models: {}}") == []

    def test_is_content_with_a_certificate_and_its_key(self, tmp_path: Path) -> None:
        made = self_signed(tmp_path)
        tls = f"{{certificate: {made.certificate.name}, key: {made.key.name}, client_ca: {made.certificate}}}"

        assert self.check(tmp_path, f"{{gateway: {{tls: {tls}}}, models: {{}}}}") == []

    def test_names_every_file_of_tls_that_is_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "tls").mkdir()
        text = "gateway:\n  tls:\n    certificate: tls/a.pem\n    key: tls\n    client_ca: /absent/ca.pem\nmodels: {}\n"

        assert self.check(tmp_path, text) == [
            f"models.yaml:3:18: gateway.tls.certificate: '{tmp_path}/tls/a.pem' does not exist; "
            "put the PEM file there, or correct the path",
            f"models.yaml:4:10: gateway.tls.key: '{tmp_path}/tls' is neither a file nor a folder; "
            "put the PEM file there, or correct the path",
            "models.yaml:5:16: gateway.tls.client_ca: '/absent/ca.pem' does not exist; "
            "put the PEM file there, or correct the path",
        ]

    def test_refuses_a_key_of_another_certificate_and_an_authority_that_is_none(self, tmp_path: Path) -> None:
        one, other = self_signed(tmp_path, "one"), self_signed(tmp_path, "other")
        tls = f"{{certificate: {one.certificate}, key: {other.key}, client_ca: {other.key}}}"

        key, authority = self.check(tmp_path, f"{{gateway: {{tls: {tls}}}, models: {{}}}}")

        assert "gateway.tls.key: it and the certificate are no pair of PEM files that can be used" in key
        assert "gateway.tls.client_ca: no PEM file of certificates" in authority
        assert "give the authority's certificate" in authority

    def test_refuses_a_key_that_needs_a_password(self, tmp_path: Path) -> None:
        made = self_signed(tmp_path)
        locked = tmp_path / "locked.key"
        command = ["openssl", "ec", "-in", str(made.key), "-aes256", "-passout", "pass:secret", "-out", str(locked)]
        subprocess.run(command, check=True, capture_output=True)

        found = self.check(
            tmp_path, f"{{gateway: {{tls: {{certificate: {made.certificate}, key: {locked}}}}}, models: {{}}}}"
        )

        assert len(found) == 1
        assert found[0].endswith("give the certificate's own key, without a password")

    @pytest.mark.parametrize("backend", ["python", "sklearn", "mlflow"])
    def test_reads_the_requirements_beside_a_model(self, tmp_path: Path, backend: str) -> None:
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "requirements.txt").write_bytes(b"caf\xe9\n")

        found = self.check(tmp_path, f"models: {{a: {{versions: {{1: {{source: m, backend: {backend}}}}}}}}}")

        assert found == [
            f"models.yaml:1:37: models.a.versions.1.source: '{tmp_path}/m/requirements.txt' is not UTF-8 text; "
            "save it in that encoding"
        ]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_names_a_source_that_may_not_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "m.onnx").write_bytes(b"\x08")
        (tmp_path / "m.onnx").chmod(0)

        found = self.check(tmp_path, "models: {a: {versions: {1: {source: m.onnx, backend: onnx}}}}")

        assert found[0].endswith("cannot be read: Permission denied; check its permissions")
