"""The artifact store: what counts into a digest, what is copied, and the sentences for what cannot be taken."""

from __future__ import annotations

import json
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from orchestrator.adapters._content import Artifact
from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.core.errors import NotFoundError, UnavailableError, UserError
from orchestrator.core.sources import Source

LONG_AGO = (1_000_000_000, 1_000_000_000)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "models" / "iris"
    (directory / "parts").mkdir(parents=True)
    (directory / "model.bin").write_bytes(b"weights")
    (directory / "parts" / "labels.txt").write_text("a b c")
    return directory


def content(artifact: Artifact) -> dict[str, bytes]:
    files = (path for path in artifact.path.rglob("*") if path.is_file())
    return {path.relative_to(artifact.path).as_posix(): path.read_bytes() for path in files}


class TestDigest:
    def test_is_that_of_the_stored_artifact(self, store: ArtifactStore, source: Path, tmp_path: Path) -> None:
        assert store.look(Source("models/iris"), tmp_path).digest == store.fetch(Source("models/iris"), tmp_path).digest

    def test_ignores_modes_times_and_where_the_source_lies(self, store: ArtifactStore, tmp_path: Path) -> None:
        for place in ("one", "two"):
            (tmp_path / place).mkdir()
            (tmp_path / place / "m").write_text("same")
        os.chmod(tmp_path / "two" / "m", 0o755)
        os.utime(tmp_path / "two" / "m", LONG_AGO)

        assert store.look(Source("one"), tmp_path).digest == store.look(Source("two"), tmp_path).digest

    @pytest.mark.parametrize("change", ["content", "name", "one more file", "moved between two files"])
    def test_changes_with_every_name_and_byte(self, store: ArtifactStore, source: Path, change: str) -> None:
        before = store.look(Source(str(source)), source).digest
        if change == "content":
            (source / "model.bin").write_bytes(b"Weights")
        elif change == "name":
            (source / "model.bin").rename(source / "model.bin2")
        elif change == "one more file":
            (source / "empty").touch()
        else:
            (source / "model.bin").write_bytes(b"weight")
            (source / "parts" / "labels.txt").write_text("sa b c")

        assert store.look(Source(str(source)), source).digest != before

    def test_of_an_unchanged_file_is_not_computed_again(self, store: ArtifactStore, source: Path) -> None:
        """The content is changed behind an unchanged stamp, so that a second reading would show."""
        model = source / "model.bin"
        os.utime(model, LONG_AGO)
        before = store.look(Source(str(source)), source).digest
        with model.open("r+b") as file:
            file.write(b"WEIGHTS")
        os.utime(model, LONG_AGO)

        assert store.look(Source(str(source)), source).digest == before
        assert ArtifactStore(store.root).look(Source(str(source)), source).digest == before, "it is remembered on disk"

    def test_of_a_file_written_just_now_is_computed_again(self, store: ArtifactStore, source: Path) -> None:
        model = source / "model.bin"
        stamp = model.stat()
        before = store.look(Source(str(source)), source).digest
        with model.open("r+b") as file:
            file.write(b"WEIGHTS")
        os.utime(model, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

        assert store.look(Source(str(source)), source).digest != before

    def test_survives_a_broken_cache(self, store: ArtifactStore, source: Path) -> None:
        before = store.look(Source(str(source)), source).digest
        store.root.mkdir(exist_ok=True)
        (store.root / "digests.json").write_text("{half")

        assert ArtifactStore(store.root).look(Source(str(source)), source).digest == before


class TestFetch:
    def test_copies_the_tree_read_only(self, store: ArtifactStore, source: Path) -> None:
        artifact = store.fetch(Source(str(source)), source)

        assert content(artifact) == {"model.bin": b"weights", "parts/labels.txt": b"a b c"}
        assert artifact.size_bytes == 12
        modes = {oct(path.stat().st_mode & 0o777) for path in [artifact.path, *artifact.path.rglob("*")]}
        assert modes == {"0o444", "0o555"}

    def test_a_single_file_becomes_a_directory_that_holds_it(self, store: ArtifactStore, source: Path) -> None:
        assert content(store.fetch(Source("model.bin"), source)) == {"model.bin": b"weights"}

    def test_the_copy_does_not_change_with_the_source(self, store: ArtifactStore, source: Path) -> None:
        artifact = store.fetch(Source(str(source)), source)

        (source / "model.bin").write_bytes(b"other")

        assert content(artifact)["model.bin"] == b"weights"

    def test_links_inside_the_tree_are_copied_as_what_they_lead_to(self, store: ArtifactStore, source: Path) -> None:
        (source / "latest.bin").symlink_to("model.bin")
        (source / "more").symlink_to("parts")

        assert content(store.fetch(Source(str(source)), source)) == {
            "latest.bin": b"weights",
            "model.bin": b"weights",
            "more/labels.txt": b"a b c",
            "parts/labels.txt": b"a b c",
        }

    def test_by_many_at_once_stores_one(self, store: ArtifactStore, source: Path) -> None:
        gate = threading.Barrier(8)

        def fetch(_: int) -> Artifact:
            gate.wait(10)
            return ArtifactStore(store.root).fetch(Source(str(source)), source)

        with ThreadPoolExecutor(8) as pool:
            artifacts = set(pool.map(fetch, range(8)))

        assert len(artifacts) == 1
        assert [path.name for path in store.root.iterdir() if path.name.startswith(".fetch")] == []

    def test_takes_any_fsspec_url(self, store: ArtifactStore, tmp_path: Path) -> None:
        memory = fsspec.filesystem("memory")
        memory.pipe({"/bucket/m/model.bin": b"weights", "/bucket/m/parts/labels.txt": b"a b c"})

        artifact = store.fetch(Source("memory://bucket/m"), tmp_path)

        assert content(artifact) == {"model.bin": b"weights", "parts/labels.txt": b"a b c"}
        assert artifact.digest == store.look(Source("memory://bucket/m"), tmp_path).digest

    def test_takes_one_file_by_url(self, store: ArtifactStore, source: Path, tmp_path: Path) -> None:
        fsspec.filesystem("memory").pipe({"/bucket/one/model.bin": b"weights"})

        remote = store.fetch(Source("memory://bucket/one/model.bin"), tmp_path)

        assert remote.digest == store.look(Source("model.bin"), source).digest

    def test_takes_file_urls_and_absolute_paths_as_the_same(self, store: ArtifactStore, source: Path) -> None:
        assert store.look(Source(f"file://{source}"), Path("/")) == store.look(Source(str(source)), Path("/"))

    def test_a_source_that_changes_while_it_is_copied_is_refused(self, store: ArtifactStore, source: Path) -> None:
        """The writer strikes when the store says that it begins to copy."""

        def strike(*_: object) -> None:
            (source / "model.bin").write_text("AFTER!!")

        with pytest.raises(UserError, match="changed while it was copied; let its writer finish"):
            store.fetch(Source(str(source)), source, report=strike)

        assert [path.name for path in store.root.iterdir() if len(path.name) == 64] == []


class TestRefusals:
    def test_a_missing_source(self, store: ArtifactStore, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"source no/such: .*/no/such does not exist; a source is a file"):
            store.look(Source("no/such"), tmp_path)

    def test_an_empty_directory(self, store: ArtifactStore, tmp_path: Path) -> None:
        (tmp_path / "void").mkdir()

        with pytest.raises(UserError, match="source void: an empty directory; it must hold the model's files"):
            store.fetch(Source("void"), tmp_path)

    def test_files_without_content(self, store: ArtifactStore, tmp_path: Path) -> None:
        (tmp_path / "model.bin").touch()

        with pytest.raises(UserError, match="every file in it is empty"):
            store.fetch(Source("model.bin"), tmp_path)

    @pytest.mark.parametrize("target", ["/etc/hostname", "../../outside"])
    def test_a_link_out_of_the_tree(self, store: ArtifactStore, source: Path, target: str) -> None:
        (source.parent.parent / "outside").write_text("secret")
        (source / "link").symlink_to(target)

        with pytest.raises(UserError, match="links must stay inside the source"):
            store.fetch(Source(str(source)), source)

    def test_a_link_to_nothing(self, store: ArtifactStore, source: Path) -> None:
        (source / "link").symlink_to("gone")

        with pytest.raises(UserError, match="a symbolic link to nothing"):
            store.look(Source(str(source)), source)

    def test_a_link_to_a_directory_around_it(self, store: ArtifactStore, source: Path) -> None:
        (source / "parts" / "loop").symlink_to("..")

        with pytest.raises(UserError, match="the tree never ends"):
            store.look(Source(str(source)), source)

    @pytest.mark.parametrize("kind", ["named pipe", "socket"])
    def test_special_files(self, store: ArtifactStore, kind: str, tmp_path: Path) -> None:
        directory = tmp_path / "s"
        directory.mkdir()
        (directory / "model.bin").write_text("x")
        if kind == "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(directory / "odd"))
        else:
            os.mkfifo(directory / "odd")

        with pytest.raises(UserError, match=f"odd: a {kind}; a source holds files and directories only"):
            store.look(Source("s"), tmp_path)

    def test_a_protocol_that_nobody_knows(self, store: ArtifactStore, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"source gopher://x: .*use a path or a URL that fsspec knows"):
            store.look(Source("gopher://x"), tmp_path)

    def test_a_remote_source_that_is_not_there(self, store: ArtifactStore, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="source memory://nowhere: nothing is there, or these"):
            store.fetch(Source("memory://nowhere"), tmp_path)

    def test_more_than_the_disk_has_room_for(self, store: ArtifactStore, tmp_path: Path) -> None:
        """A sparse file, which claims 8 TiB and takes nothing. Its digest is known, so that it is not read."""
        huge = tmp_path / "huge.bin"
        with huge.open("wb") as file:
            file.truncate(8 * 1024**4)
        os.utime(huge, LONG_AGO)
        facts = huge.stat()
        stamp = [facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_dev, "ab" * 32]
        store.root.mkdir()
        (store.root / "digests.json").write_text(json.dumps({str(huge): stamp}))

        with pytest.raises(UnavailableError, match=r"huge.bin: 8,796,093,022,208 bytes, but [\d,]+ are free under"):
            store.fetch(Source("huge.bin"), tmp_path)


class TestRemoval:
    def test_keeps_what_is_named(self, store: ArtifactStore, source: Path) -> None:
        kept = store.fetch(Source("model.bin"), source)
        gone = store.fetch(Source("parts"), source)

        ArtifactStore(store.root).remove_unreferenced({kept.digest})

        assert kept.path.exists()
        assert not gone.path.exists()

    def test_spares_what_this_process_fetched_and_nobody_could_name_yet(
        self, store: ArtifactStore, source: Path
    ) -> None:
        fetched = store.fetch(Source("model.bin"), source)

        store.remove_unreferenced(set())

        assert fetched.path.exists()

    def test_takes_what_was_named_once_and_is_no_more(self, store: ArtifactStore, source: Path) -> None:
        fetched = store.fetch(Source("model.bin"), source)

        store.remove_unreferenced({fetched.digest})
        store.remove_unreferenced(set())

        assert not fetched.path.exists()
        with pytest.raises(NotFoundError, match="it was removed; apply again to fetch it"):
            store.path(fetched.digest)
