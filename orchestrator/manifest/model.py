"""The fields of a manifest: one frozen dataclass a group, each field with its kind, default and meaning.

This is the place to add a field (for the gateway `gateway.py`, for how requests are routed `routing.py`): the reader,
the JSON Schema and the check of docs/MANIFEST.md follow from it. Rules that span fields are in `resolve.py`. In a
`Manifest` every version is resolved: defaults, model and version are merged.
"""

# ruff: noqa: RUF009  (`setting()` makes a dataclasses.field)

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Literal

from orchestrator.backends import BACKENDS, Backend
from orchestrator.core.sources import is_remote, path_of_file_url
from orchestrator.manifest.diagnostics import Diagnostic, Path, dotted
from orchestrator.manifest.gateway import GatewayConfig
from orchestrator.manifest.groups import Group, GroupOrText, ListOf, MapOf, OrNull, setting
from orchestrator.manifest.kinds import DAY_S, GI, MI, Choice, Flag, Integer, Number, Size, Text
from orchestrator.manifest.nodes import START, Mapping, Node, locate
from orchestrator.manifest.observability import ObservabilityConfig
from orchestrator.manifest.pricing import PricingConfig
from orchestrator.manifest.routing import BALANCES, STICKY, QueueConfig, RateLimitConfig, RetryConfig, ShadowConfig
from orchestrator.manifest.scaling import AutoscalerConfig, ClusterConfig, ScalingConfig
from orchestrator.manifest.secrets import ENV_NAME, SecretKind, SecretRef
from orchestrator.manifest.serving import PREDICT_TIMEOUT_S, BatchingConfig, CacheConfig, SloConfig
from orchestrator.manifest.sources import SourcesConfig, SourceText

