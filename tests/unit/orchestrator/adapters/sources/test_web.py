"""Sources over http(s), through the store, from a real server: what is asked for, what goes on, and what is refused."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.adapters._content import Artifact
from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.adapters.sources.remote import Access, Credential, Patience
from orchestrator.core.errors import FleetError, UnavailableError, UserError
from orchestrator.core.sources import Source
from tests.fakes import certificates
from tests.fakes.file_server import LONG_AGO, FileServer

HERE = Path("/")
QUICK = Patience(first_pause_s=0.01, longest_pause_s=0.02, attempts=4)
MODEL = bytes(range(256)) * 4096  # 1 MiB
MODEL_SHA256 = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store", QUICK)


def another(store: ArtifactStore) -> ArtifactStore:
    """The same store in a new process, as far as memory goes."""
    return ArtifactStore(store.root, QUICK)


def fetch(store: ArtifactStore, url: str, access: Access | None = None, **how: object) -> Artifact:
    return store.fetch(Source(url, **how), HERE, access)  # type: ignore[arg-type]


def content(artifact: Artifact) -> dict[str, bytes]:
    files = (path for path in artifact.path.rglob("*") if path.is_file())
    return {path.relative_to(artifact.path).as_posix(): path.read_bytes() for path in files}


class TestFetch:
    def test_a_file_becomes_an_artifact_that_holds_it(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/models/model.bin", MODEL)

        assert content(fetch(store, url)) == {"model.bin": MODEL}

    @pytest.mark.parametrize(
        ("said", "name"),
        [
            ('attachment; filename="iris.joblib"', "iris.joblib"),
            ("attachment; filename*=UTF-8''bl%C3%BCte.onnx", "blüte.onnx"),
            ('attachment; filename="../../etc/passwd"', "passwd"),
            ('attachment; filename=".."', "download"),
        ],
    )
    def test_is_called_what_the_server_calls_it(
        self, store: ArtifactStore, server: FileServer, said: str, name: str
    ) -> None:
        url = server.put("/download", MODEL, fields={"content-disposition": said})

        assert list(content(fetch(store, url))) == [name]

    def test_of_many_at_once_is_one_download(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL)
        gate = threading.Barrier(8)

        def work(_: int) -> Artifact:
            gate.wait(10)
            return fetch(another(store), url)

        with ThreadPoolExecutor(8) as pool:
            artifacts = set(pool.map(work, range(8)))

        assert len(artifacts) == 1
        assert len(server.downloads("/model.bin")) == 1

    def test_reports_bytes_up_to_the_last(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL)
        seen: list[tuple[int, int | None]] = []

        store.fetch(Source(url), HERE, report=lambda done, total: seen.append((done, total)))

        assert seen[-1] == (len(MODEL), len(MODEL))

    def test_of_a_length_that_nobody_says(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL, says_length=False, ranges=False)

        assert content(fetch(store, url)) == {"model.bin": MODEL}


class TestLook:
    def test_brings_nothing_of_what_it_can_tell_without(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL)

        seen = store.look(Source(url), HERE)

        assert (seen.digest, seen.size_bytes) == ("", len(MODEL))
        assert server.downloads("/model.bin") == []

    @pytest.mark.parametrize("how", [{}, {"etag": "", "modified": LONG_AGO}, {"etag": 'W/"3"'}])
    def test_an_unchanged_file_is_known_again_by_another_process(
        self, store: ArtifactStore, server: FileServer, how: dict[str, str]
    ) -> None:
        url = server.put("/model.bin", MODEL, **how)
        fetched = fetch(store, url)

        assert another(store).look(Source(url), HERE).digest == fetched.digest
        assert fetch(another(store), url) == fetched
        assert len(server.downloads("/model.bin")) == 1

    def test_a_changed_file_is_not(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL)
        before = store.look(Source(url), HERE)
        fetched = fetch(store, url)
        server.put("/model.bin", MODEL[::-1])

        after = store.look(Source(url), HERE)

        assert after.digest == ""
        assert after.state != before.state
        assert fetch(store, url).digest != fetched.digest

    def test_a_changed_tag_of_the_same_content_is_the_same_artifact(
        self, store: ArtifactStore, server: FileServer
    ) -> None:
        url = server.put("/model.bin", MODEL, etag='"1"')
        first = fetch(store, url)
        server.put("/model.bin", MODEL, etag='"2"')

        assert fetch(store, url) == first

    @pytest.mark.parametrize("modified", ["", "now"])
    def test_what_nothing_but_content_tells_is_read_for_a_plan_and_not_again_for_its_apply(
        self, store: ArtifactStore, server: FileServer, modified: str
    ) -> None:
        import email.utils
        import time

        date = email.utils.formatdate(time.time() + 5, usegmt=True) if modified else ""
        url = server.put("/model.bin", MODEL, etag="", modified=date)

        planned = store.look(Source(url), HERE).digest
        applied = fetch(store, url).digest

        assert planned == applied
        assert len(server.downloads("/model.bin")) == 1
        server.put("/model.bin", MODEL[::-1], etag="", modified=date)
        assert store.look(Source(url), HERE).digest != planned

    def test_a_new_signature_is_no_new_source(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL)
        fetch(store, f"{url}?X-Amz-Signature=one&X-Amz-Date=1")

        fetch(store, f"{url}?X-Amz-Signature=two&X-Amz-Date=2")

        assert len(server.downloads("/model.bin")) == 1

    def test_another_query_is_another_source(self, store: ArtifactStore, server: FileServer) -> None:
        """Two addresses whose servers count their tags from 1 must not be taken for one another."""
        url = server.put("/model.bin", MODEL, etag='"1"')
        first = fetch(store, f"{url}?token_of=a")
        server.put("/model.bin", MODEL[::-1], etag='"1"')

        assert fetch(store, f"{url}?token_of=b").digest != first.digest


class TestGoingOn:
    def test_a_cut_download_goes_on_where_it_stopped(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL, cuts=[262144, 262144])

        assert content(fetch(store, url)) == {"model.bin": MODEL}

        ranges = [each.fields.get("range") for each in server.downloads("/model.bin")]
        assert ranges == [None, "bytes=262144-", "bytes=524288-"]
        assert server.sent_bytes == len(MODEL)

    def test_another_process_goes_on_too(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL, cuts=[262144, 0, 0, 0, 0])
        with pytest.raises(UnavailableError, match="tried 4 times"):
            fetch(store, url)
        another(store).remove_scratch()

        assert content(fetch(another(store), url)) == {"model.bin": MODEL}
        assert server.sent_bytes == len(MODEL)

    def test_begins_again_where_the_server_cannot_send_parts(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL, ranges=False, cuts=[262144])

        assert content(fetch(store, url)) == {"model.bin": MODEL}

    def test_never_joins_two_states_of_a_file(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL, cuts=[262144, 0, 0, 0, 0])
        with pytest.raises(UnavailableError):
            fetch(store, url)
        server.put("/model.bin", MODEL[::-1])

        assert content(fetch(another(store), url)) == {"model.bin": MODEL[::-1]}

    def test_a_file_that_changes_under_way_is_read_again(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL)
        server.files["/model.bin"].served = lambda: server.put("/model.bin", MODEL[::-1]) and None

        assert content(fetch(store, url)) == {"model.bin": MODEL[::-1]}

    def test_a_file_that_never_rests_is_refused(self, store: ArtifactStore, server: FileServer) -> None:
        writes = iter(range(100))

        def write() -> None:
            server.put("/model.bin", f"{next(writes)}".encode() * 1000, served=write)

        write()

        with pytest.raises(UserError, match="changes again and again while it is fetched"):
            fetch(store, server.url("/model.bin"))

    def test_passing_failures_are_tried_again(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL, statuses=[503, 429, 200, 502])

        assert content(fetch(store, url)) == {"model.bin": MODEL}

    def test_a_stopped_store_keeps_what_it_has(self, store: ArtifactStore, server: FileServer) -> None:
        gate, came = threading.Event(), threading.Event()
        url = server.put("/model.bin", MODEL, gate=gate, gate_at=524288)
        with ThreadPoolExecutor(1) as pool:
            fetching = pool.submit(store.fetch, Source(url), HERE, report=lambda *_: came.set())
            assert came.wait(20)
            store.close()
            gate.set()
            with pytest.raises(UnavailableError, match="the next one goes on where it stopped"):
                fetching.result(30)

        server.files["/model.bin"].gate = None
        assert content(fetch(another(store), url)) == {"model.bin": MODEL}
        assert any(each.fields.get("range", "bytes=0-0") != "bytes=0-0" for each in server.asked("/model.bin"))


class TestPin:
    def test_a_file_is_pinned_by_what_sha256sum_prints(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL)

        assert content(fetch(store, url, sha256=MODEL_SHA256)) == {"model.bin": MODEL}

    def test_or_by_the_digest_that_we_show(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL)
        shown = fetch(store, url).digest

        assert fetch(store, url, sha256=shown).digest == shown

    @pytest.mark.parametrize("is_known", [False, True])
    def test_other_content_is_refused_with_both_digests(
        self, store: ArtifactStore, server: FileServer, is_known: bool
    ) -> None:
        url = server.put("/model.bin", MODEL)
        if is_known:
            fetch(store, url)

        with pytest.raises(UserError, match=f"its SHA-256 is {MODEL_SHA256}, and the manifest wants {'0' * 64}"):
            fetch(store, url, sha256="0" * 64)

    def test_a_corrected_pin_needs_no_second_download(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL)
        with pytest.raises(UserError):
            fetch(store, url, sha256="0" * 64)

        fetch(store, url, sha256=MODEL_SHA256)

        assert len(server.downloads("/model.bin")) == 1

    def test_what_is_pinned_and_stored_asks_nobody(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL)
        fetched = fetch(store, url)
        server.files.clear()
        server.requests.clear()

        for pin in (MODEL_SHA256, fetched.digest):
            assert another(store).look(Source(url, pin), HERE).digest == fetched.digest
            assert fetch(another(store), url, sha256=pin) == fetched
        assert server.requests == []


class TestBounds:
    def test_more_than_allowed_is_refused_before_it_is_fetched(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL)

        with pytest.raises(UserError, match=r"1,048,576 bytes or more; `sources.max_size` allows 1,000; raise it"):
            fetch(store, url, Access(max_bytes=1000))
        assert server.downloads("/model.bin") == []

    def test_or_while_it_is_fetched_where_nobody_says_its_length(
        self, store: ArtifactStore, server: FileServer
    ) -> None:
        url = server.put("/model.bin", MODEL, says_length=False, ranges=False)

        with pytest.raises(UserError, match=r"`sources.max_size` allows 1,000"):
            fetch(store, url, Access(max_bytes=1000))

    def test_more_than_the_disk_has_room_for(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL, ranges=False, fields={"content-length": str(10**18)}, says_length=False)

        with pytest.raises(UnavailableError, match=r"1,000,000,000,000,000,000 bytes, but [\d,]+ are free"):
            fetch(store, url, Access(max_bytes=10**19))


class TestCredentials:
    def test_of_the_manifest_go_to_their_host(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL, wants="Bearer t0ken")
        access = Access(credentials={f"127.0.0.1:{server.port}": Credential("authorization", "Bearer t0ken")})

        assert content(fetch(store, url, access)) == {"model.bin": MODEL}

    def test_of_a_field_of_its_own(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL, wants="t0ken")

        fetch(store, url, Access(credentials={"127.0.0.1": Credential("PRIVATE-TOKEN", "t0ken")}))

        assert server.asked("/model.bin")[0].fields["private-token"] == "t0ken"

    def test_of_the_address_itself(self, store: ArtifactStore, server: FileServer) -> None:
        server.put("/model.bin", MODEL, wants="Basic dXNlcjpwQHNz")

        assert content(fetch(store, server.url("/model.bin", user="user:p%40ss@"))) == {"model.bin": MODEL}

    def test_of_netrc(
        self, store: ArtifactStore, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password p@ss\n")
        (tmp_path / "netrc").chmod(0o600)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        url = server.put("/model.bin", MODEL, wants="Basic dXNlcjpwQHNz")

        assert content(fetch(store, url)) == {"model.bin": MODEL}

    def test_missing_ones_are_asked_for(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL, wants="Bearer t0ken")

        with pytest.raises(UserError, match=r"127.0.0.1 answered 401; .*give some under `sources.credentials`"):
            store.look(Source(url), HERE)

    def test_stay_with_their_host_when_it_redirects(self, store: ArtifactStore, server: FileServer) -> None:
        with FileServer() as other:
            there = other.put("/elsewhere/model.bin", MODEL)
            url = server.put("/model.bin", b"", redirect=there, wants="Bearer t0ken")
            access = Access(credentials={"127.0.0.1": Credential("authorization", "Bearer t0ken")})

            fetch(store, url, access)

            assert {each.fields.get("authorization") for each in server.requests} == {"Bearer t0ken"}
            assert {each.fields.get("authorization") for each in other.requests} == {None}

    def test_stay_with_a_host_that_redirects_to_itself(self, store: ArtifactStore, server: FileServer) -> None:
        server.put("/new/model.bin", MODEL, wants="Basic dXNlcjpwQHNz")
        server.put("/model.bin", b"", redirect="/new/model.bin", wants="Basic dXNlcjpwQHNz")

        assert content(fetch(store, server.url("/model.bin", user="user:p%40ss@"))) == {"model.bin": MODEL}

    @pytest.mark.parametrize("path", ["/gone", "/private", "/page"])
    def test_of_an_address_never_show(self, store: ArtifactStore, server: FileServer, path: str) -> None:
        server.put("/private", MODEL, wants="x")
        server.put("/page", b"<html>", kind="text/html; charset=utf-8")
        url = f"{server.url(path, user='user:s3cret@')}?X-Amz-Signature=s3cret&sig=s3cret"

        with pytest.raises(UserError) as caught:
            store.look(Source(url), HERE)

        assert "s3cret" not in str(caught.value)
        assert "***@127.0.0.1" in str(caught.value)
        assert not [path for path in store.root.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]


class TestRefusals:
    def refused(self, store: ArtifactStore, url: str) -> str:
        with pytest.raises(FleetError) as caught:
            fetch(store, url)
        return str(caught.value)

    def test_nothing_there(self, store: ArtifactStore, server: FileServer) -> None:
        assert "answered 404; nothing is there; correct the address" in self.refused(store, server.url("/no"))

    def test_a_web_page_instead_of_a_file(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", b"<html>", kind="text/html")

        assert "answers with a web page; it may be a folder, a viewer" in self.refused(store, url)

    def test_nobody_listens(self, store: ArtifactStore, free_port: object) -> None:
        said = self.refused(store, f"http://127.0.0.1:{free_port()}/model.bin")  # type: ignore[operator]

        assert "Connection refused; tried 3 times; see that it can be reached" in said

    def test_redirects_without_end(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", b"", redirect="/model.bin")

        assert "more than 10 redirects" in self.refused(store, url)

    @pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/model.bin"])
    def test_a_redirect_out_of_the_web(self, store: ArtifactStore, server: FileServer, target: str) -> None:
        url = server.put("/model.bin", b"", redirect=target)

        assert "that is no web address" in self.refused(store, url)

    def test_a_tag_that_was_cut_for_good(self, store: ArtifactStore, server: FileServer) -> None:
        url = server.put("/model.bin", MODEL, cuts=[0] * 10)

        assert "tried 4 times" in self.refused(store, url)


class TestTls:
    @pytest.fixture
    def secure(self, tmp_path: Path) -> Iterator[tuple[FileServer, Path]]:
        pair = certificates.self_signed(tmp_path)
        with FileServer(pair.certificate, pair.key) as running:
            yield running, pair.certificate

    def test_a_stranger_is_not_trusted(self, store: ArtifactStore, secure: tuple[FileServer, Path]) -> None:
        server, _ = secure
        url = server.put("/model.bin", MODEL)

        with pytest.raises(
            UserError, match=r"certificate of 127.0.0.1:\d+ cannot be trusted: self.signed.*SSL_CERT_FILE"
        ):
            fetch(store, url)

    def test_an_authority_of_ones_own_is(
        self, store: ArtifactStore, secure: tuple[FileServer, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server, authority = secure
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        url = server.put("/model.bin", MODEL)

        assert content(fetch(store, url)) == {"model.bin": MODEL}

    def test_a_redirect_to_plain_http_is_refused(
        self, store: ArtifactStore, server: FileServer, secure: tuple[FileServer, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        safe, authority = secure
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        url = safe.put("/model.bin", b"", redirect=server.put("/model.bin", MODEL))

        with pytest.raises(UserError, match=r"redirected from https to http://127.0.0.1"):
            fetch(store, url)
        assert server.requests == []
