"""Worker images: which one a version runs in, and how it comes to be on the engine, once per content.

An image of ours is named by its content (the shipped `worker_image` package, the base image's id, a version's
requirements), so its name is known before it is built and says whether it must be. `_base_image.py` finds the base.
What this host needs to reach its package index goes into build stages only, never into the image that runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from docker.errors import APIError, ImageNotFound

from orchestrator.adapters._base_image import BaseImage
from orchestrator.adapters._build_context import (
    backend_problem,
    build_secrets,
    by_version_alone,
    content_digest,
    context_tar,
    digest_of,
    host_environ,
    worker_package,
)
from orchestrator.adapters._docker_calls import DockerCalls, explain
from orchestrator.adapters._docker_create import LABEL
from orchestrator.adapters._local_wheels import matching
from orchestrator.adapters._locks import file_lock
from orchestrator.adapters._stages import needed
from orchestrator.adapters.engine import Progress, RuntimeBuildFailed, RuntimeRequest

REPOSITORY = "modelfleet/worker"
LAST_LINES = 20
# Silence between two lines of a build: pip resolving and a large wheel on a slow line are silent for minutes.
BUILD_SILENCE_S = 900.0
PULL_SILENCE_S = 120.0
_DISK_FULL = ("no space left on device", "enospc", "disk quota exceeded")


class ImageBuilder:
    """Names, builds and pulls images. `base_image` as the manifest or MODELFLEET_BASE_IMAGE names it."""

    def __init__(
        self, state_dir: Path, base_image: str | None, calls: DockerCalls, environ: Mapping[str, str] | None = None
    ) -> None:
        self._state = state_dir / "images"
        self._calls = calls
        self._environ = host_environ() if environ is None else environ
        self._configured = base_image or self._environ.get("MODELFLEET_BASE_IMAGE") or ""

    def runtime_id(self, request: RuntimeRequest) -> str:
        if request.image:
            return self._image_id(request.image) or request.image
        return self.worker_name(request.backend, request.requirements, request.base)

    def worker_name(self, backend: str, requirements: bytes = b"", base: str = "") -> str:
        if problem := backend_problem(backend):
            raise RuntimeBuildFailed(problem)
        digest = content_digest(worker_package(), backend.encode(), self._base(base).identity().encode(), requirements)
        return f"{REPOSITORY}-{backend}:{digest}"

    def ensure(self, request: RuntimeRequest, progress: Progress | None = None) -> str:
        if request.image:
            return self._ensure_custom(request.image, progress or _silent)
        return self.ensure_worker(request.backend, request.requirements, progress, base=request.base)

    def ensure_worker(
        self, target: str, requirements: bytes = b"", progress: Progress | None = None, *, base: str = ""
    ) -> str:
        """The name of a built image for this backend, with a version's own requirements where it brings some."""
        say = progress or _silent
        base_id = self._base(base).ensure(say)
        name = self.worker_name(target, requirements, base)
        if self._image_id(name):
            return name
        parent = self.ensure_worker(target, b"", progress, base=base) if requirements else ""
        with file_lock(self._state / f"{name.rpartition(':')[2]}.lock"):
            if not self._image_id(name):
                if parent:
                    self._build_derived(name, parent, requirements, say)
                else:
                    self._build_target(name, target, base_id, say)
        return name

    def ensure_examples(self, progress: Progress | None = None) -> str:
        """The image that trains the example models. Built anew only when its files or the base changed."""
        say = progress or _silent
        base = self._base("").ensure(say)
        package = worker_package()
        examples = b"".join(path.read_bytes() for path in sorted((package / "examples").rglob("*.py")))
        name = f"{REPOSITORY}-examples:{content_digest(package, base.encode(), examples)}"
        with file_lock(self._state / "examples.lock"):
            if not self._image_id(name):
                self._build_target(name, "examples", base, say)
        return name

    def has(self, image: str) -> bool:
        """Whether the engine has it."""
        return bool(self._image_id(image))

    def name_on_base(self, name: str, dockerfile: str) -> str:
        """The image `name` made of `dockerfile` on the base of the worker images, by their content."""
        digest = digest_of(dockerfile.encode(), self._base("").identity().encode())
        return f"modelfleet/{name}:{digest}"

    def ensure_on_base(self, name: str, dockerfile: str, progress: Progress | None = None) -> str:
        """As `name_on_base`, and there. Its context is the file itself, and the host's CA bundle."""
        say = progress or _silent
        base = self._base("").ensure(say)
        image = self.name_on_base(name, dockerfile)
        with file_lock(self._state / f"{image.rpartition(':')[2]}.lock"):
            if not self._image_id(image):
                self._build(image, dockerfile, {"BASE": base}, {}, "", say)
        return image

    def _base(self, asked: str) -> BaseImage:
        """The base that the control plane was started with comes first: it was named for this machine."""
        return BaseImage(self._state, self._configured or asked, self._calls)

    def _ensure_custom(self, image: str, say: Progress) -> str:
        if found := self._image_id(image):
            return found
        say(f"pulling {image}")
        with self._calls.during(f"pull {image}"):
            try:
                self._calls.pull(image, PULL_SILENCE_S)
            except APIError as exc:
                raise RuntimeBuildFailed(
                    f"image {image!r}: not found locally and pull failed: {explain(exc)}; "
                    f"check the name, build it here, or log in to its registry with `docker login`"
                ) from exc
        found = self._image_id(image)
        if not found:
            raise RuntimeBuildFailed(f"image {image!r}: pulled, but the engine does not find it; name it with its tag")
        return found

    def _image_id(self, image: str) -> str:
        """The id of a local image, "" where there is none."""
        with self._calls.during(f"look for the image {image}"):
            try:
                return str(self._calls.quick.inspect_image(image)["Id"])
            except ImageNotFound:
                return ""
            except APIError as exc:
                if exc.status_code in (400, 404):  # not a name that an image can have
                    return ""
                raise

    def _build_target(self, name: str, target: str, base: str, say: Progress) -> None:
        dockerfile = needed((worker_package() / "Dockerfile").read_text(), target)
        self._build(name, dockerfile, {"BASE": base}, {}, by_version_alone(target), say)

    def _build_derived(self, name: str, parent: str, requirements: bytes, say: Progress) -> None:
        dockerfile = (worker_package() / "Dockerfile.requirements").read_text()
        extra = {"requirements.txt": requirements}
        self._build(name, dockerfile, {"PARENT": parent}, extra, requirements.decode(errors="replace"), say)

    def _build(
        self,
        name: str,
        dockerfile: str,
        arguments: dict[str, str],
        extra: dict[str, bytes],
        requirements: str,
        say: Progress,
    ) -> None:
        """Its last stage. `requirements`: those for which this host's own wheels count."""
        say(f"building {name}")
        extra = {**extra, "Dockerfile": dockerfile.encode(), **build_secrets(self._environ)}
        with (
            context_tar(worker_package(), extra, matching(self._environ, [requirements])) as context,
            self._calls.during(f"build {name}"),
        ):
            try:
                output = self._calls.slow.build(
                    fileobj=context,
                    custom_context=True,
                    dockerfile="Dockerfile",
                    buildargs=arguments,
                    tag=name,
                    labels={f"{LABEL}.role": "worker-image"},
                    rm=True,
                    forcerm=True,
                    decode=True,
                    timeout=BUILD_SILENCE_S,
                )
                _follow_build(name, output, say)
            except APIError as exc:
                raise RuntimeBuildFailed(build_sentence(name, explain(exc), ())) from exc


def build_sentence(name: str, error: str, lines: Iterable[str]) -> str:
    """What failed and why, with the last lines of the output below it."""
    tail = list(lines)
    text = "\n".join([error, *tail]).lower()
    if any(sign in text for sign in _DISK_FULL):
        what = (
            f"{name}: cannot be built: the disk is full; free space where Docker keeps its data (`docker image prune`)"
        )
    else:
        what = f"{name}: cannot be built: {error}; the last lines of the build say why"
    return "\n".join([what, *(f"  {line}" for line in tail)])


def _follow_build(name: str, output: Iterable[dict[str, Any]], say: Callable[[str], None]) -> None:
    lines: deque[str] = deque(maxlen=LAST_LINES)
    for told in output:
        for line in str(told.get("stream", "")).splitlines():
            if line.strip():
                lines.append(line.rstrip())
            if line.startswith("Step "):
                say(f"building {name}: {line.removeprefix('Step ').split(' : ')[0]}")
        if "error" in told:
            raise RuntimeBuildFailed(build_sentence(name, str(told["error"]).strip(), lines))


def _silent(sentence: str, /) -> None:
    """Progress for nobody."""
