"""Rules about the repository itself that no linter of others holds: what may be in it, and what its pages point to."""

from __future__ import annotations

import ast
import re
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from pip._internal.models.index import PyPI

from orchestrator.api import schemas
from orchestrator.core.states import ReplicaState

ROOT = Path(__file__).parents[2]

# A core decides; what it may not import would let it wait, measure, guess or speak.
BANNED_IN_CORE = {"time", "random", "asyncio", "logging", "socket", "subprocess", "threading", "structlog"}
BANNED_CALLS_IN_CORE = {"datetime.now", "datetime.utcnow", "datetime.datetime.now", "date.today", "open", "print"}
CORES = ["orchestrator/core", "router/core"]


def tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def package_hosts() -> set[str]:
    """The hosts that packages come from here: of pip, and of apt where there is one."""
    hosts = {PyPI.netloc, PyPI.file_storage_domain}
    for source in Path("/etc/apt").glob("sources.list*/**/*"):
        if source.is_file():
            hosts |= set(re.findall(r"https?://([^/\s]+)", source.read_text(errors="replace")))
    return hosts


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in tracked():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    return found


class TestTrackedFiles:
    def test_name_no_package_registry_host(self) -> None:
        hosts = re.compile("|".join(re.escape(host) for host in sorted(package_hosts())))

        assert lines_with(hosts) == []

    def test_name_no_directory_of_the_machine_they_were_written_on(self) -> None:
        assert lines_with(re.compile(r"(?<![\w.])/(root|work|home/\w+)/")) == []

    def test_are_small_enough_to_be_source(self) -> None:
        assert [str(path) for path in tracked() if path.stat().st_size > 500_000] == []


class TestPythonModules:
    @pytest.mark.parametrize("package", ["orchestrator", "router", "worker_image", "benchmarks"])
    def test_say_at_the_top_what_they_own(self, package: str) -> None:
        modules = [path for path in tracked(f"{package}/*.py") if path.read_text().strip()]

        assert [str(p.relative_to(ROOT)) for p in modules if not ast.get_docstring(ast.parse(p.read_text()))] == []

    @pytest.mark.parametrize("core", CORES)
    def test_of_a_core_import_nothing_that_waits_measures_guesses_or_speaks(self, core: str) -> None:
        found = [f"{path.relative_to(ROOT)}: {name}" for path in tracked(f"{core}/*.py") for name in impurities(path)]

        assert found == []


def impurities(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in BANNED_IN_CORE)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in BANNED_IN_CORE:
            yield str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in BANNED_CALLS_IN_CORE:
            yield ast.unparse(node.func)


class TestPages:
    def test_link_only_to_what_exists(self) -> None:
        missing = []
        for page in tracked("*.md"):
            for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
                path = target.partition("#")[0]
                if path and "://" not in path and not (page.parent / path).exists():
                    missing.append(f"{page.relative_to(ROOT)}: {target}")

        assert missing == []

    def test_name_only_make_targets_that_exist(self) -> None:
        targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))

        named = {
            (str(page.relative_to(ROOT)), target)
            for page in tracked("*.md")
            for target in re.findall(r"(?:`|^\s*|\$ )make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE)
        }

        assert {pair for pair in named if pair[1] not in targets} == set()

    def test_every_state_that_a_user_can_read_stands_in_the_glossary(self) -> None:
        glossary = (ROOT / "docs/GLOSSARY.md").read_text()
        states = {*ReplicaState, *typing.get_args(schemas.VersionState), *typing.get_args(schemas.OperationState)}

        assert {state for state in states if f"`{state}`" not in glossary} == set()


def test_no_pattern_is_possessive_around_a_group() -> None:
    """CPython before 3.11.5 keeps what a failed part of such a group had taken (gh-106052): it lets through what it
    must refuse."""
    possessive_group = re.compile(r"(?<!&'\()\)[*+?]\+")  # `&'()*+` stands inside a set of characters
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked("router/*.py", "worker_image/*.py", "orchestrator/*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if possessive_group.search(line)
    ]
    assert found == []
