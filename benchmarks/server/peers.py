"""The systems that a user would pick instead: what each installs, how each is started, and what is asked of it.

Each is run as its own documentation advises for one model and one worker, without an access log, and serves what is in
`apps/`. Owns nothing that runs: `lineup.py` starts them. Add a peer by adding a function to `PEERS`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

APPS: Final = Path(__file__).parent / "apps"
ROW: Final = [5.1, 3.5, 1.4, 0.2]
INSTANCES: Final = json.dumps({"instances": [ROW]}).encode()
V2: Final = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": ROW}]}).encode()


@dataclass(frozen=True)
class Place:
    """Where a peer runs: its environment's `bin`, a directory of its own, and its port."""

    bin: Path
    directory: Path
    port: int

    def python(self, app: str, *options: str) -> list[str]:
        return [str(self.bin / "python"), str(APPS / app), *options]


@dataclass(frozen=True)
class Command:
    """How a peer is started, and the request for one prediction."""

    argv: list[str]
    path: str = "/predict"
    body: bytes = INSTANCES
    environ: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """`environment` is the virtual environment's name, with `packages` in it; several peers may share one."""

    name: str
    environment: str
    packages: tuple[str, ...]
    command: Callable[[Place], Command]
    python: str = "python3"


def fastapi(place: Place) -> Command:
    options = ["--host", "127.0.0.1", "--port", str(place.port), "--no-access-log", "--log-level", "warning"]
    return Command([str(place.bin / "uvicorn"), "fastapi_app:app", "--workers", "1", *options])


def fastapi_async(place: Place) -> Command:
    return Command(fastapi(place).argv, environ={"BENCH_ASYNC": "1"})


def mlserver(place: Place) -> Command:
    return _mlserver(place, {"implementation": "mlserver_sklearn.SKLearnModel"}, parallel_workers=1)


def mlserver_inline(place: Place) -> Command:
    return _mlserver(place, {"implementation": "mlserver_sklearn.SKLearnModel"}, parallel_workers=0)


def mlserver_image(place: Place) -> Command:
    """For tensors of images: the runtime of `apps/mlserver_image.py`, in the server's own process."""
    return _mlserver(place, {"implementation": "mlserver_image.Image"}, parallel_workers=0)


def _mlserver(place: Place, model: dict[str, object], parallel_workers: int) -> Command:
    settings = {"host": "127.0.0.1", "http_port": place.port, "grpc_port": place.port + 1}
    settings |= {"metrics_port": place.port + 2, "parallel_workers": parallel_workers, "debug": False}
    (place.directory / "settings.json").write_text(json.dumps(settings))
    model = {"name": "iris", "parameters": {"uri": str(place.directory / "model.joblib")}, **model}
    (place.directory / "model-settings.json").write_text(json.dumps(model))
    argv = [str(place.bin / "mlserver"), "start", str(place.directory)]
    return Command(argv, "/v2/models/iris/infer", V2)


def bentoml(place: Place) -> Command:
    argv = [str(place.bin / "bentoml"), "serve", "bentoml_app:Iris", "--host", "127.0.0.1", "--port", str(place.port)]
    return Command(argv, environ={"BENTOML_HOME": str(place.directory), "BENTOML_DO_NOT_TRACK": "true"})


def litserve(place: Place) -> Command:
    return Command(place.python("litserve_app.py"))


def kserve(place: Place) -> Command:
    options = ("--enable_latency_logging", "false", "--log_config_file", str(APPS / "kserve_log.yaml"))
    # Else its FastAPI prints a deprecation warning for each request.
    environ = {"PYTHONWARNINGS": "ignore"}
    return Command(place.python("kserve_app.py", *options), "/v2/models/iris/infer", V2, environ)


def ray(place: Place) -> Command:
    return Command(place.python("ray_app.py"), environ={"RAY_USAGE_STATS_ENABLED": "0"})


def ray_haproxy(place: Place) -> Command:
    command = ray(place)
    environ = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_HAPROXY_NBTHREAD": "2", "BENCH_ONGOING": "100"}
    return Command(command.argv, environ={**command.environ, **environ})


