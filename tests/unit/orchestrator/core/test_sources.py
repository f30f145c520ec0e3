"""How sources are read, known and shown: tables, and the property that no secret of an address is ever shown."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from orchestrator.core.sources import (
    HubPlace,
    MlflowPlace,
    archive_suffix,
    fault_of,
    hub_place,
    identity,
    is_remote,
    is_unfetched,
    mlflow_place,
    redacted,
    scheme_of,
    unfetched,
)


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("models/iris/1", ""), ("/models/iris", ""), ("~/iris", ""), ("models:1/iris", ""), ("file:iris", "file"),
        ("FILE:///iris", "file"), ("https://h/x", "https"), ("HTTP://h/x", "http"), ("s3://b/x", "s3"), ("az://c/x", "az"),
        ("models:/iris/3", "mlflow"), ("runs:/0a/model", "mlflow"), ("mlflow:models/iris/3", "mlflow"),
        ("mlflow+http://h/models/iris/3", "mlflow+http"), ("zip://*::s3://b/x.zip", "::"),
    ],
)  # fmt: skip
def test_a_scheme_is_read(text: str, scheme: str) -> None:
    assert scheme_of(text) == scheme
    assert is_remote(text) == (scheme not in ("", "file"))
    assert fault_of(text) == ""


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("models:/iris/3", MlflowPlace("", model="iris", version="3")),
        ("models:/iris@champion", MlflowPlace("", model="iris", alias="champion")),
        ("models:/my%20iris/3", MlflowPlace("", model="my iris", version="3")),
        ("models:/m-0123456789abcdef0123456789abcdef", MlflowPlace("", logged_model="m-0123456789abcdef0123456789abcdef")),
        ("mlflow:models/iris/3", MlflowPlace("", model="iris", version="3")),
        ("mlflow:models:/iris@champion", MlflowPlace("", model="iris", alias="champion")),
        ("runs:/0a1b/path/to/model", MlflowPlace("", run="0a1b", path="path/to/model")),
        ("mlflow+http://h:5000/models/iris/3", MlflowPlace("http://h:5000", model="iris", version="3")),
        ("mlflow+https://h/ml/models/models@a", MlflowPlace("https://h/ml", model="models", alias="a")),
        ("mlflow+https://h/runs/0a1b/model", MlflowPlace("https://h", run="0a1b", path="model")),
    ],
)  # fmt: skip
def test_an_mlflow_place_is_read(text: str, place: MlflowPlace) -> None:
    assert mlflow_place(text) == place
    assert fault_of(text) == ""


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("hf://owner/repo", HubPlace("owner/repo", "main", "")),
        ("hf://owner/repo@v1", HubPlace("owner/repo", "v1", "")),
        ("hf://owner/repo@refs%2Fpr%2F1/onnx/model.onnx", HubPlace("owner/repo", "refs/pr/1", "onnx/model.onnx")),
        ("hf://owner/repo/onnx/", HubPlace("owner/repo", "main", "onnx")),
    ],
)
def test_a_place_of_the_hub_is_read(text: str, place: HubPlace) -> None:
    assert hub_place(text) == place


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h/x", "https://h/x"),
        ("https://user:s3cret@h:8443/x", "https://***@h:8443/x"),
        ("https://s3cret@h/x", "https://***@h/x"),
        ("https://h/x?X-Amz-Signature=s3cret&versionId=7", "https://h/x?X-Amz-Signature=***&versionId=7"),
        ("https://h/x?sv=2024&sig=s3cret%3D", "https://h/x?sv=2024&sig=***"),
        ("https://h/x#s3cret", "https://h/x#***"),
        ("mlflow+https://user:s3cret@h/models/iris/3", "mlflow+https://***@h/models/iris/3"),
        ("abfss://container@account.dfs.core.windows.net/x", "abfss://container@account.dfs.core.windows.net/x"),
        ("could not reach https://u:s3cret@h/x?sig=s3cret, or so", "could not reach https://***@h/x?sig=***, or so"),
        ("{source: https://u:s3cret@h/x?sig=s3cret, backend: onnx}", "{source: https://***@h/x?sig=***, backend: onnx}"),
        ('{source: "https://h/x?token=s3cret"}', '{source: "https://h/x?token=***"}'),
        ("hf://owner/repo@main/x", "hf://owner/repo@main/x"),
    ],
)  # fmt: skip
def test_an_address_is_shown_without_what_is_secret(text: str, shown: str) -> None:
    assert redacted(text) == shown


SECRETS = st.text(st.characters(min_codepoint=48, max_codepoint=122, categories=["L", "N"]), min_size=12, max_size=80)
SECRET_NAMES = st.sampled_from(
    ["sig", "X-Amz-Signature", "X-Amz-Security-Token", "access_token", "api_key", "password"]
)


@given(SECRETS, SECRETS, SECRET_NAMES, st.sampled_from(["https", "http", "mlflow+https", "sftp"]))
def test_no_secret_of_any_address_is_ever_shown(user: str, secret: str, name: str, scheme: str) -> None:
    sentence = f"source {scheme}://{user}:{secret}@host/path?a=1&{name}={secret}: failed"

    assert secret not in redacted(sentence)
    assert user not in redacted(sentence)


@pytest.mark.parametrize("scheme", ["https", "s3"])
def test_a_signature_is_no_part_of_what_a_source_is_known_by(scheme: str) -> None:
    one = identity(f"{scheme}://u:p@h/x?X-Amz-Signature=1&X-Amz-Date=2&versionId=7")

    assert one == identity(f"{scheme.upper()}://h/x?versionId=7&X-Amz-Signature=9")
    assert one != identity(f"{scheme}://h/x?versionId=8")


def test_a_hidden_secret_is_never_taken_for_one() -> None:
    assert "write the address in full again" in fault_of(redacted("https://user:s3cret@h/x"))


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("m.tar.gz", ".tar.gz"), ("M.ZIP", ".zip"), ("m.tgz", ".tgz"), ("m.gz", ""), ("zip", ""), ("m.tar.gz.onnx", "")],
)
def test_an_archive_is_known_by_its_name(name: str, suffix: str) -> None:
    assert archive_suffix(name) == suffix


def test_what_is_not_fetched_yet_says_what_was_seen() -> None:
    assert unfetched(5_123_456_789, "abcdef0123456") == "to fetch: 5.1 GB seen as abcdef01"
    assert is_unfetched(unfetched(None, "abcdef0123456"))
    assert not is_unfetched("0" * 64)
