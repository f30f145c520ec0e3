"""Files by `http(s)://`, and the HTTP that the hub and MLflow speak too. The only importer of httpx for sources.

What is asked of a stranger's server is bounded: every wait has a timeout, redirects are counted, none leads from https
to http or from the world into this machine's own network, and credentials go to the host that they are for alone.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import functools
import ipaddress
import netrc
import os
import re
import ssl
import time
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import httpx

from orchestrator.adapters.sources.remote import Access, ChangedError, Listing, RemoteFile, TransientError
from orchestrator.config import VERSION
from orchestrator.core.errors import UserError
from orchestrator.core.sources import file_name, redacted

MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_REDIRECTS = 10
# A server that says nothing for so long has lost us; the transfer goes on in a new connection.
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
# A file that was modified just now may be modified again within the same second, and its date would not show it.
GRAIN_S = 2.0
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Address:
    """Where a request goes, and whether our credentials go along."""

    url: str
    is_trusted: bool = True


class Web:
    """One HTTP client. `source` is what its sentences call the source; `own` are fields for the first host asked."""

    def __init__(self, source: str, access: Access, own: Mapping[str, str] | None = None) -> None:
        self._source = f"source {redacted(source)}"
        self._access = access
        self._own = dict(own or {})
        trust = _trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        agent = f"modelfleet/{VERSION}"
        self._client = httpx.Client(verify=trust, timeout=TIMEOUT, headers={"user-agent": agent})

    def close(self) -> None:
        self._client.close()

    def json(self, url: str, absent: Container[int] = (404,)) -> Any:
        """The decoded answer, None where the status is one of `absent`. Raises `FleetError` or `TransientError`."""
        with self.open(url, allowed=absent) as answer:
            if answer.status_code in absent:
                return None
            content = bytearray()
            for chunk in self._chunks(answer):
                content += chunk
                if len(content) > MAX_JSON_BYTES:
                    raise UserError(f"{self._source}: the server's answer has no end; see what answers there")
        try:
            return httpx.Response(200, content=bytes(content)).json()
        except ValueError as exc:
            raise UserError(f"{self._source}: {redacted(url)} did not answer with JSON; correct the address") from exc

    @contextlib.contextmanager
    def open(
        self, url: str, fields: Mapping[str, str] | None = None, allowed: Container[int] = ()
    ) -> Iterator[httpx.Response]:
        """The answer of the last redirect, its body unread: 200, 206, 416 or `allowed`. Raises what `_check` does."""
        address = Address(url)
        with contextlib.ExitStack() as stack:
            for _ in range(MAX_REDIRECTS + 1):
                answer = stack.enter_context(self._send(address, fields or {}))
                if not answer.has_redirect_location:
                    if answer.status_code not in allowed:
                        self._check(answer, address)
                    yield answer
                    return
                address = self._followed(address, answer)
        raise UserError(f"{self._source}: more than {MAX_REDIRECTS} redirects; correct the address")

    def stream(self, answer: httpx.Response) -> Iterator[bytes]:
        """The bytes as stored: a server's compression for the way was not asked for and is not undone."""
        return self._chunks(answer)

    @contextlib.contextmanager
    def _send(self, address: Address, fields: Mapping[str, str]) -> Iterator[httpx.Response]:
        plain = _without_user(address.url)
        headers = {"accept-encoding": "identity", **fields}
        if address.is_trusted:
            headers |= self._credentials(address.url)
        with self._explained(address), self._client.stream("GET", plain, headers=headers) as answer:
            yield answer

    def _chunks(self, answer: httpx.Response) -> Iterator[bytes]:
        with self._explained(Address(str(answer.url))):
            # As they come: what waited for a larger chunk would be lost in a cut.
            yield from answer.iter_raw()

    # -- credentials and redirects ---------------------------------------------------------------------------

    def _credentials(self, url: str) -> dict[str, str]:
        """From the URL itself, what the place brings of its own, the manifest, or the user's netrc: the first."""
        parts = urlsplit(url)
        if parts.username is not None:
            return {"authorization": basic(unquote(parts.username), unquote(parts.password or ""))}
        known = self._access.credentials
        named = known.get(f"{parts.hostname}:{parts.port}") or known.get(parts.hostname or "")
        if named:
            return {named.header: named.value}
        return self._own or _from_netrc(parts.hostname or "")

    def _followed(self, address: Address, answer: httpx.Response) -> Address:
        before = urlsplit(address.url)
        url = urljoin(_without_user(address.url), answer.headers["location"])
        after = urlsplit(url)
        if after.scheme not in ("http", "https"):
            raise UserError(f"{self._source}: redirected to {redacted(url)}; that is no web address; name another")
        if before.scheme == "https" and after.scheme == "http":
            raise UserError(
                f"{self._source}: redirected from https to {redacted(url)}; that would be read unprotected; "
                f"name an address that stays https"
            )
        if _is_inner(after.hostname) and not _is_inner(before.hostname):
            raise UserError(
                f"{self._source}: redirected to {redacted(url)}, in this machine's own network; a server elsewhere "
                f"has no business there; name that address itself if it is meant"
            )
        is_same = (before.scheme, before.hostname, before.port) == (after.scheme, after.hostname, after.port)
        if is_same and address.is_trusted:
            user = before.netloc.rpartition("@")[0]
            return Address(urlunsplit(after._replace(netloc=f"{user}@{after.netloc}" if user else after.netloc)))
        return Address(url, is_trusted=False)

    # -- errors ----------------------------------------------------------------------------------------------

    def _check(self, answer: httpx.Response, address: Address) -> None:
        status, host = answer.status_code, urlsplit(address.url).hostname
        if status in (200, 206, 416):
            return
        if status in TRANSIENT:
            raise TransientError(f"{host} answered {status}", _retry_after_s(answer))
        if status in (401, 403):
            raise UserError(
                f"{self._source}: {host} answered {status}; it wants other credentials, or hides what is not there; "
                f"{self._how_to_sign_in(address)}"
            )
        if status in (404, 410):
            raise UserError(f"{self._source}: {host} answered {status}; nothing is there; correct the address")
        raise UserError(f"{self._source}: {host} answered {status}; a file was expected; correct the address")

    def _how_to_sign_in(self, address: Address) -> str:
        if not address.is_trusted:
            return "it was reached by a redirect, and credentials do not follow one to another host; name that host"
        if self._own or self._credentials(address.url):
            return "see that the credentials are right and may read this (docs/SOURCES.md)"
        return "give some under `sources.credentials` of the manifest, or in ~/.netrc (docs/SOURCES.md)"

    @contextlib.contextmanager
    def _explained(self, address: Address) -> Iterator[None]:
        host = urlsplit(address.url).netloc.rpartition("@")[2]
        try:
            yield
        except httpx.InvalidURL as exc:
            raise UserError(f"{self._source}: {redacted(str(exc))}; correct the address") from exc
        except httpx.TimeoutException as exc:
            raise TransientError(f"{host} sent nothing for {_waited_s(exc):g} s") from exc
        except httpx.TransportError as exc:
            if (certificate := certificate_fault(exc)) is not None:
                raise UserError(
                    f"{self._source}: the certificate of {host} cannot be trusted: {certificate}; if it is your own "
                    f"authority's, name its file in SSL_CERT_FILE before `modelfleet up`"
                ) from exc
            raise TransientError(
                f"the connection to {host} failed: {redacted(str(exc) or type(exc).__name__)}"
            ) from exc


