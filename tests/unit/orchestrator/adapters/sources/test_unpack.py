"""Archives as sources: what they become, and every way in which one must not leave its place or its bounds."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.adapters.sources import unpack as unpacking
from orchestrator.adapters.sources.remote import Access, Stop
from orchestrator.core.errors import FleetError, UserError
from orchestrator.core.sources import Source
from tests.fakes.file_server import FileServer

FILES = {"model.bin": b"weights", "parts/labels.txt": b"a b c"}
Entry = tarfile.TarInfo


def tar(path: Path, files: dict[str, bytes], mode: str = "w:gz", more: list[Entry] | None = None) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for each in more or []:
            archive.addfile(each)
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def entry(name: str, kind: bytes, link: str = "") -> Entry:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def content(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def fetched(store: ArtifactStore, path: Path, **how: object) -> dict[str, bytes]:
    return content(store.fetch(Source(path.name, **how), path.parent).path)  # type: ignore[arg-type]


class TestUnpacking:
    @pytest.mark.parametrize(
        ("name", "mode"),
        [
            ("m.tar", "w"), ("m.tar.gz", "w:gz"), ("m.tgz", "w:gz"), ("m.TAR.GZ", "w:gz"), ("m.tar.bz2", "w:bz2"),
            ("m.tbz2", "w:bz2"), ("m.tar.xz", "w:xz"), ("m.txz", "w:xz"), ("m.zip", ""),
        ],
    )  # fmt: skip
    def test_takes_every_format_for_the_same_content(
        self, store: ArtifactStore, tmp_path: Path, name: str, mode: str
    ) -> None:
        (tmp_path / "plain" / "parts").mkdir(parents=True)
        for each, data in FILES.items():
            (tmp_path / "plain" / each).write_bytes(data)
        path = tar(tmp_path / name, FILES, mode) if mode else zipped(tmp_path / name, FILES)

        assert fetched(store, path) == FILES
        assert store.look(Source(name), tmp_path).digest == store.look(Source("plain"), tmp_path).digest

    def test_an_archive_of_a_server_is_one_too(self, store: ArtifactStore, tmp_path: Path) -> None:
        with FileServer() as server:
            url = server.put("/model.tar.gz", tar(tmp_path / "model.tar.gz", FILES).read_bytes())

            assert content(store.fetch(Source(url), tmp_path).path) == FILES
            assert store.look(Source(url), tmp_path).digest != ""
            assert len(server.downloads("/model.tar.gz")) == 1

    def test_a_compression_is_known_by_its_bytes(self, store: ArtifactStore, tmp_path: Path) -> None:
        assert fetched(store, tar(tmp_path / "m.tar.gz", FILES, "w")) == FILES
        assert fetched(store, tar(tmp_path / "n.tar", FILES, "w:gz")) == FILES

    def test_takes_away_one_folder_around_all(self, store: ArtifactStore, tmp_path: Path) -> None:
        path = tar(tmp_path / "m.tgz", {f"iris-1.0/{name}": data for name, data in FILES.items()})

        assert fetched(store, path) == FILES

    def test_leaves_the_archive_whole_where_asked(self, store: ArtifactStore, tmp_path: Path) -> None:
        path = zipped(tmp_path / "policy.zip", FILES)

        assert fetched(store, path, unpack=False) == {"policy.zip": path.read_bytes()}

    def test_an_archive_inside_a_folder_stays_as_it_is(self, store: ArtifactStore, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        zipped(tmp_path / "model" / "policy.zip", FILES)

        assert list(fetched(store, tmp_path / "model")) == ["policy.zip"]

    def test_a_pin_is_of_the_archive_itself(self, store: ArtifactStore, tmp_path: Path) -> None:
        import hashlib

        path = tar(tmp_path / "m.tgz", FILES)
        pin = hashlib.sha256(path.read_bytes()).hexdigest()

        assert fetched(store, path, sha256=pin) == FILES
        assert fetched(store, path, sha256=pin) == FILES
        tar(tmp_path / "m.tgz", {"model.bin": b"others"})
        for ask in (store.look, store.fetch):
            with pytest.raises(UserError, match=f"its SHA-256 is .* and the manifest wants {pin}"):
                ask(Source("m.tgz", pin), tmp_path)

    def test_is_not_done_again_for_an_unchanged_archive(self, store: ArtifactStore, tmp_path: Path) -> None:
        path = tar(tmp_path / "m.tgz", FILES)
        os.utime(path, (1_000_000_000, 1_000_000_000))
        digest = store.look(Source("m.tgz"), tmp_path).digest
        with path.open("r+b") as file:
            file.write(b"\0" * path.stat().st_size)
        os.utime(path, (1_000_000_000, 1_000_000_000))

        assert ArtifactStore(store.root).look(Source("m.tgz"), tmp_path).digest == digest

    def test_links_become_copies_of_what_they_lead_to(self, store: ArtifactStore, tmp_path: Path) -> None:
        links = [
            entry("latest.bin", tarfile.SYMTYPE, "model.bin"),
            entry("parts/again.bin", tarfile.SYMTYPE, "../latest.bin"),
            entry("hard.bin", tarfile.LNKTYPE, "model.bin"),
        ]
        path = tar(tmp_path / "m.tar", FILES, "w", links)

        assert fetched(store, path) == {
            **FILES, "latest.bin": b"weights", "parts/again.bin": b"weights", "hard.bin": b"weights",
        }  # fmt: skip


HOSTILE: dict[str, Callable[[Path], Path]] = {
    "an absolute name": lambda d: tar(d / "m.tar", {"/tmp/evil": b"x"}, "w"),
    "a name above": lambda d: tar(d / "m.tar", {"../evil": b"x"}, "w"),
    "a name above, later": lambda d: tar(d / "m.tar", {"a/../../evil": b"x"}, "w"),
    "a name above, zipped": lambda d: zipped(d / "m.zip", {"../evil": b"x"}),
    "a name of windows": lambda d: zipped(d / "m.zip", {"..\\evil": b"x"}),
    "a link out": lambda d: tar(d / "m.tar", FILES, "w", [entry("l", tarfile.SYMTYPE, "/etc/passwd")]),
    "a link above": lambda d: tar(d / "m.tar", FILES, "w", [entry("l", tarfile.SYMTYPE, "../../etc/passwd")]),
    "a link to a folder": lambda d: tar(d / "m.tar", FILES, "w", [entry("l", tarfile.SYMTYPE, "parts")]),
    "a hard link out": lambda d: tar(d / "m.tar", FILES, "w", [entry("l", tarfile.LNKTYPE, "../../etc/passwd")]),
    "a link to itself": lambda d: tar(d / "m.tar", FILES, "w", [entry("l", tarfile.SYMTYPE, "l")]),
    "a link to nothing": lambda d: tar(d / "m.tar", FILES, "w", [entry("l", tarfile.SYMTYPE, "gone")]),
    "a device": lambda d: tar(d / "m.tar", FILES, "w", [entry("null", tarfile.CHRTYPE)]),
    "a pipe": lambda d: tar(d / "m.tar", FILES, "w", [entry("pipe", tarfile.FIFOTYPE)]),
    "a file twice": lambda d: tar(d / "m.tar", {"a": b"1", "./a": b"2"}, "w"),
    "a file that is a folder": lambda d: tar(d / "m.tar", {"a": b"1", "a/b": b"2"}, "w"),
    "a name without end": lambda d: tar(d / "m.tar", {"a" * 300: b"1"}, "w"),
    "a depth without end": lambda d: tar(d / "m.tar", {"a/" * 100 + "b": b"1"}, "w"),
    "half of it": lambda d: half(tar(d / "m.tar.gz", {"a": os.urandom(100_000)})),
    "half of a zip": lambda d: half(zipped(d / "m.zip", {"a": os.urandom(100_000)})),
    "no archive at all": lambda d: written(d / "m.tar.gz", b"hello"),
    "nothing in it": lambda d: tar(d / "m.tar", {}, "w"),
    "a link's name through a folder": lambda d: tar(
        d / "m.tar", {}, "w", [entry("d", tarfile.SYMTYPE, "/tmp"), entry("d/evil", tarfile.REGTYPE)]
    ),
}


def half(path: Path) -> Path:
    return written(path, path.read_bytes()[: path.stat().st_size // 2])


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


class TestRefusals:
    @pytest.mark.parametrize("what", HOSTILE)
    def test_an_archive_with(self, store: ArtifactStore, tmp_path: Path, what: str) -> None:
        path = HOSTILE[what](tmp_path)

        with pytest.raises(FleetError, match=r"source m\.(tar|zip|tar\.gz): "):
            store.fetch(Source(path.name), tmp_path)

        assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, "store"]
        assert [each for each in store.root.iterdir() if not each.name.startswith(".") and each.is_dir()] == []
        assert list(store.root.glob(".fetch*")) == []

    def test_a_zip_with_a_link_in_it(self, store: ArtifactStore, tmp_path: Path) -> None:
        link = zipfile.ZipInfo("l")
        link.external_attr = 0o120777 << 16
        with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
            archive.writestr("model.bin", b"weights")
            archive.writestr(link, "/etc/passwd")

        with pytest.raises(UserError, match="'l' is neither a file nor a folder; pack the file itself"):
            store.fetch(Source("m.zip"), tmp_path)

    def test_a_bomb_ends_at_the_bound(self, store: ArtifactStore, tmp_path: Path) -> None:
        zeros = b"\0" * (64 * 1024 * 1024)
        for path in (zipped(tmp_path / "m.zip", {"a": zeros}), tar(tmp_path / "m.tgz", {"a": zeros})):
            assert path.stat().st_size < 100_000
            with pytest.raises(UserError, match=r"more than 1,000,000 bytes unpacked, which `sources.max_size` allows"):
                store.fetch(Source(path.name), tmp_path, Access(max_bytes=1_000_000))

    def test_a_header_that_claims_gigabytes_is_never_read(self, store: ArtifactStore, tmp_path: Path) -> None:
        claim = tarfile.TarInfo("x")
        claim.type, claim.size = tarfile.XHDTYPE, 8 * 1024**3
        (tmp_path / "m.tar").write_bytes(claim.tobuf(tarfile.GNU_FORMAT) + b"\0" * 10240)

        with pytest.raises(UserError, match=r"a header of 8,589,934,592 bytes"):
            store.fetch(Source("m.tar"), tmp_path)

    def test_more_files_than_a_model_has(self, store: ArtifactStore, tmp_path: Path) -> None:
        """A hundred thousand members in 300 kB: one folder, over and over."""
        header = entry("d", tarfile.DIRTYPE).tobuf()
        with gzip.open(tmp_path / "m.tgz", "wb", compresslevel=1) as archive:
            archive.write(header * 100_001)

        with pytest.raises(UserError, match="more than 100,000 files; pack the model's own files alone"):
            store.fetch(Source("m.tgz"), tmp_path)


NAMES = st.text(st.sampled_from("ab./\\~\0 "), min_size=1, max_size=12)


@given(st.lists(st.tuples(NAMES, st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]), NAMES)))  # fmt: skip
def test_no_mixture_of_names_and_links_leaves_its_place(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes, str]]
) -> None:
    root = tmp_path_factory.mktemp("mixture")
    (root / "target").mkdir()
    path = tar(root / "m.tar", {"model.bin": b"x"}, "w", [entry(name, kind, link) for name, kind, link in members])

    try:
        unpacking.unpack("source", path, "m.tar", root / "target", 1000, Stop())
    except FleetError:
        pass
    finally:
        assert not {each.name for each in root.iterdir()} - {"target", "target.wrapper", "m.tar"}
        assert not [each for each in root.rglob("*") if each.is_symlink()]
