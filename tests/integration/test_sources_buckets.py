"""Sources in buckets, each place by a real server of its kind: S3 (moto), Google Cloud Storage and Azure emulators."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from orchestrator.adapters._content import Artifact
from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.adapters.sources.remote import Access, Patience
from orchestrator.core.errors import FleetError, UnavailableError, UserError
from orchestrator.core.sources import Source
from tests.integration import source_servers
from tests.integration.cluster import REPOSITORY, pick_port
from tests.integration.source_servers import Place

# What puts the test's files there says so of each large one.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
HERE = Path("/")
QUICK = Patience(0.01, 0.02, 4)
LARGE = bytes(range(256)) * 50_000  # 12.8 MB: more than one block
FILES = {"model.bin": LARGE, "parts/labels.txt": b"a b c", "parts/deep/é x.txt": b"odd"}


@pytest.fixture(scope="module", params=["s3", "gs", "az"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    source_servers.install()
    if request.param == "az" and not source_servers.has_azurite():
        pytest.skip("azurite is not installed: it needs npm and node")
    with getattr(source_servers, request.param)(tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.fixture
def bucket(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    """The place's own file system, with an empty bucket `models`; and this process as a user's control plane."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "STORAGE_")):
            monkeypatch.delenv(name)
    for name, value in place.environ.items():
        monkeypatch.setenv(name, value)
    # The library keeps its clients, with what the environment was when they were made: in a control plane it stays so.
    fsspec.get_filesystem_class(place.scheme).clear_instance_cache()
    filesystem = fsspec.filesystem(place.scheme, skip_instance_cache=True, use_listings_cache=False)
    if filesystem.exists("models"):
        filesystem.rm("models", recursive=True)
    filesystem.mkdir("models")
    yield filesystem
    fsspec.get_filesystem_class(place.scheme).clear_instance_cache()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store", QUICK)


def content(artifact: Artifact) -> dict[str, bytes]:
    files = (path for path in artifact.path.rglob("*") if path.is_file())
    return {path.relative_to(artifact.path).as_posix(): path.read_bytes() for path in files}


