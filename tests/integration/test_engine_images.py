"""Images on a real engine: named by content, built once, without a trace of the host's CA bundle and index in them."""

from __future__ import annotations

import io
import json
import os
import tarfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest

from orchestrator.adapters._base_image import BaseImage
from orchestrator.adapters._docker_calls import DockerCalls
from orchestrator.adapters.engine import RuntimeBuildFailed, RuntimeRequest
from orchestrator.adapters.images import ImageBuilder

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


@pytest.fixture
def calls() -> Iterator[DockerCalls]:
    calls = DockerCalls()
    yield calls
    calls.close()


@pytest.fixture
def base(calls: DockerCalls, tmp_path: Path) -> str:
    """The id of the base that the run's images are built on."""
    return BaseImage(tmp_path / "base", os.environ.get("MODELFLEET_BASE_IMAGE", ""), calls).ensure(print)


def files_of(client: docker.DockerClient, image: str) -> dict[str, bytes]:
    """Every regular file of an image up to 1 MB, by path."""
    container = client.containers.create(image)
    try:
        archive = io.BytesIO(b"".join(container.export()))
    finally:
        container.remove()
    with tarfile.open(fileobj=archive) as tar:
        members = [m for m in tar if m.isfile()]
        return {m.name: _read(tar, m) for m in members}


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > 1_000_000:
        return b""
    file = tar.extractfile(member)
    return file.read() if file else b""


class TestWorkerImage:
    def test_built_by_many_at_once_is_built_once(
        self, python_image: str, base: str, calls: DockerCalls, tmp_path: Path
    ) -> None:
        said: list[str] = []
        requirements = b"# nothing but a comment, for an image of this test alone\n"
        request = RuntimeRequest(
            backend="python", requirements=requirements + tmp_path.name.encode().join([b"# ", b"\n"])
        )

        def build(_: int) -> str:
            return ImageBuilder(tmp_path, base, calls).ensure(request, said.append)

        with ThreadPoolExecutor(4) as pool:
            names = set(pool.map(build, range(4)))

        (name,) = names
        assert said.count(f"building {name}") == 1
        calls.slow.remove_image(name)

    def test_holds_neither_the_ca_bundle_nor_the_index_of_the_build(
        self, base: str, calls: DockerCalls, docker_client: docker.DockerClient, tmp_path: Path
    ) -> None:
        """Both are given to the build; the last stage must not show them in a file, in its history or in its settings."""
        bundle = tmp_path / "ca.crt"
        marker = f"mark-{uuid.uuid4().hex}"
        bundle.write_text(f"# {marker}\n{host_bundle()}")
        environ = {"PIP_CERT": str(bundle), "PIP_EXTRA_INDEX_URL": f"http://user:{marker}@127.0.0.1:1/simple"}
        builder = ImageBuilder(tmp_path, base, calls, environ)
        request = RuntimeRequest(backend="python", requirements=f"# {tmp_path}\n".encode())

        name = builder.ensure(request)

        try:
            image = docker_client.images.get(name)
            told = json.dumps([image.attrs, image.history()])
            files = files_of(docker_client, name)
            assert marker not in told
            assert [path for path, content in files.items() if marker.encode() in content] == []
            assert not [p for p in files if p.endswith(("pip.conf", "build-ca.crt")) or p.startswith("build/")]
            assert image.labels["modelfleet.role"] == "worker-image"
        finally:
            calls.slow.remove_image(name)

    def test_has_no_installer(self, python_image: str, docker_client: docker.DockerClient) -> None:
        paths = files_of(docker_client, python_image)

        assert not [p for p in paths if p.startswith(("opt/venv/bin/pip", "opt/pip/"))]

    def test_a_requirement_that_does_not_exist_shows_the_builds_last_lines(
        self, base: str, calls: DockerCalls, tmp_path: Path
    ) -> None:
        builder = ImageBuilder(tmp_path, base, calls)
        request = RuntimeRequest(backend="python", requirements=b"./no/such/package\n")

        with pytest.raises(RuntimeBuildFailed) as caught:
            builder.ensure(request)

        first, *rest = str(caught.value).splitlines()
        assert "cannot be built" in first
        assert any("no/such/package" in line for line in rest)
        assert len(rest) <= 20


class TestBase:
    def test_a_choice_is_kept_so_that_names_do_not_change(self, base: str, calls: DockerCalls, tmp_path: Path) -> None:
        reference = "modelfleet-test/base:kept"
        calls.quick.tag(base, "modelfleet-test/base", "kept")
        try:
            builder = ImageBuilder(tmp_path, reference, calls)
            BaseImage(tmp_path / "images", reference, calls).ensure(print)
            before = builder.worker_name("python")
            calls.slow.remove_image(reference)

            assert ImageBuilder(tmp_path, reference, calls).worker_name("python") == before
        finally:
            for image in calls.quick.images(reference):
                calls.slow.remove_image(image["Id"], force=True)

    def test_another_configured_base_is_another_choice(self, base: str, calls: DockerCalls, tmp_path: Path) -> None:
        other = ImageBuilder(tmp_path, "modelfleet-test/absent:1", calls)

        assert other.worker_name("python") != ImageBuilder(tmp_path, base, calls).worker_name("python")

    def test_a_configured_one_that_is_nowhere_says_where_it_was_named(self, calls: DockerCalls, tmp_path: Path) -> None:
        builder = ImageBuilder(tmp_path, "registry.invalid/base:1", calls)

        with pytest.raises(
            RuntimeBuildFailed,
            match=r"base image 'registry.invalid/base:1': not found locally and pull failed: .*MODELFLEET_BASE_IMAGE",
        ):
            builder.ensure(RuntimeRequest(backend="python"))


class TestCustomImage:
    def test_that_is_present_is_known_by_its_id(self, python_image: str, calls: DockerCalls, tmp_path: Path) -> None:
        builder = ImageBuilder(tmp_path, None, calls)
        request = RuntimeRequest(image=python_image)

        assert builder.runtime_id(request) == builder.ensure(request) == calls.quick.inspect_image(python_image)["Id"]

    def test_that_is_absent_is_known_by_its_name_until_it_is_pulled(self, calls: DockerCalls, tmp_path: Path) -> None:
        builder = ImageBuilder(tmp_path, None, calls)

        assert builder.runtime_id(RuntimeRequest(image="registry.invalid/x:1")) == "registry.invalid/x:1"

    @pytest.mark.parametrize("name", ["registry.invalid/x:1", "Not A Name"])
    def test_that_cannot_be_had_says_so(self, calls: DockerCalls, tmp_path: Path, name: str) -> None:
        with pytest.raises(
            RuntimeBuildFailed, match=f"image '{name}': not found locally and pull failed: .*; check the name"
        ):
            ImageBuilder(tmp_path, None, calls).ensure(RuntimeRequest(image=name))


def host_bundle() -> str:
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    return bundle.read_text() if bundle.exists() else ""