def pytriton(place: Place) -> Command:
    return Command(place.python("triton_app.py"), "/v2/models/iris/infer", V2)


def torchserve(place: Place) -> Command:
    store = place.directory / "store"
    store.mkdir()
    archiver = [str(place.bin / "torch-model-archiver"), "--model-name", "iris", "--version", "1", "--force"]
    archiver += ["--handler", str(APPS / "torchserve_handler.py"), "--extra-files", str(APPS / "common.py")]
    subprocess.run([*archiver, "--export-path", str(store)], check=True, capture_output=True)
    config = place.directory / "config.properties"
    config.write_text(_TORCHSERVE.format(*range(place.port, place.port + 5), store=store))
    logging = place.directory / "log4j2.xml"
    logging.write_text(_LOG4J)
    argv = [str(place.bin / "torchserve"), "--start", "--foreground", "--ncs", "--disable-token-auth"]
    argv += ["--ts-config", str(config), "--log-config", str(logging)]
    environ = {"LOG_LOCATION": str(place.directory), "METRICS_LOCATION": str(place.directory)}
    return Command(argv, "/predictions/iris", INSTANCES, environ)


_TORCHSERVE: Final = """\
inference_address=http://127.0.0.1:{0}
management_address=http://127.0.0.1:{1}
metrics_address=http://127.0.0.1:{2}
grpc_inference_port={3}
grpc_management_port={4}
disable_token_authorization=true
default_workers_per_model=1
model_store={store}
load_models=iris.mar
install_py_dep_per_model=false
disable_system_metrics=true
async_logging=true
"""
_LOG4J: Final = """\
<?xml version="1.0"?><Configuration><Appenders><Console name="o" target="SYSTEM_OUT"/></Appenders><Loggers>\
<Root level="warn"><AppenderRef ref="o"/></Root></Loggers></Configuration>"""

_SKLEARN: Final = ("scikit-learn", "joblib")
_FASTAPI: Final = ("fastapi", "uvicorn[standard]", *_SKLEARN)
# Its parallel workers call asyncio.get_event_loop() without a loop, which uvloop 0.22 ended.
_MLSERVER: Final = ("mlserver", "mlserver-sklearn", "uvloop<0.22")
_RAY: Final = ("ray[serve]", "ray-haproxy", *_SKLEARN)
# It names torch nowhere and imports it; the release of which this machine's index has a CPU build can be set.
_TORCHSERVE_PACKAGES: Final = ("torchserve", "torch-model-archiver", "torch", "pyyaml", "enum-compat", "setuptools<81")

PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer("FastAPI", "fastapi", _FASTAPI, fastapi),
        Peer("FastAPI async", "fastapi", _FASTAPI, fastapi_async),
        Peer("MLServer", "mlserver", _MLSERVER, mlserver),
        Peer("MLServer inline", "mlserver", _MLSERVER, mlserver_inline),
        Peer("BentoML", "bentoml", ("bentoml", *_SKLEARN), bentoml),
        Peer("LitServe", "litserve", ("litserve", *_SKLEARN), litserve),
        Peer("KServe", "kserve", ("kserve", *_SKLEARN), kserve),
        Peer("Ray Serve", "ray", _RAY, ray),
        Peer("Ray Serve HAProxy", "ray", _RAY, ray_haproxy),
        # Its libpython is older than the standard library of a Python that was built by hand may be.
        Peer("PyTriton", "pytriton", ("nvidia-pytriton", *_SKLEARN), pytriton, python="/usr/bin/python3"),
        Peer("TorchServe", "torchserve", (*_TORCHSERVE_PACKAGES, *_SKLEARN), torchserve),
    )
}

MLSERVER_IMAGE: Final = Peer("MLServer image", "mlserver", _MLSERVER, mlserver_image)


def is_installed(root: Path, peer: Peer) -> bool:
    return (root / peer.environment / ".complete").exists()


def install(root: Path, peer: Peer) -> None:
    """Makes the peer's environment below `root`. Raises `subprocess.CalledProcessError` with pip's own words."""
    environment = root / peer.environment
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([peer.python, "-m", "venv", str(environment)], check=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, *peer.packages], check=True)
    (environment / ".complete").touch()
