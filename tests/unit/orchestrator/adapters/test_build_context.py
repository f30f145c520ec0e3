"""What goes into a build: content that counts, and facts of this host that must not."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import pytest

from orchestrator.adapters._build_context import (
    build_secrets,
    content_digest,
    context_tar,
    pip_settings,
    worker_package,
)
from orchestrator.adapters.environments import pins
from orchestrator.adapters.images import build_sentence


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "worker_image"
    (root / "server").mkdir(parents=True)
    (root / "examples").mkdir()
    (root / "Dockerfile").write_text("FROM scratch")
    (root / "server" / "app.py").write_text("pass")
    return root


class TestContentDigest:
    def test_changes_with_content(self, package: Path) -> None:
        before = content_digest(package)

        (package / "server" / "app.py").write_text("pass  # other")

        assert content_digest(package) != before

    def test_ignores_byte_code_and_examples(self, package: Path) -> None:
        before = content_digest(package)

        (package / "server" / "__pycache__").mkdir()
        (package / "server" / "__pycache__" / "app.pyc").write_bytes(b"x")
        (package / "examples" / "train.py").write_text("pass")

        assert content_digest(package) == before

    def test_tells_parts_apart_that_join_to_the_same(self, package: Path) -> None:
        assert content_digest(package, b"ab", b"c") != content_digest(package, b"a", b"bc")

    def test_of_the_shipped_package_needs_its_dockerfile(self) -> None:
        assert (worker_package() / "Dockerfile").is_file()


class TestContext:
    def test_is_the_same_for_the_same_content(self, package: Path) -> None:
        """The engine's layer cache hashes the archive's metadata too."""
        first = context_tar(package, {}).read()
        (package / "server" / "app.py").touch()

        assert context_tar(package, {}).read() == first

    def test_holds_the_package_and_what_is_added(self, package: Path) -> None:
        with tarfile.open(fileobj=context_tar(package, {"pip.conf": b"x"})) as tar:
            assert tar.getnames() == ["worker_image/Dockerfile", "worker_image/server/app.py", "pip.conf"]


class TestBuildSecrets:
    def test_takes_the_first_ca_bundle_that_exists(self, tmp_path: Path) -> None:
        bundle = tmp_path / "ca.crt"
        bundle.write_text("CERT")
        environ = {"PIP_CERT": "/no/such", "REQUESTS_CA_BUNDLE": str(bundle)}

        assert build_secrets(environ) == {"build-ca.crt": b"CERT"}

    def test_nothing_where_the_host_sets_nothing(self) -> None:
        assert build_secrets({}) == {}

    def test_writes_an_index_as_pip_conf(self) -> None:
        files = build_secrets({"PIP_INDEX_URL": "https://index.example/simple"})

        assert files == {"pip.conf": b"[global]\nindex-url = https://index.example/simple\n"}

    def test_leaves_out_indexes_that_a_container_cannot_reach(self) -> None:
        environ = {"PIP_EXTRA_INDEX_URL": "file:///opt/simple https://index.example/simple", "PIP_INDEX_URL": "/opt/x"}

        assert pip_settings(environ) == {"extra-index-url": "https://index.example/simple"}


class TestPins:
    def test_gives_those_of_the_running_python(self) -> None:
        lock = (
            "click==8.5.1 \\\n    --hash=sha256:00\n"
            "numpy==1.0 ; python_full_version < '3.9' \\\n"
            "numpy==2.0 ; python_full_version >= '3.9' \\\n    # via -r x.in\n"
            f"here==1 ; python_full_version >= '3.9' and sys_platform == '{sys.platform}' \\\n"
            f"there==1 ; python_full_version >= '3.9' and sys_platform != '{sys.platform}' \\\n"
            f"old==1 ; python_full_version < '3.9' and sys_platform == '{sys.platform}' \\\n"
        )

        assert list(pins(lock)) == [("click", "8.5.1"), ("numpy", "2.0"), ("here", "1")]

    def test_finds_every_pin_of_the_shipped_locks(self) -> None:
        for lock in (worker_package() / "requirements").glob("*.lock"):
            text = lock.read_text()
            names = {line.split("==")[0] for line in text.splitlines() if "==" in line and not line.startswith(" ")}

            assert {name for name, _ in pins(text)} <= names
            assert "numpy" in {name for name, _ in pins(text)}


class TestBuildSentence:
    def test_shows_the_last_lines_below_what_failed(self) -> None:
        assert build_sentence("modelfleet/worker-x:1", "exit code 1", ["Step 1", "boom"]).splitlines() == [
            "modelfleet/worker-x:1: cannot be built: exit code 1; the last lines of the build say why",
            "  Step 1",
            "  boom",
        ]

    @pytest.mark.parametrize(
        "said", ["write /x: no space left on device", "OSError: [Errno 28] No space left on device"]
    )
    def test_says_when_the_disk_is_full(self, said: str) -> None:
        first = build_sentence("x", "exit code 1", [said]).splitlines()[0]

        assert first.startswith("x: cannot be built: the disk is full; free space where Docker keeps its data")