@dataclass(slots=True)
class WebFile:
    """One file of a web server."""

    source: str
    access: Access
    _web: Web = field(init=False)

    def __post_init__(self) -> None:
        self._web = Web(self.source, self.access)

    def listing(self) -> Listing:
        # Not HEAD: a URL that is signed for GET refuses it. One byte is asked for, and the rest is not read.
        with self._web.open(self.source, {"range": "bytes=0-0"}) as answer:
            self._refuse_pages(answer)
            name = _name_of(answer) or file_name(self.source)
            file = RemoteFile(name, self.source, _size_of(answer), _validator_of(answer))
        return Listing((file,), is_file=True)

    @contextlib.contextmanager
    def read(self, file: RemoteFile, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        fields = {"range": f"bytes={offset}-", "if-range": _if_range(file.validator)} if offset else {}
        with self._web.open(self.source, fields) as answer:
            if answer.status_code == 416 or (file.validator and _validator_of(answer) != file.validator):
                raise ChangedError
            start = offset if answer.status_code == 206 else 0
            if answer.status_code == 206 and first_byte(answer) != offset:
                raise TransientError("the server sent another part of the file than was asked for")
            yield start, self._web.stream(answer)

    def close(self) -> None:
        self._web.close()

    def _refuse_pages(self, answer: httpx.Response) -> None:
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/html" or urlsplit(str(answer.url)).path.endswith("/"):
            raise UserError(
                f"source {redacted(self.source)}: the server answers with a web page; it may be a folder, a viewer of "
                f"the file, or a login; name the file itself, or an archive of the folder"
            )


@functools.lru_cache(maxsize=4)
def _trust(file: str | None, directory: str | None) -> ssl.SSLContext:  # noqa: ARG001 - httpx reads them itself
    """Reading the authorities takes 30 ms of work, so all clients share them: a thousand sources are a thousand."""
    return httpx.create_ssl_context()


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _from_netrc(host: str) -> dict[str, str]:
    try:
        found = netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc").hosts.get(host)
    except (OSError, netrc.NetrcParseError, RuntimeError):
        return {}
    return {"authorization": basic(found[0], found[2])} if found else {}


def _is_inner(host: str | None) -> bool:
    """Whether a host is this machine, or on its link (where clouds keep their machines' credentials)."""
    if host is None or host.lower().rstrip(".") in ("localhost", "metadata.google.internal"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_link_local or address.is_unspecified


def _retry_after_s(answer: httpx.Response) -> float:
    said = answer.headers.get("retry-after", "")
    return min(float(said), 60.0) if said.isdigit() else 0.0


def _waited_s(exc: httpx.TimeoutException) -> float:
    connecting = isinstance(exc, httpx.ConnectTimeout)
    return float((TIMEOUT.connect if connecting else TIMEOUT.read) or 0)


def certificate_fault(exc: BaseException | None) -> str | None:
    while exc is not None:
        if isinstance(exc, ssl.SSLCertVerificationError):
            return exc.verify_message
        if "CERTIFICATE_VERIFY_FAILED" in str(exc):
            return re.sub(r".*CERTIFICATE_VERIFY_FAILED\]?[^:]*: ?|\s*\(_ssl.*", "", str(exc))
        exc = exc.__cause__ or exc.__context__
    return None


def _size_of(answer: httpx.Response) -> int | None:
    if answer.status_code == 416:
        return 0
    if answer.status_code == 206:
        total = answer.headers.get("content-range", "").rpartition("/")[2]
        return int(total) if total.isdigit() else None
    length = answer.headers.get("content-length", "")
    return int(length) if length.isdigit() else None


def first_byte(answer: httpx.Response) -> int:
    match = re.match(r"bytes (\d+)-", answer.headers.get("content-range", ""))
    return int(match[1]) if match else -1


def _validator_of(answer: httpx.Response) -> str:
    """An entity tag, or the time of the last change when that is long enough ago to tell."""
    if tag := answer.headers.get("etag"):
        return f"etag {tag}"
    modified = _seconds(answer.headers.get("last-modified"))
    now = _seconds(answer.headers.get("date")) or time.time()
    if modified is None or now - modified < GRAIN_S:
        return ""
    return f"modified {answer.headers['last-modified']}"


def _if_range(validator: str) -> str:
    """A weak tag is no promise about bytes, and servers then send everything: which is right."""
    return validator.partition(" ")[2]


def _seconds(date: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None


def _name_of(answer: httpx.Response) -> str:
    """What the server calls the file, "" if it does not say, without any folder in it."""
    message = Message()
    message["content-disposition"] = answer.headers.get("content-disposition", "")
    said = message.get_filename() or ""
    name = re.split(r"[/\\]", said)[-1].strip()
    return name if name.isprintable() and name not in (".", "..") else ""
