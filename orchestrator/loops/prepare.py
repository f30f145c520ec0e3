"""From a manifest's text to a desired state: reads, checks, fetches and builds all that an apply needs.

Nothing here changes what runs: when it fails, nothing has happened but downloads into content-addressed stores.
`resolve` (for a plan) computes names only; `fetch` (for an apply) makes what they name exist. Blocking: use a thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator import manifest as manifests
from orchestrator.adapters.artifacts import ArtifactStore, local_path
from orchestrator.adapters.engine import Engine, RuntimeRequest
from orchestrator.adapters.gateway import Listener
from orchestrator.adapters.state_dir import StateDir
from orchestrator.config import Config
from orchestrator.core.entities import Desired, DesiredModel, VersionKey
from orchestrator.core.errors import ConflictError, FleetError
from orchestrator.core.sources import unfetched
from orchestrator.loops.desired import Resolved, build
from orchestrator.loops.sources import Watcher, fetch_all, located, look_at_all, secret_value, versions_of
from orchestrator.manifest import Manifest, ManifestError, VersionConfig

REQUIREMENTS = "requirements.txt"

Step = Callable[[str], None]

# A container, the imports of a framework, and a small model: what takes longer than this is no surprise to its author.
A_START_MS = 15_000


@dataclass(frozen=True, slots=True)
class Prepared:
    """A manifest that could be applied: `desired` has everything resolved. `warnings` are sentences."""

    manifest: Manifest
    desired: Desired
    warnings: tuple[str, ...] = ()


class Preparer:
    """Turns manifests into desired states for one cluster on one engine."""

    def __init__(self, config: Config, state: StateDir, engine: Engine, cluster: str) -> None:
        self._config = config
        self._state = state
        self._engine = engine
        self._cluster = cluster
        self._artifacts = ArtifactStore(state.artifacts)
        self._artifacts.remove_scratch()

    def load(self, text: str, file: str, base_dir: Path) -> Manifest:
        """Reads and checks the manifest against its rules, this cluster and the world. Raises `ManifestError`."""
        manifest = manifests.load(text, file=file, base_dir=base_dir)
        problems = manifests.check_world(manifest, environ=os.environ)
        if problems:
            raise ManifestError(problems)
        self._check_cluster(manifest)
        return manifest

    def resolve(self, manifest: Manifest) -> Prepared:
        """The desired state as an apply would make it, without fetching or building anything."""
        seen = look_at_all(self._artifacts, manifest)
        stored = {key: self._artifacts.find(each.digest) for key, each in seen.items()}
        paths = {key: artifact.path for key, artifact in stored.items() if artifact}
        runtimes = {key: self._engine.runtime_id(self._runtime(manifest, v, paths.get(key)))
                    for key, v in versions_of(manifest)}  # fmt: skip
        digests = {key: each.digest or unfetched(each.size_bytes, each.state) for key, each in seen.items()}
        resolved = Resolved(digests, runtimes, self._secrets(manifest))
        return Prepared(manifest, build(manifest, resolved), self._warnings(manifest))

    def fetch(self, manifest: Manifest, watcher: Watcher) -> Prepared:
        """Fetches every source and builds every runtime, a few at a time, then resolves. Raises `FleetError`."""
        fetched = fetch_all(self._artifacts, manifest, watcher)
        runtimes = {}
        for key, version in versions_of(manifest):
            source = fetched.get(key)
            request = self._runtime(manifest, version, source.path if source else None)
            runtimes[key] = self._ensure_runtime(manifest, key, request, watcher.step)
        artifacts = {key: source.digest for key, source in fetched.items()}
        resolved = Resolved(artifacts, runtimes, self._secrets(manifest))
        return Prepared(manifest, build(manifest, resolved), self._warnings(manifest))

    def require(self, models: Mapping[str, DesiredModel], manifest: Manifest, step: Step) -> None:
        """Makes sure that what a stored revision names still exists: artifacts are kept, runtimes built again."""
        for model in models.values():
            for version in model.versions.values():
                artifact = self._artifacts.path(version.spec.artifact) if version.spec.artifact else None
                config = manifest.models[model.name].versions[version.key.version]
                built = self._ensure_runtime(
                    manifest, version.key, self._runtime(manifest, config, artifact), step
                )  # fmt: skip
                if built != version.spec.runtime:
                    raise ConflictError(
                        f"{version.key}: its runtime was {version.spec.runtime}, and can only be built as {built} now; "
                        f"apply the manifest again instead"
                    )

    def close(self) -> None:
        """Ends what is being fetched; the next process goes on with it."""
        self._artifacts.close()

    def locate(self, digest: str) -> Path:
        return self._artifacts.path(digest)

    def collect_garbage(self, keep: Iterable[Desired]) -> None:
        """Removes artifacts that no desired state in `keep` names."""
        self._artifacts.remove_unreferenced({v.spec.artifact for d in keep for v in d.versions().values()})

    def _ensure_runtime(self, manifest: Manifest, key: VersionKey, request: RuntimeRequest, step: Step) -> str:
        try:
            return self._engine.ensure_runtime(request, lambda sentence: step(f"{key}: {sentence}"))
        except FleetError as exc:
            raise located(manifest, key, "image" if request.image else "backend", exc) from exc

    def _runtime(self, manifest: Manifest, version: VersionConfig, artifact: Path | None = None) -> RuntimeRequest:
        if version.image:
            return RuntimeRequest(image=version.image)
        requirements = self._requirements(version, manifest.base_dir, artifact)
        return RuntimeRequest(version.backend or "", requirements, base=manifest.images.base or "")

    def _requirements(self, version: VersionConfig, base_dir: Path, artifact: Path | None) -> bytes:
        """The version's own requirements: from the fetched artifact, or before that from a local source."""
        if artifact is None and version.source:
            artifact = local_path(version.source, base_dir)
        if artifact is None:
            return b""
        file = artifact / REQUIREMENTS
        return file.read_bytes() if file.is_file() else b""

    def _secrets(self, manifest: Manifest) -> dict[VersionKey, dict[str, str]]:
        return {
            key: {name: self._state.keep_secret(secret_value(ref, manifest.base_dir))
                  for name, ref in version.secrets.items()}
            for key, version in versions_of(manifest)
            if version.secrets
        }  # fmt: skip

    def _check_cluster(self, manifest: Manifest) -> None:
        if manifest.says("cluster") and manifest.cluster != self._cluster and not self._config.cluster:
            raise ManifestError((manifest.diagnostic(("cluster",), (
                f"{manifest.cluster!r}; this control plane runs cluster {self._cluster!r}; write that name, or start "
                f"another control plane with its own --state-dir"
            )),))  # fmt: skip
        if manifest.says("engine") and manifest.engine != self._engine.name and not self._config.engine:
            raise ManifestError((manifest.diagnostic(("engine",), (
                f"{manifest.engine!r}; this control plane runs the {self._engine.name} engine; write that name, or "
                f"`modelfleet down` and `modelfleet up --engine {manifest.engine}`"
            )),))  # fmt: skip

    def _warnings(self, manifest: Manifest) -> tuple[str, ...]:
        warnings = []
        if manifest.says("engine") and manifest.engine != self._engine.name:
            warnings.append(f"engine: the manifest says {manifest.engine}, --engine {self._engine.name} overrides it")
        if manifest.says("cluster") and manifest.cluster != self._cluster:
            warnings.append(f"cluster: the manifest says {manifest.cluster}, --cluster {self._cluster} overrides it")
        return (*warnings, *_impatient(manifest), *manifest.pricing.warnings())


