"""Which wheels of this host's disk a build is given."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from orchestrator.adapters._build_context import by_version_alone, context_tar, worker_package
from orchestrator.adapters._local_wheels import matching, with_pip_files


def wheel(directory: Path, name: str, requires: str = "") -> Path:
    directory.mkdir(exist_ok=True)
    file = directory / name
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("x.dist-info/METADATA", f"Name: x\n{requires}\n\nRequires-Dist: not-a-field")
    return file


class TestMatching:
    @pytest.mark.parametrize(
        ("requirements", "found"),
        [
            ("torch==2.13.0\n", True),
            ("torch==2.13.0+cpu", True),
            ("Torch >= 2 ; python_version > '3'", True),
            ("torch==2.13.*", True),
            ("torch==2.12.0", False),
            ("torchvision", False),
            ("# torch\n--index-url x\n    --hash=sha256:00\n", False),
        ],
    )
    def test_finds_what_requirements_name(self, tmp_path: Path, requirements: str, found: bool) -> None:
        file = wheel(tmp_path, "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl")

        assert matching({"PIP_FIND_LINKS": str(tmp_path)}, [requirements]) == ([file] if found else [])

    def test_finds_what_these_wheels_require(self, tmp_path: Path) -> None:
        mine = wheel(
            tmp_path, "mine-1.0-py3-none-any.whl", "Requires-Dist: Other_One>=2\nRequires-Dist: no; extra == 'x'"
        )
        other = wheel(tmp_path, "other_one-2.0-py3-none-any.whl", "Requires-Dist: mine")
        wheel(tmp_path, "no-1.0-py3-none-any.whl")

        assert matching({"PIP_FIND_LINKS": f"file://{tmp_path}"}, ["mine"]) == [mine, other]

    def test_passes_over_other_systems_and_places_that_are_none(self, tmp_path: Path) -> None:
        wheel(tmp_path, "torch-2.13.0-cp311-cp311-win_amd64.whl")
        (tmp_path / "torch.whl").write_bytes(b"")

        environ = {"PIP_FIND_LINKS": f"/no/such https://wheels.example/ {tmp_path}"}

        assert matching(environ, ["torch"]) == []
        assert matching({}, ["torch"]) == []


class TestPipFiles:
    def test_add_what_no_variable_says(self, tmp_path: Path) -> None:
        file = tmp_path / "pip.conf"
        file.write_text("[global]\nfind-links = /a\n  /b\nindex-url = https://file.example\n[freeze]\ntimeout = 10\n")
        environ = {"PIP_CONFIG_FILE": str(file), "PIP_INDEX_URL": "https://variable.example", "XDG_CONFIG_DIRS": "/no"}

        found = with_pip_files(environ)

        assert found["PIP_FIND_LINKS"].split() == ["/a", "/b"]
        assert found["PIP_INDEX_URL"] == "https://variable.example"

    def test_none_is_read_where_pip_itself_reads_none(self) -> None:
        environ = {"PIP_CONFIG_FILE": "/dev/null"}

        assert with_pip_files(environ) == environ


class TestBuild:
    def test_the_context_holds_wheels_in_a_folder_of_their_own(self, tmp_path: Path) -> None:
        (tmp_path / "worker_image").mkdir()
        file = wheel(tmp_path, "mine-1.0-py3-none-any.whl")

        with context_tar(tmp_path / "worker_image", {}, [file]) as context, tarfile.open(fileobj=context) as tar:
            assert tar.getnames() == ["wheels/mine-1.0-py3-none-any.whl"]

    def test_what_has_no_hash_is_torch_alone_and_the_same_everywhere(self) -> None:
        texts = {file.stem: by_version_alone(file.stem) for file in (worker_package() / "requirements").glob("*.txt")}
        lines = {line for text in texts.values() for line in text.splitlines() if line and not line.startswith("#")}

        assert len(lines) == 1
        assert next(iter(lines)).startswith("torch==")
        assert by_version_alone("python") == ""