def put(bucket: fsspec.AbstractFileSystem, folder: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        bucket.pipe_file(f"models/{folder}/{name}", data)


def test_takes_a_folder(place: Place, bucket: fsspec.AbstractFileSystem, store: ArtifactStore) -> None:
    put(bucket, "iris/1", FILES)
    put(bucket, "iris/10", {"model.bin": b"another version"})

    assert content(store.fetch(Source(f"{place.bucket}/iris/1"), HERE)) == FILES


def test_takes_one_file(place: Place, bucket: fsspec.AbstractFileSystem, store: ArtifactStore) -> None:
    put(bucket, "iris/1", FILES)

    assert content(store.fetch(Source(f"{place.bucket}/iris/1/model.bin"), HERE)) == {"model.bin": LARGE}


def test_unpacks_an_archive(place: Place, bucket: fsspec.AbstractFileSystem, store: ArtifactStore) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("model/model.bin")
        member.size = 7
        archive.addfile(member, io.BytesIO(b"weights"))
    put(bucket, "iris", {"1.tar.gz": buffer.getvalue()})

    assert content(store.fetch(Source(f"{place.bucket}/iris/1.tar.gz"), HERE)) == {"model.bin": b"weights"}


def test_looks_without_fetching_and_knows_what_did_not_change(
    place: Place, bucket: fsspec.AbstractFileSystem, store: ArtifactStore
) -> None:
    put(bucket, "iris/1", FILES)
    source = Source(f"{place.bucket}/iris/1")

    before = store.look(source, HERE)
    fetched = store.fetch(source, HERE)
    after = ArtifactStore(store.root).look(source, HERE)

    assert (before.digest, before.size_bytes) == ("", sum(map(len, FILES.values())))
    assert (after.digest, after.state) == (fetched.digest, before.state)


def test_sees_a_changed_file_of_equal_size(
    place: Place, bucket: fsspec.AbstractFileSystem, store: ArtifactStore
) -> None:
    put(bucket, "iris/1", FILES)
    source = Source(f"{place.bucket}/iris/1")
    first = store.fetch(source, HERE)
    put(bucket, "iris/1", {"model.bin": LARGE[::-1]})

    assert store.look(source, HERE).digest == ""
    second = store.fetch(source, HERE)
    assert second.digest != first.digest
    assert content(second)["model.bin"] == LARGE[::-1]


def test_goes_on_with_what_an_ended_process_left(
    place: Place, bucket: fsspec.AbstractFileSystem, store: ArtifactStore
) -> None:
    put(bucket, "iris/1", {"model.bin": LARGE})
    source = Source(f"{place.bucket}/iris/1")
    seen: list[int] = []

    def stop(done: int, _: int | None) -> None:
        seen.append(done)
        store.close()

    with pytest.raises(UnavailableError, match="the next one goes on where it stopped"):
        store.fetch(source, HERE, report=stop)
    again: list[int] = []
    fetched = ArtifactStore(store.root, QUICK).fetch(source, HERE, report=lambda done, _: again.append(done))

    assert 0 < seen[-1] < len(LARGE)
    assert again[0] >= seen[-1], "it began with what was there"
    assert content(fetched) == {"model.bin": LARGE}


@pytest.mark.parametrize("path", ["models/iris/none", "no-such-bucket/iris"])
def test_says_what_is_not_there(
    place: Place, bucket: fsspec.AbstractFileSystem, store: ArtifactStore, path: str
) -> None:
    with pytest.raises(UserError, match=f"source {place.scheme}://{path}: nothing is there, or these credentials"):
        store.look(Source(f"{place.scheme}://{path}"), HERE)


def test_bounds_hold(place: Place, bucket: fsspec.AbstractFileSystem, store: ArtifactStore) -> None:
    put(bucket, "iris/1", FILES)

    with pytest.raises(UserError, match=r"`sources.max_size` allows 1,000"):
        store.fetch(Source(f"{place.bucket}/iris/1"), HERE, Access(max_bytes=1000))


def test_says_so_when_nobody_answers(
    place: Place, bucket: fsspec.AbstractFileSystem, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = str(pick_port())
    for name, value in place.environ.items():
        monkeypatch.setenv(name, value.replace(f":{place.port}", f":{gone}"))
    fsspec.get_filesystem_class(place.scheme).clear_instance_cache()

    with pytest.raises(FleetError, match=f"source {place.bucket}/iris") as caught:
        store.look(Source(f"{place.bucket}/iris"), HERE)

    assert caught.value.status == 503, str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("place", ["az"], indirect=True)
def test_a_wrong_key_is_refused_with_where_keys_come_from(
    place: Place, bucket: fsspec.AbstractFileSystem, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, "iris/1", {"model.bin": b"weights"})
    wrong = place.environ["AZURE_STORAGE_CONNECTION_STRING"].replace(source_servers.AZURE_KEY, "c2VjcmV0LXMzY3JldA==")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", wrong)
    fsspec.get_filesystem_class("az").clear_instance_cache()

    with pytest.raises(
        UserError, match=r"source az://models/iris/1: may not be read .*AZURE_STORAGE_ACCOUNT_KEY"
    ) as caught:
        store.look(Source(f"{place.bucket}/iris/1"), HERE)
    assert "c2VjcmV0LXMzY3JldA" not in str(caught.value)


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_an_open_bucket_needs_no_credentials(
    place: Place,
    bucket: fsspec.AbstractFileSystem,
    store: ArtifactStore,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    bucket.pipe_file("models/iris/1/model.bin", b"weights", ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()

    assert content(store.fetch(Source(f"{place.bucket}/iris/1"), HERE)) == {"model.bin": b"weights"}


class TestWithoutTheClient:
    """In a process whose site-packages have all but the clients of buckets."""

    @pytest.fixture
    def bare(self, tmp_path: Path) -> Path:
        (packages,) = (Path(each) for each in sys.path if each.endswith("site-packages"))
        (tmp_path / "packages").mkdir()
        for each in packages.iterdir():
            if not each.name.startswith(("s3fs", "gcsfs", "adlfs")):
                (tmp_path / "packages" / each.name).symlink_to(each)
        return tmp_path / "packages"

    def run(self, bare: Path, code: str) -> str:
        environ = {**os.environ, "PYTHONPATH": f"{bare}:{REPOSITORY}"}
        command = [sys.executable, "-S", "-c", code]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60).stdout

    @pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
    def test_a_source_says_what_to_install(self, bare: Path, tmp_path: Path, scheme: str) -> None:
        said = self.run(bare, f"""
from pathlib import Path
from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.core.errors import UserError
from orchestrator.core.sources import Source
try:
    ArtifactStore(Path({str(tmp_path)!r})).look(Source("{scheme}://bucket/iris"), Path("/"))
except UserError as exc:
    print(exc)
""")  # fmt: skip

        assert f"which is not installed beside the control plane; pip install 'modelfleet[{scheme}]'" in said

    def test_doctor_names_what_is_missing(self, bare: Path) -> None:
        said = self.run(bare, "from orchestrator.adapters.sources.places import readable_in_words as r; print(r())")

        assert said.strip().endswith("not installed: modelfleet[s3], modelfleet[gs], modelfleet[az]")


def test_a_control_plane_starts_without_importing_any_client() -> None:
    code = "import sys, orchestrator.__main__; print([m for m in ('fsspec', 's3fs', 'gcsfs', 'adlfs') if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)

    assert done.stdout.strip() == "[]"
