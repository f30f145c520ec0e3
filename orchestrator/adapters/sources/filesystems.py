"""Buckets and every other place that fsspec reads: `s3://`, `gs://`, `az://`, and what else is installed.

The client libraries come with extras of ours and are imported when a source first needs one. A file is read in blocks,
a few ahead, so that a cut costs one block and a fast line is filled. Credentials are what each library finds by itself
in the environment and in its files; none passes through here. The only importer of fsspec.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from orchestrator.adapters.sources.remote import PARALLEL_FILES, ChangedError, Listing, RemoteFile, TransientError
from orchestrator.adapters.sources.web import TRANSIENT, certificate_fault
from orchestrator.core.errors import FleetError, UnavailableError, UserError
from orchestrator.core.sources import redacted, scheme_of

BLOCK_BYTES = 4 * 1024 * 1024
BLOCKS_AHEAD = 4
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 30
# Some libraries try again for minutes by themselves, whatever they are told: no call of theirs lasts longer than this.
LOOK_DEADLINE_S = 20
LIST_DEADLINE_S = 120
BLOCK_DEADLINE_S = 60


@dataclass(frozen=True, slots=True)
class Client:
    """A library for one kind of bucket: its extra and module, what it is given, and where credentials come from."""

    extra: str
    module: str
    options: dict[str, Any]
    credentials: str


_S3 = Client(
    "s3", "s3fs",
    {"config_kwargs": {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S,
                       "retries": {"max_attempts": 1}}},
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE with ~/.aws, or the machine's role; another "
    "endpoint than Amazon's by AWS_ENDPOINT_URL",
)  # fmt: skip
_GS = Client(
    "gs", "gcsfs", {"requests_timeout": READ_TIMEOUT_S},
    "GOOGLE_APPLICATION_CREDENTIALS with a key file, `gcloud auth application-default login`, or the machine's account",
)  # fmt: skip
_AZ = Client(
    "az", "adlfs", {"connection_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S},
    "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or a login of azure-identity; "
    "or AZURE_STORAGE_CONNECTION_STRING",
)  # fmt: skip
CLIENTS = {"s3": _S3, "s3a": _S3, "gs": _GS, "gcs": _GS, "az": _AZ, "abfs": _AZ, "abfss": _AZ}
_VALIDATORS = (
    "ETag",
    "etag",
    "generation",
    "VersionId",
    "md5Hash",
    "LastModified",
    "last_modified",
    "mtime",
    "created",
)

_MISSING = ("NoSuchBucket", "NoSuchKey", "ResourceNotFoundError", "FileNotFoundError")
_REFUSED = (
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound",
    "TokenRetrievalError", "DefaultCredentialsError", "RefreshError", "ClientAuthenticationError", "PermissionError",
)  # fmt: skip
_TRANSIENT = (
    "ConnectionError", "TimeoutError", "EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError",
    "ConnectionClosedError", "HTTPClientError", "ClientConnectionError", "ClientPayloadError",
    "IncompleteReadError", "ResponseStreamingError", "ServiceRequestError", "ServiceResponseError", "TransportError",
    "ChecksumError", "EOFError",
)  # fmt: skip


class Bucket:
    """A file or folder in a file system of fsspec's."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._client = CLIENTS.get(scheme_of(source))
        self._pool = ThreadPoolExecutor(PARALLEL_FILES * BLOCKS_AHEAD, thread_name_prefix="block")
        self._fs, self._root = self._connect({})

    def listing(self) -> Listing:
        with self._explained():
            try:
                return self._list()
            except Exception as exc:
                # Without any credentials a bucket may still be open to all.
                if type(exc).__name__ != "NoCredentialsError":
                    raise
        with self._explained():
            self._fs, self._root = self._connect({"anon": True})
            return self._list()

    @contextlib.contextmanager
    def read(self, file: RemoteFile, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        if file.size_bytes is None:
            yield 0, self._stream(file)
        else:
            yield offset, self._blocks(file, offset, file.size_bytes)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _list(self) -> Listing:
        self._fs.invalidate_cache()
        facts = self._call(LOOK_DEADLINE_S, "info", self._root)
        if facts["type"] == "file":
            return Listing((self._file(facts, self._root.rpartition("/")[2]),), is_file=True)
        found = self._call(LIST_DEADLINE_S, "find", self._root, detail=True)
        files = [self._file(each, name[len(self._root) :].strip("/")) for name, each in sorted(found.items())
                 if each["type"] == "file" and not name.endswith("/")]  # fmt: skip
        return Listing(tuple(file for file in files if file.name))

    @staticmethod
    def _file(facts: dict[str, Any], name: str) -> RemoteFile:
        validator = " ".join(f"{key} {facts[key]}" for key in _VALIDATORS if facts.get(key))
        return RemoteFile(name, facts["name"], facts.get("size"), validator)

    def _stream(self, file: RemoteFile) -> Iterator[bytes]:
        """A file whose length nobody says, from its beginning."""
        with self._explained(), self._fs.open(file.where, "rb") as opened:
            while chunk := opened.read(BLOCK_BYTES):
                yield chunk

    def _blocks(self, file: RemoteFile, offset: int, size: int) -> Iterator[bytes]:
        waiting: deque[Future[bytes]] = deque()
        starts = iter(range(offset, size, BLOCK_BYTES))
        try:
            while True:
                for start in starts:
                    waiting.append(self._pool.submit(self._block, file, start, min(start + BLOCK_BYTES, size)))
                    if len(waiting) == BLOCKS_AHEAD:
                        break
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _block(self, file: RemoteFile, start: int, end: int) -> bytes:
        with self._explained():
            block: bytes = self._call(BLOCK_DEADLINE_S, "cat_file", file.where, start=start, end=end)
        if len(block) != end - start:
            raise ChangedError
        return block

    def _call(self, deadline_s: float, name: str, *arguments: Any, **options: Any) -> Any:
        """A method of the file system, within `deadline_s` where it can be bounded, as most that use a network can."""
        coroutine = getattr(self._fs, f"_{name}", None)
        if not getattr(self._fs, "async_impl", False) or coroutine is None:
            return getattr(self._fs, name)(*arguments, **options)
        from fsspec.asyn import sync
        from fsspec.exceptions import FSTimeoutError

        try:
            return sync(self._fs.loop, coroutine, *arguments, timeout=deadline_s, **options)
        except FSTimeoutError as exc:
            sentence = f"no answer within {deadline_s:g} s"
            if name == "cat_file":
                raise TransientError(sentence) from exc
            # Its library has tried again all the while, and a plan waits.
            raise UnavailableError(f"{self._shown}: {sentence}; see that it can be reached") from exc

    # -- the library and its errors ---------------------------------------------------------------------------

    def _connect(self, more: dict[str, Any]) -> tuple[Any, str]:
        self._require_client()
        import fsspec

        options = {**self._client.options, **more} if self._client else {}
        with self._explained():
            try:
                filesystem, path = fsspec.core.url_to_fs(self._source, use_listings_cache=False, **options)
            except ImportError as exc:
                raise UserError(f"{self._shown}: {exc}; `pip install` that package beside modelfleet") from exc
            except ValueError as exc:
                raise UserError(f"{self._shown}: {redacted(str(exc))}; {self._advice()}") from exc
        return filesystem, str(path).rstrip("/")

    def _require_client(self) -> None:
        client = self._client
        if client is not None and importlib.util.find_spec(client.module) is None:
            raise UserError(
                f"{self._shown}: {scheme_of(self._source)}:// needs the package {client.module}, which is not "
                f"installed beside the control plane; pip install 'modelfleet[{client.extra}]', then "
                f"`modelfleet up` again"
            )

    @property
    def _shown(self) -> str:
        return f"source {redacted(self._source)}"

    def _advice(self) -> str:
        if self._client:
            return f"credentials come from the control plane's environment: {self._client.credentials}"
        return "use a path or a URL that fsspec knows (s3://, gs://, az://, https://, hf://, models:/)"

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """The errors of many libraries, of which we import none, by what they are called and carry."""
        try:
            yield
        except (FleetError, TransientError, ChangedError):
            raise
        except Exception as exc:
            raise self._translated(exc) from exc

    def _translated(self, exc: Exception) -> Exception:
        said = redacted(" ".join(str(exc).split()))[:300] or type(exc).__name__
        status, names = _status(exc), {base.__name__ for base in type(exc).__mro__}
        if (certificate := certificate_fault(exc)) is not None:
            return UserError(
                f"{self._shown}: its server's certificate cannot be trusted: {certificate}; if it is your own "
                f"authority's, name its file in SSL_CERT_FILE, AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE"
            )
        if status == http.client.NOT_FOUND or names & {*_MISSING}:
            return UserError(
                f"{self._shown}: nothing is there, or these credentials do not see it; correct the bucket or path"
            )
        if status in (401, 403) or names & {*_REFUSED} or said.startswith("Forbidden"):
            return UserError(f"{self._shown}: may not be read ({said}); {self._advice()}")
        if status in TRANSIENT or names & {*_TRANSIENT}:
            return TransientError(said)
        if names & {"ValueError", "ParamValidationError", "InvalidBucketName", "NoRegionError"} or status == 400:
            return UserError(f"{self._shown}: {said}; {self._advice()}")
        return UnavailableError(f"{self._shown}: could not be read: {said}; try again, or correct the source")


def _status(exc: BaseException | None) -> int | None:
    """The HTTP status that an error carries, wherever its library puts it."""
    while exc is not None:
        response = getattr(exc, "response", None)
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
        for field in ("status_code", "code", "status"):
            value = getattr(exc, field, None)
            if isinstance(value, int) and value >= 400:
                return value
        exc = exc.__cause__
    return None
