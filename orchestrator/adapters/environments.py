"""Where local replicas run: per (backend, requirements) an interpreter and a copy of the model server's code.

The control plane's own interpreter is used where it already has what the lock pins; otherwise a virtual environment is
made and renamed into place when it is complete. The code is copied so that an upgrade does not change what runs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from orchestrator.adapters._build_context import (
    backend_problem,
    by_version_alone,
    content_digest,
    package_files,
    worker_package,
)
from orchestrator.adapters._locks import file_lock
from orchestrator.adapters.engine import Progress, RuntimeBuildFailed, RuntimeRequest

INSTALL_TIMEOUT_S = 1800.0
_LAST_LINES = 20
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)\s*(?:;\s*(?P<marker>[^\\]+?))?\s*\\?$")
# As worker_image/install.sh says: MLflow 2 brings the files of mlflow-skinny itself.
_NAMES_MLFLOW = re.compile(rb"^ *mlflow *([\[=<>~! ;]|$)", re.IGNORECASE | re.MULTILINE)
_MARKER = re.compile(r"python_full_version\s*(?P<op><|>=)\s*'(?P<version>[\d.]+)'")
_PLATFORM = re.compile(r"sys_platform\s*(?P<op>==|!=)\s*'(?P<name>\w+)'")


@dataclass(frozen=True, slots=True)
class Environment:
    """`python` runs the model server with `code` on its path; byte code goes to `bytecode`, for all environments.

    Beside the sources it has no place: artifacts must stay as they are, and a shared interpreter may be read-only.
    """

    python: str
    code: Path
    bytecode: Path


class Environments:
    """All environments below `root`. `allow_own`: whether the running interpreter may serve as one."""

    def __init__(self, root: Path, *, allow_own: bool = True) -> None:
        self.root = root
        self._allow_own = allow_own

    def id(self, request: RuntimeRequest) -> str:
        """A content address: backend, the shipped package with its locks, requirements and Python's version."""
        if request.image:
            raise RuntimeBuildFailed(
                f"image {request.image!r}: the process engine runs no images; give the version a `source:` and a "
                f"`backend:`, or use `engine: docker`"
            )
        if problem := backend_problem(request.backend):
            raise RuntimeBuildFailed(problem)
        return self._name(request)

    def ensure_examples(self, progress: Progress | None = None) -> Environment:
        """The environment that trains the example models: every framework and the exporter, and it serves nothing."""
        request = RuntimeRequest(backend="examples")
        runtime = self._name(request)
        found = self._ensure(runtime, request, progress)
        assert found is not None  # it was made under the lock that is held until here
        return found

    def _name(self, request: RuntimeRequest) -> str:
        python = "{}.{}".format(*sys.version_info[:2]).encode()
        digest = content_digest(worker_package(), request.backend.encode(), python, request.requirements)
        return f"process/{request.backend}:{digest}"

    def find(self, runtime: str) -> Environment | None:
        """What `ensure` made, None where it is not there (any more)."""
        directory = self._directory(runtime)
        try:
            python = str(json.loads((directory / "environment.json").read_text())["python"])
        except (FileNotFoundError, ValueError, KeyError):
            return None
        if not Path(python).exists():
            return None
        return Environment(python, directory / "code", self.root / ".bytecode")

    def ensure(self, request: RuntimeRequest, progress: Progress | None = None) -> str:
        runtime = self.id(request)
        self._ensure(runtime, request, progress)
        return runtime

    # -- below -------------------------------------------------------------------------------------------------------

    def _ensure(self, runtime: str, request: RuntimeRequest, progress: Progress | None) -> Environment | None:
        with file_lock(self.root / f".{_digest_of(runtime)}.lock"):
            if self.find(runtime) is None:
                self._make(runtime, request, progress or _silent)
            return self.find(runtime)

    def _directory(self, runtime: str) -> Path:
        return self.root / _digest_of(runtime)

    def _make(self, runtime: str, request: RuntimeRequest, say: Progress) -> None:
        """In place by its final name, because a virtual environment holds its own path; complete when its JSON is."""
        directory = self._directory(runtime)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)
        lock = worker_package() / "requirements" / f"{request.backend}.lock"
        unhashed = by_version_alone(request.backend)
        _copy_code(directory / "code")
        if self._allow_own and not request.requirements and satisfied(lock.read_text() + unhashed):
            python = sys.executable
        else:
            say(f"installing {runtime}")
            python = _install(directory, runtime, lock, [unhashed.encode(), request.requirements])
        temporary = directory / "environment.tmp"
        temporary.write_text(json.dumps({"python": python}))
        os.replace(temporary, directory / "environment.json")


def satisfied(lock: str) -> bool:
    """Whether the running interpreter has each package of the lock in exactly its version, or a local build of it."""
    for name, version in pins(lock):
        try:
            if metadata.version(name).partition("+")[0] != version:
                return False
        except metadata.PackageNotFoundError:
            return False
    return True


def pins(lock: str) -> Iterator[tuple[str, str]]:
    """(name, version) of each line of a lock that applies to the running Python."""
    for line in lock.splitlines():
        match = _PIN.match(line)
        if match and _applies(match["marker"] or ""):
            yield match["name"], match["version"]


def _applies(marker: str) -> bool:
    """Locks are universal over Python versions and platforms, and that is all that their markers say, joined by `and`;
    another one counts as met.
    """
    return all(_holds(part) for part in marker.split(" and "))


def _holds(part: str) -> bool:
    if platform := _PLATFORM.search(part):
        return (sys.platform == platform["name"]) == (platform["op"] == "==")
    if not (match := _MARKER.search(part)):
        return True
    wanted = tuple(int(number) for number in match["version"].split("."))
    older = sys.version_info[: len(wanted)] < wanted
    return older if match["op"] == "<" else not older


def _install(directory: Path, runtime: str, lock: Path, others: Iterable[bytes]) -> str:
    """`others`: the content of further requirements files, installed one after the other."""
    environment = directory / "venv"
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(runtime, [*install, "--require-hashes", "--only-binary=:all:", "--no-deps", "-r", str(lock)])
    for requirements in filter(None, others):
        wanted = directory / "requirements.txt"
        wanted.write_bytes(requirements)
        if _NAMES_MLFLOW.search(requirements):
            _run(runtime, [python, "-m", "pip", "uninstall", "--quiet", "--yes", "mlflow-skinny"])
        _run(runtime, [*install, "-r", str(wanted)])
    return python


def _run(runtime: str, command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise RuntimeBuildFailed(
            f"{runtime}: pip did not end within {INSTALL_TIMEOUT_S:g} s; is the package index reachable; apply again"
        ) from exc
    if done.returncode == 0:
        return
    output = (done.stdout + done.stderr).splitlines()[-_LAST_LINES:]
    full = any("no space left on device" in line.lower() for line in output)
    cause = "the disk is full; free some space and apply again" if full else "pip failed; its last lines say why"
    raise RuntimeBuildFailed("\n".join([f"{runtime}: cannot be installed: {cause}", *(f"  {line}" for line in output)]))


def _copy_code(target: Path) -> None:
    package = worker_package()
    for name, content in package_files(package):
        if name.startswith("worker_image/server/") or name == "worker_image/__init__.py":
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _digest_of(runtime: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", runtime.removeprefix("process/"))


def _silent(sentence: str, /) -> None:
    """Progress for nobody."""
