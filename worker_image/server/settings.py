"""What the control plane tells a replica through its environment, read once and passed in.

Owns the names and defaults of the `MODELFLEET_*` variables (docs/CONTRACTS.md) and the sentences for wrong ones; it
imports nothing heavy, because `__main__` reads it before numpy may be imported. Anything wrong raises
`ModelFailed("BAD_SETTINGS")`.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Literal

import msgspec

from worker_image.server import limits
from worker_image.server.errors import ModelFailed

# The libraries below numpy, scikit-learn and LightGBM read these when they are imported, and else take the host's core
# count, which in a container with a CPU limit means threads that fight for one core.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)


class Batching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`max_size`: most rows that are predicted together, "auto" learns it; `max_delay_ms`: how long a row waits for
    company while the model is free; `max_request_rows`: most rows of one request, None takes and splits any number.
    """

    max_size: int | Literal["auto"] = "auto"
    max_delay_ms: float = 0.0
    max_request_rows: int | None = None

    @property
    def fixed_size(self) -> int | None:
        return None if self.max_size == "auto" else self.max_size


class Caching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Answers are kept for `ttl_s`, together at most `max_bytes`."""

    ttl_s: float
    max_bytes: int


class Tuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON of `MODELFLEET_SETTINGS`. Lengths of time are seconds; `batching: null` means the default batching,
    `slo_ms` is the latency that batches are sized for, `instances` how many batches are computed at one
    time, `cache: null` keeps no answers, `outputs` are those that a client gets who names none: (), the backend's own.
    """

    concurrency: int = 32
    max_body_bytes: int = 67_108_864
    drain_timeout_s: float = 20.0
    load_timeout_s: float = 300.0
    predict_timeout_s: float = 120.0
    batching: Batching | None = None
    slo_ms: float | None = None
    instances: int = 1
    cache: Caching | None = None
    outputs: tuple[str, ...] = ()


class Settings(msgspec.Struct, frozen=True):
    """Everything that one replica is told. `threads` is one instance's share of the CPU limit, at least 1;
    `memory_bytes` None: no limit is known.
    """

    model: str
    version: str
    backend: str
    model_dir: Path
    host: str
    port: int
    threads: int
    tuning: Tuning
    memory_bytes: int | None = None

    @property
    def batching(self) -> Batching:
        return self.tuning.batching or Batching()


def read(environ: Mapping[str, str]) -> Settings:
    tuning = _tuning(environ.get("MODELFLEET_SETTINGS") or "{}")
    return Settings(
        model=_required(environ, "MODELFLEET_MODEL"),
        version=_required(environ, "MODELFLEET_VERSION"),
        backend=_required(environ, "MODELFLEET_BACKEND"),
        model_dir=Path(_required(environ, "MODELFLEET_MODEL_DIR")),
        host=environ.get("MODELFLEET_HOST", "127.0.0.1"),
        port=_port(environ.get("MODELFLEET_PORT", "8000")),
        threads=max(1, int(_cpus(environ.get("MODELFLEET_CPUS")) / tuning.instances)),
        tuning=tuning,
        memory_bytes=_memory_bytes(environ.get("MODELFLEET_MEMORY_BYTES")),
    )


def limit_threads(threads: int, environ: MutableMapping[str, str]) -> None:
    """Sets what the version's own `env:` left open. Call it before numpy is imported: later it has no effect."""
    for variable in THREAD_VARIABLES:
        environ.setdefault(variable, str(threads))


def refuse_telemetry(environ: MutableMapping[str, str]) -> None:
    """onnxruntime reports to its maker from release 1.29 on, unless it is told not to before it is imported."""
    environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def add_secrets(directory: str | None, environ: MutableMapping[str, str]) -> None:
    """Puts each file of `directory` into `environ` under the file's name, without one trailing line break."""
    if not directory:
        return
    try:
        for file in sorted(Path(directory).iterdir()):
            if file.is_file() and not file.name.startswith("."):
                environ[file.name] = file.read_text().removesuffix("\n")
    except (OSError, ValueError) as exc:
        raise _bad(
            "MODELFLEET_SECRETS_DIR", directory, f"cannot be read: {exc}; mount one text file per secret"
        ) from exc


def _required(environ: Mapping[str, str], name: str) -> str:
    if value := environ.get(name):
        return value
    raise ModelFailed("BAD_SETTINGS", f"{name}: not set; the model server is told what to serve by it; set it")


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    raise _bad("MODELFLEET_PORT", text, "a port is a whole number in 1..65535")


def _cpus(text: str | None) -> float:
    """What the control plane says, or less when the cgroup allows less."""
    allowed = min(limits.own_cores(), limits.cpus() or float("inf"))
    if not text:
        return allowed
    try:
        cpus = float(text)
    except ValueError:
        cpus = 0.0
    if 0 < cpus < 100_000:
        return min(cpus, allowed)
    raise _bad("MODELFLEET_CPUS", text, "a CPU limit is a number above 0, such as 0.5 or 2")


def _memory_bytes(text: str | None) -> int | None:
    if text and not text.isdecimal():
        raise _bad("MODELFLEET_MEMORY_BYTES", text, "a memory limit is a whole number of bytes")
    known = [limit for limit in (int(text or 0), limits.memory_bytes()) if limit]
    return min(known, default=None)


def _tuning(text: str) -> Tuning:
    try:
        tuning = msgspec.json.decode(text, type=Tuning)
    except msgspec.DecodeError as exc:
        raise _bad("MODELFLEET_SETTINGS", text, f"{exc}; it is the JSON that docs/CONTRACTS.md describes") from exc
    batching = tuning.batching or Batching()
    limits: dict[str, tuple[float | None, float]] = {
        "concurrency": (tuning.concurrency, 1),
        "max_body_bytes": (tuning.max_body_bytes, 1),
        "drain_timeout_s": (tuning.drain_timeout_s, 0),
        "load_timeout_s": (tuning.load_timeout_s, 0.001),
        "predict_timeout_s": (tuning.predict_timeout_s, 0.001),
        "batching.max_size": (batching.fixed_size, 1),
        "batching.max_delay_ms": (batching.max_delay_ms, 0),
        "batching.max_request_rows": (batching.max_request_rows, 1),
        "slo_ms": (tuning.slo_ms, 0.001),
        "instances": (tuning.instances, 1),
        "cache.ttl_s": (None if tuning.cache is None else tuning.cache.ttl_s, 0.001),
        "cache.max_bytes": (None if tuning.cache is None else tuning.cache.max_bytes, 1),
    }
    for name, (value, least) in limits.items():
        if value is not None and value < least:
            raise _bad(f"MODELFLEET_SETTINGS: {name}", value, f"the least value is {least}; raise it")
    return tuning


def _bad(what: str, got: object, rule: str) -> ModelFailed:
    return ModelFailed("BAD_SETTINGS", f"{what}: {got!r}; {rule}")