def _impatient(manifest: Manifest) -> list[str]:
    """A warning for each model whose callers may give up before a replica has started."""
    found = []
    for name, model in manifest.models.items():
        impatient = [
            v for v, each in model.versions.items() if _may_be_gone(each) and each.queue.timeout_ms < A_START_MS
        ]
        if impatient:
            timeout_ms = min(model.versions[v].queue.timeout_ms for v in impatient)
            versions = f"version{'s' if len(impatient) > 1 else ''} {', '.join(impatient)}"
            found.append(
                f"models.{name}: {versions} may sleep with no replica kept, and a request that wakes one waits at most "
                f"{timeout_ms} ms (queue.timeout_ms) for its start; allow more than a start takes, or keep standby: 1"
            )
    return found


def _may_be_gone(version: VersionConfig) -> bool:
    return version.scaling.min == 0 and (not version.scaling.standby or version.scaling.gone_after_s is not None)


def listener_of(manifest: Manifest, config: Config) -> Listener:
    """Where the gateway of this manifest listens; ports given to the process come first."""
    gateway, tls = manifest.gateway, manifest.gateway.tls
    files = {} if tls is None else {name: file for name, file in asdict(tls).items() if file is not None}
    return Listener(
        host=gateway.host,
        port=config.gateway_port or gateway.port,
        metrics_port=config.metrics_port or gateway.metrics_port,
        grpc_port=(config.grpc_port or gateway.grpc_port) if gateway.grpc_port else None,
        limits=asdict(gateway.limits),
        processes=gateway.processes,
        auth=gateway.auth,
        tls={name: str(manifest.path(file)) for name, file in files.items()},
        access_log_share=gateway.access_log.share if gateway.access_log else None,
        tracing=_tracing(manifest),
    )


def _tracing(manifest: Manifest) -> dict[str, str | float]:
    """As the gateway is told: see `router/config.py`. What is at its default there is left out."""
    tracing = manifest.observability.tracing
    if tracing is None:
        return {}
    told: dict[str, str | float] = {
        "otlp": tracing.otlp,
        "sample": tracing.sample,
        "service_name": tracing.service_name,
    }
    if tracing.headers is not None and tracing.headers.env is not None:
        told["headers_env"] = tracing.headers.env
    elif tracing.headers is not None:
        told["headers_file"] = str(manifest.path(tracing.headers.file or ""))
    return told
