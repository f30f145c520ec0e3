"""Remote sources on a whole cluster: a plan that only looks, an apply that shows its bytes, a kill in mid-download."""

from __future__ import annotations

import io
import secrets
import signal
import tarfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.file_server import FileServer
from tests.integration.cluster import MODEL, Cluster, fleet, pick_port, until

PADDING = 4 * 1024 * 1024


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


@pytest.fixture
def cluster_of_one(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path, f"test-{secrets.token_hex(4)}", pick_port)
    yield found.start()
    found.close()


def archive(answer: float, padding: int = 0) -> bytes:
    """A python model that answers so, in a tar of at least `padding` bytes."""
    code = MODEL.replace("LOAD", " " * 8 + "pass")
    code = code.replace("PREDICT", textwrap.indent(f"return inputs['x'] * 0 + {answer}", " " * 8))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        for name, content in (("model.py", code.encode()), ("weights.bin", secrets.token_bytes(padding) + b"x")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_a_source_is_fetched_once_for_plan_apply_and_every_replica(cluster_of_one: Cluster, server: FileServer) -> None:
    url = server.put("/model.tar", archive(7.0, PADDING))
    manifest = fleet(far={"scaling": {"min": 2}, "versions": {"1": {"source": url}, "2": {"source": url}}})

    plan = cluster_of_one.api("POST", "/plan", json=cluster_of_one.request(manifest)).json()
    looked = server.downloads("/model.tar")
    cluster_of_one.apply(manifest)
    again = cluster_of_one.api("POST", "/plan", json=cluster_of_one.request(manifest)).json()

    assert "source to fetch: 4.2 MB seen as" in plan["text"]
    assert looked == []
    assert cluster_of_one.predict("far") == 7.0
    assert len(server.downloads("/model.tar")) == 1
    assert again["text"] == "nothing changes"


def test_a_changed_source_is_replaced_and_the_same_content_is_not(cluster_of_one: Cluster, server: FileServer) -> None:
    first, second = archive(1.0), archive(2.0)
    url = server.put("/model.tar", first)
    cluster_of_one.apply(fleet(far=url))
    replicas = [r["id"] for r in cluster_of_one.version("far")["replicas"]]

    server.put("/model.tar", first, etag='"another"')
    cluster_of_one.apply(fleet(far=url))
    kept = [r["id"] for r in cluster_of_one.version("far")["replicas"]]
    server.put("/model.tar", second)
    plan = cluster_of_one.api("POST", "/plan", json=cluster_of_one.request(fleet(far=url))).json()
    cluster_of_one.apply(fleet(far=url))

    assert kept == replicas
    assert "source changed" in plan["text"]
    assert "-> to fetch: 12.3 kB seen as" in plan["text"] or "-> to fetch: 10.2 kB seen as" in plan["text"]
    assert cluster_of_one.predict("far") == 2.0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_download_goes_on_after_the_control_plane_ended_in_it(
    cluster_of_one: Cluster, server: FileServer, how: signal.Signals
) -> None:
    gate = threading.Event()
    content = archive(3.0, PADDING)
    url = server.put("/model.tar", content, gate=gate, gate_at=PADDING // 2)
    operation = cluster_of_one.begin(fleet(far=url))
    until("half of it came", lambda: server.sent_bytes >= PADDING // 2)
    seen = until("the bytes show", lambda: cluster_of_one.get(f"/operations/{operation}")["fetching"])

    assert cluster_of_one.process is not None
    cluster_of_one.process.send_signal(how)
    gate.set()
    cluster_of_one.process.wait(20)
    cluster_of_one.start()
    ended = cluster_of_one.ended(operation)

    assert [(each["model"], each["source"], each["total_bytes"]) for each in seen] == [("far", url, len(content))]
    assert ended["state"] == "succeeded", ended
    assert cluster_of_one.predict("far") == 3.0
    went_on = [each.fields["range"] for each in server.downloads("/model.tar") if "range" in each.fields]
    assert len(went_on) == 1
    assert int(went_on[0].removeprefix("bytes=").rstrip("-")) > 0


def test_all_that_is_wrong_is_said_at_once_and_changes_nothing(cluster_of_one: Cluster, server: FileServer) -> None:
    pinned = server.put("/pinned.tar", archive(1.0))
    host = server.url(user="ci:s3cret@")
    manifest = fleet(
        gone=f"{host}/gone.onnx?sig=s3cret",
        other={"versions": {"1": {"source": pinned, "sha256": "0" * 64}}},
    )

    planned = cluster_of_one.api("POST", "/plan", json=cluster_of_one.request(manifest))
    applied = cluster_of_one.api("POST", "/apply", json=cluster_of_one.request(manifest))
    ended = cluster_of_one.ended(applied.json()["id"]) if applied.status_code == 202 else {}

    assert planned.status_code == 422
    (fault,) = planned.json()["diagnostics"]
    assert fault["field"] == "models.gone.versions.1.source"
    assert "***@127.0.0.1" in fault["message"]
    assert "answered 404" in fault["message"]
    assert applied.status_code == 422 or ended["state"] == "failed"
    assert cluster_of_one.get("/status")["models"] == []


def test_a_pin_is_checked_before_anything_runs(cluster_of_one: Cluster, server: FileServer) -> None:
    url = server.put("/model.tar", archive(1.0))
    manifest = fleet(far={"versions": {"1": {"source": url, "sha256": "0" * 64}}})

    ended = cluster_of_one.ended(cluster_of_one.begin(manifest))

    assert ended["state"] == "failed"
    assert ended["revision"] is None
    assert f"and the manifest wants {'0' * 64}" in ended["diagnostics"][0]["message"]
    assert cluster_of_one.get("/status")["models"] == []


def test_no_secret_of_an_address_or_of_a_host_is_shown_or_stored_by_us(
    cluster_of_one: Cluster, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster_of_one.kill()
    cluster_of_one.environ["HOST_TOKEN"] = "t0k3n-of-the-host"
    cluster_of_one.start()
    content = archive(5.0)
    server.put("/signed.tar", content)
    server.put("/private.tar", content, wants="Bearer t0k3n-of-the-host")
    signed = f"{server.url('/signed.tar', user='ci:s3cret-pw@')}?X-Amz-Signature=s3cret-sig&versionId=1"
    manifest = fleet(signed=signed, private=server.url("/private.tar"))
    manifest["sources"] = {"credentials": {"127.0.0.1": {"token": {"env": "HOST_TOKEN"}}}}

    plan = cluster_of_one.api("POST", "/plan", json=cluster_of_one.request(manifest)).text
    ended = cluster_of_one.apply(manifest)

    shown = [plan, str(ended), (cluster_of_one.root / "control.log").read_text()]
    shown += [cluster_of_one.api("GET", path).text for path in ("/status", "/models/signed", "/events", "/history/1")]
    processes = cluster_of_one.state_dir / "processes"
    shown += [path.read_text(errors="replace") for path in processes.rglob("*") if path.is_file()]
    for text in shown:
        assert "s3cret" not in text
        assert "t0k3n" not in text
    assert "***@127.0.0.1" in cluster_of_one.api("GET", "/models/signed").text
    assert cluster_of_one.predict("signed") == 5.0
