"""How a version's source is written, what it is known by, and how it is shown: pure.

A source is a path, or a URL of one of the schemes below. `redacted` is the one way to put a source, or any sentence
that may hold one, before people: passwords and signatures of URLs never leave by another. What a scheme does is in
`adapters/sources/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

# MLflow writes these two so itself; every other scheme is followed by `//`.
_MLFLOW = re.compile(r"(?:mlflow:/*)?(?P<kind>models|runs):?/+(?P<rest>.*)")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
# What is secret in a query goes by many names; a value that nobody types is taken for one too.
_SECRET_NAME = re.compile(r"sig|token|key|secret|pass|pwd|credential|auth|code", re.IGNORECASE)
_LONGEST_PLAIN_VALUE = 40
# What signing adds to the query of a URL of S3, Google's and Azure's storage, and CloudFront.
_SIGNING = re.compile(
    r"x-amz-.*|x-goog-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id"
    r"|sig|s[vpert]|srt|spr|sip|ske|sks|skt|skv|skoid|sktid",
    re.IGNORECASE,
)
# `container@account` names a place in Azure's URLs, and nobody's password.
_ACCOUNT_SCHEMES = frozenset({"abfs", "abfss", "wasb", "wasbs", "az", "adl"})
HIDDEN = "***"
_UNFETCHED = "to fetch: "

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

HUB_FORM = "hf://owner/repo, hf://owner/repo@revision or hf://owner/repo@revision/path"
MLFLOW_FORM = (
    "models:/name/version, models:/name@alias or runs:/run-id/path, or with the server in it "
    "mlflow+https://host/models/name@alias"
)


@dataclass(frozen=True, slots=True)
class Source:
    """A version's files: where they are, the SHA-256 that they must have ("": any), whether an archive is unpacked."""

    text: str
    sha256: str = ""
    unpack: bool = True

    def __str__(self) -> str:
        return redacted(self.text)


@dataclass(frozen=True, slots=True)
class HubPlace:
    """A repository of the Hugging Face hub; `path` is "" for all of it."""

    repo: str
    revision: str
    path: str


@dataclass(frozen=True, slots=True)
class MlflowPlace:
    """What an MLflow server keeps. `server` is "" for the one of the environment; of the others one kind is given."""

    server: str
    model: str = ""
    version: str = ""
    alias: str = ""
    run: str = ""
    path: str = ""
    logged_model: str = ""


def scheme_of(text: str) -> str:
    """`https`, `s3`, `mlflow`, …; "" for a path, `file` for a path by URL, `::` for a chain of fsspec's."""
    if text.startswith(("models:/", "runs:/", "mlflow:")):
        return "mlflow"
    if text.lower().startswith("file:"):
        return "file"
    if "::" in text:
        return "::"
    match = _SCHEME.match(text)
    return match[1].lower() if match else ""


def is_remote(text: str) -> bool:
    return scheme_of(text) not in ("", "file")


def path_of_file_url(text: str) -> str:
    return unquote(urlsplit(text).path)


def fault_of(text: str) -> str:
    """Why no source can be meant by this text, or ""."""
    if HIDDEN in text:
        return f"has {HIDDEN} where a secret was hidden when it was shown; write the address in full again"
    scheme = scheme_of(text)
    try:
        if scheme in ("http", "https"):
            return _web_fault(text)
        if scheme in ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"):
            return "" if urlsplit(text).netloc else f"names no bucket; write {scheme}://bucket/path"
        if scheme == "hf":
            hub_place(text)
        if scheme == "mlflow" or scheme.startswith("mlflow+"):
            mlflow_place(text)
    except ValueError as exc:
        return str(exc)
    return ""


def hub_place(text: str) -> HubPlace:
    """Raises `ValueError` with what is wrong."""
    rest = text[len("hf://") :]
    owner, _, rest = rest.partition("/")
    repo, _, path = rest.partition("/")
    repo, at, revision = repo.partition("@")
    if owner in ("datasets", "spaces"):
        raise ValueError(f"names one of the hub's {owner}; models are served; write {HUB_FORM}")
    if not owner or not repo or (at and not revision):
        raise ValueError(f"names no repository of the hub; write {HUB_FORM}")
    return HubPlace(f"{owner}/{repo}", unquote(revision) or "main", path.strip("/"))


