"""The base of the worker images: chosen once, then written down, so that the names of images stay as they are.

In this order: the configured image; `python:3.12-slim` where it is present or can be pulled; one that mmdebstrap makes
from Debian packages, for hosts that reach no registry. A newer base is taken by naming it or by removing base.json.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from docker.errors import APIError, ImageNotFound, NotFound

from orchestrator.adapters._docker_calls import DockerCalls, explain
from orchestrator.adapters._locks import file_lock
from orchestrator.adapters.engine import EngineUnavailable, Progress, RuntimeBuildFailed

OFFICIAL = "python:3.12-slim"
LOCAL_REPOSITORY = "modelfleet/base"
# A registry that has not begun to answer by then is not reachable from here; the local base takes 30 s to make.
PULL_TIMEOUT_S = 30.0
IMPORT_TIMEOUT_S = 300.0
PACKAGES = "python3-minimal,python3-venv,ca-certificates,libgomp1"
_UNUSED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_LAST_LINES = 20


@dataclass(frozen=True, slots=True)
class _Choice:
    """`asked` is what was configured then ("": nothing), `reference` what was taken, `id` the image's."""

    asked: str
    reference: str
    id: str


class BaseImage:
    """The base for one state directory. `configured` "" means: find one."""

    def __init__(self, state: Path, configured: str, calls: DockerCalls) -> None:
        # One record a configured base: two manifests in turn must not forget each other's choice.
        self._record = state / ("base.json" if not configured else f"base-{_name_digest(configured)}.json")
        self._lock = state / "base.lock"
        self._configured = configured
        self._calls = calls

    def identity(self) -> str:
        """What goes into the names of images: the chosen image's id, or a fixed word before there is a choice."""
        choice = self._recorded() or self._present()
        return choice.id if choice else "no base image yet"

    def ensure(self, say: Progress) -> str:
        """The reference to build from. Raises `RuntimeBuildFailed` with what to install or how to name a base."""
        with file_lock(self._lock):
            choice = self._recorded()
            if choice and self._image_id(choice.id):
                return choice.id
            choice = self._present() or self._obtain(say)
            self._record.write_text(json.dumps({"asked": choice.asked, "reference": choice.reference, "id": choice.id}))
            return choice.id

    def _recorded(self) -> _Choice | None:
        try:
            choice = _Choice(**json.loads(self._record.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return choice if choice.asked == self._configured else None

    def _present(self) -> _Choice | None:
        """The best base among those that the engine has."""
        candidates = [self._configured] if self._configured else [OFFICIAL, f"{LOCAL_REPOSITORY}:{debian_suite()}"]
        for reference in candidates:
            if found := self._image_id(reference):
                return _Choice(self._configured, reference, found)
        return None

    def _obtain(self, say: Progress) -> _Choice:
        reference = self._configured or OFFICIAL
        say(f"pulling {reference}")
        why = self._pull(reference)
        if not why:
            return _Choice(self._configured, reference, self._image_id(reference))
        if self._configured:
            raise RuntimeBuildFailed(
                f"base image {reference!r}: not found locally and pull failed: {why}; check images.base in the "
                f"manifest or MODELFLEET_BASE_IMAGE"
            )
        local = f"{LOCAL_REPOSITORY}:{debian_suite()}"
        self._make_local(local, why, say)
        return _Choice(self._configured, local, self._image_id(local))

    def _pull(self, reference: str) -> str:
        """Why it failed, "" when the image is here."""
        try:
            with self._calls.during(f"pull {reference}"):
                try:
                    self._calls.pull(reference, PULL_TIMEOUT_S)
                except APIError as exc:
                    return explain(exc)
        except EngineUnavailable as exc:
            return str(exc)
        return "" if self._image_id(reference) else "the registry gave no such image"

    def _image_id(self, reference: str) -> str:
        with self._calls.during(f"look for the image {reference}"):
            try:
                return str(self._calls.quick.inspect_image(reference)["Id"])
            except (ImageNotFound, NotFound):
                return ""

    def _make_local(self, name: str, why: str, say: Progress) -> None:
        if not shutil.which("mmdebstrap"):
            raise RuntimeBuildFailed(
                f"base image: {OFFICIAL} is not here and pull failed: {why}; worker images need a base with Python "
                f"3.11 or newer; name one (`images: {{base: ...}}` or MODELFLEET_BASE_IMAGE), or install mmdebstrap "
                f"(`apt-get install mmdebstrap`) to have one made from Debian packages"
            )
        say(f"making {name} from Debian packages, because no registry answers")
        repository, _, tag = name.rpartition(":")
        with tempfile.TemporaryDirectory(prefix="modelfleet-base-") as scratch:
            tarball = Path(scratch) / "base.tar"
            _bootstrap(tarball, tag)
            with self._calls.during(f"import {name}"):
                self._calls.with_timeout(IMPORT_TIMEOUT_S).import_image_from_file(
                    str(tarball), repository=repository, tag=tag, changes=["LABEL modelfleet.role=base-image"]
                )


def debian_suite() -> str:
    """This host's release, so that mmdebstrap uses the host's own package sources and keys."""
    try:
        facts = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    except OSError:
        facts = {}
    return facts.get("VERSION_CODENAME", "").strip('"') or "bookworm"


def _bootstrap(tarball: Path, suite: str) -> None:
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in _UNUSED]
    command = ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", *options, suite, str(tarball)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise RuntimeBuildFailed(
            f"base image: mmdebstrap did not end: {exc}; run it by hand: {' '.join(command)}"
        ) from exc
    if done.returncode:
        tail = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-_LAST_LINES:])
        full = "no space left on device" in done.stderr.lower()
        cause = "the disk is full; free some" if full else "its last lines say why; `apt-get update` may help"
        raise RuntimeBuildFailed(f"base image: mmdebstrap ended with exit code {done.returncode}; {cause}\n{tail}")


def _name_digest(reference: str) -> str:
    return hashlib.sha256(reference.encode()).hexdigest()[:12]
