"""What a worker image or environment is made of: the shipped `worker_image` package, its digest, and host settings.

Read by `images.py` (a Docker build context) and `environments.py` (a virtual environment). The host's CA bundle, pip
index and wheels are facts of this host: they are handed to builds beside the content and never count into its digest.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from orchestrator.adapters._local_wheels import with_pip_files
from orchestrator.backends import BACKENDS

_CA_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


def worker_package() -> Path:
    """The directory `worker_image`, found but not imported: the control plane never runs the model server's code."""
    spec = importlib.util.find_spec("worker_image")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the package worker_image is not installed beside orchestrator")
    return Path(next(iter(spec.submodule_search_locations)))


def package_files(package: Path) -> Iterator[tuple[str, bytes]]:
    """(path below the context, content) of all that a worker is built from, in a fixed order."""
    for path in sorted(package.rglob("*")):
        relative = path.relative_to(package.parent)
        if path.is_file() and "__pycache__" not in relative.parts and path.suffix != ".pyc":
            yield relative.as_posix(), path.read_bytes()


def content_digest(package: Path, *parts: bytes) -> str:
    """Of the package's content and of `parts`. Examples do not count: no worker holds them."""
    files = (file for file in package_files(package) if not file[0].startswith("worker_image/examples/"))
    return digest_of(*(part for name, content in files for part in (name.encode(), content)), *parts)


def digest_of(*parts: bytes) -> str:
    """12 hexadecimal digits."""
    hasher = hashlib.sha256()
    for part in parts:
        # The length goes first, so that two parts can't be cut differently and look the same.
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.hexdigest()[:12]


def context_tar(package: Path, extra: Mapping[str, bytes], wheels: Iterable[Path] = ()) -> IO[bytes]:
    """A build context. Times and owners are fixed, so that the engine's layer cache sees equal content as equal.

    Kept in a file: a wheel may have hundreds of megabytes. Closing it removes it.
    """
    buffer = tempfile.TemporaryFile()  # noqa: SIM115 - it is the caller's
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in [*package_files(package), *extra.items()]:
            tar.addfile(_member(name, len(content)), io.BytesIO(content))
        for wheel in wheels:
            with wheel.open("rb") as stream:
                tar.addfile(_member(f"wheels/{wheel.name}", wheel.stat().st_size), stream)
    buffer.seek(0)
    return buffer


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member


def by_version_alone(backend: str) -> str:
    """What is installed after the backend's lock and has no hash there, as the text of a requirements file, or ""."""
    file = worker_package() / "requirements" / f"{backend}.txt"
    return file.read_text() if file.is_file() else ""


def build_secrets(environ: Mapping[str, str]) -> dict[str, bytes]:
    """`build-ca.crt` and `pip.conf` where this host needs them to reach its package index; build stages only."""
    files: dict[str, bytes] = {}
    for variable in _CA_VARIABLES:
        bundle = Path(environ.get(variable) or "/nonexistent")
        if bundle.is_file():
            files["build-ca.crt"] = bundle.read_bytes()
            break
    settings = pip_settings(environ)
    if settings:
        files["pip.conf"] = ("[global]\n" + "".join(f"{k} = {v}\n" for k, v in settings.items())).encode()
    return files


def pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Indexes that a build can reach too: a path or a file: address of this host means nothing inside a container."""
    settings = {}
    for variable, key in (("PIP_INDEX_URL", "index-url"), ("PIP_EXTRA_INDEX_URL", "extra-index-url")):
        urls = [url for url in environ.get(variable, "").split() if url.startswith(("http://", "https://"))]
        if urls:
            settings[key] = " ".join(urls)
    if environ.get("PIP_TRUSTED_HOST"):
        settings["trusted-host"] = environ["PIP_TRUSTED_HOST"]
    return settings


def backend_problem(backend: str) -> str:
    """A sentence where `backend` is none of ours, "" where it is."""
    if backend in BACKENDS:
        return ""
    return f"backend {backend!r}: unknown; the backends are {', '.join(BACKENDS)}; choose one or name an `image:`"


def host_environ() -> Mapping[str, str]:
    """This process's environment, with what pip's own files add to it."""
    return with_pip_files(os.environ)
