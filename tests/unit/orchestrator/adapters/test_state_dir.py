"""The state directory: for its owner alone, with one control plane at a time."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from orchestrator.adapters.state_dir import StateDir, write_private
from orchestrator.core.errors import ConflictError, UserError


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    found = StateDir(tmp_path / "deep" / "state")
    found.open()
    return found


class TestOpen:
    def test_nothing_is_made_before(self, tmp_path: Path) -> None:
        StateDir(tmp_path / "state")

        assert list(tmp_path.iterdir()) == []

    def test_directories_are_0700_and_secret_files_0600(self, state: StateDir) -> None:
        directories = [p for p in state.root.rglob("*") if p.is_dir()]
        files = [p for p in state.root.rglob("*") if p.is_file()]

        assert {_mode(p) for p in (state.root, *directories)} == {0o700}
        assert {p.name: _mode(p) for p in files} == {"token": 0o600, "key": 0o600}

    def test_a_directory_that_others_could_read_is_closed(self, tmp_path: Path) -> None:
        (tmp_path / "state").mkdir(mode=0o755)

        StateDir(tmp_path / "state").open()

        assert _mode(tmp_path / "state") == 0o700

    def test_the_token_stays_the_same(self, state: StateDir) -> None:
        token = state.token

        state.open()

        assert state.token == token
        assert len(token) >= 32

    def test_a_file_in_its_place_is_told_with_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_text("")

        with pytest.raises(UserError, match="--state-dir"):
            StateDir(tmp_path / "state").open()


class TestLock:
    def test_a_second_holder_is_refused_with_the_first_ones_process_id(self, state: StateDir) -> None:
        state.acquire()
        second = StateDir(state.root)

        with pytest.raises(ConflictError, match=f"process id {os.getpid()}"):
            second.acquire()
        state.release()
        second.acquire()

        second.release()

    def test_releasing_takes_the_announcement_back(self, state: StateDir) -> None:
        state.acquire()
        state.announce({"pid": 1})
        assert json.loads(state.control_file.read_text()) == {"pid": 1}

        state.release()

        assert not state.control_file.exists()


class TestSecrets:
    def test_a_value_is_found_by_its_digest_which_tells_nothing_of_it(self, state: StateDir, tmp_path: Path) -> None:
        other = StateDir(tmp_path / "other")
        other.open()

        digest = state.keep_secret("hunter2")

        assert state.secret(digest) == "hunter2"
        assert state.keep_secret("hunter2") == digest
        assert state.keep_secret("hunter3") != digest
        assert other.keep_secret("hunter2") != digest
        assert _mode(state.root / "secrets" / digest) == 0o600

    def test_a_private_file_is_replaced_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old")
        path.chmod(0o644)

        write_private(path, b"new")

        assert path.read_text() == "new"
        assert _mode(path) == 0o600
        assert list(tmp_path.iterdir()) == [path]