def mlflow_place(text: str) -> MlflowPlace:
    """Raises `ValueError` with what is wrong."""
    server, rest = "", text
    if text.lower().startswith("mlflow+"):
        server, rest = _mlflow_server(text)
    match = _MLFLOW.fullmatch(rest)
    if not match:
        raise ValueError(f"names nothing of MLflow; write {MLFLOW_FORM}")
    name, _, path = unquote(match["rest"]).strip("/").partition("/")
    if match["kind"] == "runs":
        if not name or not path:
            raise ValueError("names no artifact of a run; write runs:/run-id/path, such as runs:/0a1b2c/model")
        return MlflowPlace(server, run=name, path=path)
    if re.fullmatch(r"m-[0-9a-f]{32}", name) and not path:
        return MlflowPlace(server, logged_model=name)
    model, _, alias = name.partition("@")
    if not model or bool(alias) == path.isdigit() or (alias and path) or (path and not path.isdigit()):
        raise ValueError("names no version of a model; write models:/name/version (a number) or models:/name@alias")
    return MlflowPlace(server, model=model, version=path, alias=alias)


def identity(text: str) -> str:
    """What the source is known by: without passwords and signatures, which change while the place does not."""
    if not is_remote(text) or scheme_of(text) in ("::", "mlflow"):
        return text
    parts = urlsplit(text)
    query = urlencode([(name, value) for name, value in _query(parts.query) if not _SIGNING.fullmatch(name)])
    host = parts.netloc if parts.scheme.lower() in _ACCOUNT_SCHEMES else parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme.lower(), host, parts.path, query, ""))


def redacted(text: str) -> str:
    """`text` without the passwords and signatures of the URLs in it. Any sentence may be given."""
    return _URL.sub(_redacted_match, text)


def unfetched(size_bytes: int | None, state: str) -> str:
    """Stands for the digest of content that only a fetch can tell, in a plan: what was seen instead."""
    size = "" if size_bytes is None else f"{_size(size_bytes)} "
    return f"{_UNFETCHED}{size}seen as {state[:8]}"


def is_unfetched(artifact: str) -> bool:
    return artifact.startswith(_UNFETCHED)


def file_name(text: str) -> str:
    """The last part of the path, as a file would be called that is fetched from there."""
    path = urlsplit(text).path if _SCHEME.match(text) else text
    return unquote(path.rstrip("/").rpartition("/")[2])


def archive_suffix(name: str) -> str:
    """`.tar.gz` and the like when the name is an archive's, or ""."""
    return next((suffix for suffix in sorted(ARCHIVES, key=len, reverse=True) if name.lower().endswith(suffix)), "")


def _size(size_bytes: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} bytes"


def _web_fault(text: str) -> str:
    parts = urlsplit(text)
    if not parts.hostname:
        return f"names no host; write {parts.scheme}://host/path/of/a/file"
    _ = parts.port  # raises ValueError for what is no port
    if parts.path.endswith("/") or not parts.path:
        return "names a folder; plain HTTP lists none; name one file, or an archive (.tar.gz, .zip) of the folder"
    return ""


def _mlflow_server(text: str) -> tuple[str, str]:
    """(`https://host/prefix`, `models/…`). The last `models` or `runs` that fits ends the server's own path."""
    parts = urlsplit(text[len("mlflow+") :])
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise ValueError(f"names no MLflow server; write {MLFLOW_FORM}")
    found = re.fullmatch(r"(?P<prefix>.*?)/(?P<place>(?:models/[^/]+(?:/[0-9]+)?|runs/.+))/?", parts.path)
    if not found:
        raise ValueError(f"names nothing of MLflow; write {MLFLOW_FORM}")
    return urlunsplit((parts.scheme.lower(), parts.netloc, found["prefix"], "", "")), found["place"]


def _redacted_match(match: re.Match[str]) -> str:
    # What follows a URL in a sentence or in YAML is no part of its last value.
    url = match[0].rstrip(",;.)]}")
    return _redacted_url(url) + match[0][len(url) :]


def _redacted_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    end = next((at for at, letter in enumerate(rest) if letter in "/?#"), len(rest))
    host, path = rest[:end], rest[end:]
    if "@" in host and (scheme.lower() not in _ACCOUNT_SCHEMES or ":" in host.partition("@")[0]):
        host = f"{HIDDEN}@{host.rpartition('@')[2]}"
    path, hash_mark, _ = path.partition("#")
    path, mark, query = path.partition("?")
    if mark:
        path = f"{path}?{'&'.join(_shown_pair(name, value) for name, value in _query(query))}"
    return f"{scheme}://{host}{path}{hash_mark and f'#{HIDDEN}'}"


def _shown_pair(name: str, value: str) -> str:
    return f"{quote(name)}={HIDDEN if _is_secret(name, value) else quote(value)}"


def _query(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True)


def _is_secret(name: str, value: str) -> bool:
    return bool(_SECRET_NAME.search(name)) or len(value) > _LONGEST_PLAIN_VALUE