NAME = Text("lower-case letters, digits and . _ - between them, at most 63", r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", 63)
VERSION_NAME = Text("letters, digits and . _ - after the first, at most 63", r"[A-Za-z0-9][A-Za-z0-9._-]*", 63)
ENV_VALUE = Text('one value, such as "1" or "" for the empty one', r"[^\x00]*", 32_768)
OUTPUT_NAME = Text("the model's outputs, such as predict or predict_proba", longest=255)
IMAGE = Text("the name of an image, such as registry.example/team/model:3", r"[^\s\x00-\x1f\x7f]+", 255)


@dataclass(frozen=True, slots=True)
class ResourcesConfig:
    """Hard limits of one replica."""

    cpus: float = setting(Number(0.05, 512), "CPU cores of one replica.", default=1.0)
    memory_bytes: int = setting(Size(16 * MI, 4096 * GI), "Memory of one replica.", default=512 * MI, key="memory")
    pids: int = setting(Integer(16, 100_000), "Most processes and threads in one replica.", default=256)


@dataclass(frozen=True, slots=True)
class VersionConfig:
    """One version of a model. All of it may stand in `defaults`, in the model or in the version; the deepest wins."""

    source: str | None = setting(
        SourceText("a path or URL, such as models/iris/1"),
        "The model's file or folder: a path relative to the manifest, or a URL (docs/SOURCES.md). Required unless "
        "`image` is given.",
        default=None,
    )
    sha256: str | None = setting(
        Text("64 hexadecimal digits, in lower case", r"[0-9a-f]{64}", 64),
        "What the source must be: the SHA-256 of the one file, or the digest of a folder that `modelfleet describe` "
        "shows. Anything else is refused.",
        default=None,
    )
    unpack: bool = setting(
        Flag(), "Whether a source that is one archive (.zip, .tar, .tar.gz, …) is unpacked.", default=True
    )
    backend: Backend | None = setting(
        Choice(BACKENDS), "The framework that loads it. Required unless `image` is given.", default=None
    )
    image: str | None = setting(
        IMAGE, "An image of your own in place of a backend; it honours docs/CONTRACTS.md.", default=None
    )
    port: int = setting(Integer(1, 65_535), "Where the container listens; only with `image`.", default=8000)
    resources: ResourcesConfig = setting(Group(ResourcesConfig), "Hard limits of one replica.", factory=ResourcesConfig)
    env: dict[str, str] = setting(
        MapOf(ENV_NAME, ENV_VALUE, 'LOG_LEVEL: "info"'), "Environment variables of the replica.", factory=dict
    )
    secrets: dict[str, SecretRef] = setting(
        MapOf(ENV_NAME, SecretKind(SecretRef), "API_KEY: {env: API_KEY}"),
        "Environment variables whose values are never stored or shown.",
        factory=dict,
    )
    egress: bool = setting(Flag(), "Whether the replica may reach other networks.", default=False)
    concurrency: int = setting(Integer(1, 100_000), "Most requests in flight in one replica.", default=32)
    queue: QueueConfig = setting(Group(QueueConfig), "Requests that wait for a free replica.", factory=QueueConfig)
    request_timeout_ms: int = setting(
        Integer(1, DAY_S * 1000),
        "Longest time of one request in milliseconds, from arrival to last byte, if the client names none.",
        default=60_000,
    )
    startup_timeout_s: float = setting(
        Number(1, DAY_S), "Seconds from start to readiness before a replica counts as failed.", default=300.0
    )
    predict_timeout_s: float = setting(
        Number(0.01, DAY_S),
        "Seconds that one call of the model may take before it counts as hung and its process is started again.",
        default=PREDICT_TIMEOUT_S,
    )
    drain_timeout_s: float = setting(
        Number(0, 3600), "Seconds that a replica gets to finish its requests before it is stopped.", default=30.0
    )
    idempotent: bool = setting(
        Flag(), "Whether a request may be sent again to another replica after the first broke.", default=True
    )
    retry: RetryConfig = setting(
        Group(RetryConfig), "When a failed request is sent again, to another replica.", factory=RetryConfig
    )
    eject: bool = setting(
        Flag(), "Whether a replica that fails again and again gets no requests for a while.", default=True
    )
    balance: Literal["two_choices", "least", "round_robin", "peak_ewma"] = setting(
        Choice(BALANCES), "Which of several free replicas takes a request.", default="two_choices"
    )
    websocket: bool = setting(
        Flag(), "Whether `/models/{model}/…` may be upgraded to WebSocket and passed through.", default=False
    )
    batching: BatchingConfig | None = setting(
        OrNull(Group(BatchingConfig)), "How rows are joined; null leaves it to the model server.", default=None
    )
    instances: int = setting(
        Integer(1, 256),
        "Batches that one replica computes at one time: threads that share the model where the framework computes "
        "without Python's lock, else processes with a copy of it each.",
        default=1,
    )
    outputs: tuple[str, ...] = setting(
        ListOf(OUTPUT_NAME),
        "What a client gets that names no outputs. Left out: the backend's own choice, which is in docs/models/.",
        default=(),
    )
    cache: CacheConfig | None = setting(
        OrNull(Group(CacheConfig)),
        "Answers that are kept for equal requests, of which several at one time are computed once; null keeps none.",
        default=None,
    )
    slo: SloConfig = setting(Group(SloConfig), "What the version is to reach.", factory=SloConfig)
    scaling: ScalingConfig = setting(
        Group(ScalingConfig, not_yet=frozenset({"target"})), "How many replicas run.", factory=ScalingConfig
    )


# What a model says for all of its versions together: a version, or the defaults, cannot.
_OF_A_MODEL = dict.fromkeys(("traffic", "labels", "sticky", "shadow", "rate_limit"), "a model, beside its `versions`")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model: what clients call. `traffic` sums to 100; its keys and the labels' values are versions."""

    versions: dict[str, VersionConfig] = setting(
        MapOf(VERSION_NAME, Group(VersionConfig, elsewhere=_OF_A_MODEL), '"1": {source: models/iris/1}', least=1),
        "The versions that run, by name. With or without quotes, `1.10` and `08` stay as written.",
    )
    traffic: dict[str, int] = setting(
        MapOf(VERSION_NAME, Integer(0, 100), '"1": 90, "2": 10'),
        "Percent of the requests that name no version, by version; sums to 100. Left out: the newest version gets "
        "all, newest by the numbers in its name (`10` after `9`, `1.10` after `1.9`).",
        factory=dict,
    )
    labels: dict[str, str] = setting(
        MapOf(VERSION_NAME, VERSION_NAME, 'stable: "1"'),
        "More names for versions, for clients to ask by.",
        factory=dict,
    )
    sticky: str | None = setting(
        STICKY, "What keeps a caller's requests at one version and, while it is there, one replica.", default=None
    )
    shadow: ShadowConfig | None = setting(
        Group(ShadowConfig), "Copies of requests for another version, whose answers reach no client.", default=None
    )
    rate_limit: RateLimitConfig | None = setting(
        Group(RateLimitConfig), "Requests of all callers together; beyond it 429.", default=None
    )


@dataclass(frozen=True, slots=True)
class ImagesConfig:
    """How the images of the backends are built."""

    base: str | None = setting(
        OrNull(IMAGE), "The base image, with Python; null takes the one that the release pins.", default=None
    )


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole manifest that passed every rule that needs no I/O. Relative paths are relative to `base_dir`."""

    models: dict[str, ModelConfig] = setting(
        MapOf(NAME, Group(ModelConfig, inherits=VersionConfig), "iris: {versions: …}"), "The models, by name."
    )
    cluster_settings: ClusterConfig = setting(
        GroupOrText(Group(ClusterConfig), "name"),
        "The cluster's name alone, or with the limits of all its replicas together.",
        factory=ClusterConfig,
        key="cluster",
    )
    engine: Literal["docker", "process"] = setting(
        Choice(("docker", "process"), later=("swarm",)),
        "What runs replicas: containers, or local processes.",
        default="docker",
    )
    gateway: GatewayConfig = setting(Group(GatewayConfig), "Where clients reach the models.", factory=GatewayConfig)
    images: ImagesConfig = setting(Group(ImagesConfig), "How images are built.", factory=ImagesConfig)
    sources: SourcesConfig = setting(Group(SourcesConfig), "How sources are fetched.", factory=SourcesConfig)
    autoscaler: AutoscalerConfig = setting(
        Group(AutoscalerConfig), "Where the autoscaler reads its signals.", factory=AutoscalerConfig
    )
    observability: ObservabilityConfig = setting(
        Group(ObservabilityConfig), "What watches the cluster.", factory=ObservabilityConfig
    )
    pricing: PricingConfig = setting(Group(PricingConfig), "What replicas cost.", factory=PricingConfig)
    file: str = field(default="models.yaml", compare=False)
    base_dir: FilePath = field(default=FilePath("/"), compare=False)
    root: Node = field(default_factory=lambda: Mapping(START, START, flow=False), compare=False, repr=False)

    @property
    def cluster(self) -> str:
        return self.cluster_settings.name

    def diagnostic(self, path: Path, message: str) -> Diagnostic:
        """An error that was found after loading, at `path` (keys as in YAML), or where its value was inherited from."""
        at = written(self.root, path)
        mark = locate(self.root, at)
        return Diagnostic(self.file, mark.line, mark.column, dotted(at), message)

    def says(self, key: str) -> bool:
        """Whether the text itself has this top-level key (of `cluster` the name), rather than leaving its default."""
        at = self.root.entries.get(key) if isinstance(self.root, Mapping) else None
        if key == "cluster" and at is not None and isinstance(at.value, Mapping):
            return "name" in at.value.entries
        return at is not None

    def path(self, file: str) -> FilePath:
        """Where a file is that the text names."""
        return self.base_dir / FilePath(file).expanduser()

    def local_path(self, source: str) -> FilePath | None:
        """Where a source is on this machine; None for one of another place. Reads as `adapters/artifacts.py` does."""
        if is_remote(source):
            return None
        return FilePath(path_of_file_url(source)) if source.lower().startswith("file:") else self.path(source)


@dataclass(frozen=True, slots=True)
class _Layers:
    """What the text may hold beside the fields of `Manifest`."""

    defaults: dict[str, Any] = setting(
        Group(VersionConfig, elsewhere=_OF_A_MODEL),
        "Any field of a version, for all versions of all models.",
        factory=dict,
    )


MANIFEST = Group(Manifest, inherits=_Layers)


def written(root: Node, path: Path) -> Path:
    """The path where the value at `path` stands: a version's field may be inherited from its model or the defaults."""
    candidates = [path]
    if len(path) > 4 and path[0] == "models" and path[2] == "versions":
        candidates += [(*path[:2], *path[4:]), ("defaults", *path[4:])]
    return next((each for each in candidates if _exists(root, each)), path)


def _exists(root: Node, path: Path) -> bool:
    node = root
    for part in path:
        if not isinstance(node, Mapping) or not isinstance(part, str) or part not in node.entries:
            return False
        node = node.entries[part].value
    return True
