"""Programs that people have: curl, hey, wrk, Node's fetch, a browser. Each is run as it is installed.

Where one is not installed its tests are skipped with its name; in CI, which installs them all, they fail.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.fakes.gateway import GatewayUnderTest
from tests.fakes.scripted_replica import Call, ScriptedReplica

PACKAGES = {
    "curl": "curl",
    "hey": "hey",
    "wrk": "wrk",
    "node": "nodejs",
    "chromium-headless-shell": "chromium-headless-shell",
}
TOOL_S = 60


def tool(name: str) -> str:
    """The path of a program. Skips, or fails in CI, where it is not installed."""
    path = shutil.which(name)
    if path is None:
        sentence = f"{name} is not installed; on Debian: apt-get install {PACKAGES[name]}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(sentence)
    return path


async def run(name: str, *arguments: str) -> str:
    """Standard output of the program, which must end with 0."""
    process = await asyncio.create_subprocess_exec(
        tool(name),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},  # without proxies
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), TOOL_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, errors.decode()
    return output.decode()


@pytest.fixture
async def url(gateway: GatewayUnderTest, replica: ScriptedReplica) -> str:
    await gateway.route(replica)
    return f"http://127.0.0.1:{gateway.port}/models/m/x"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file above every buffer."""
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * 3)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestCurl:
    async def test_posts_json_on_one_connection(self, url: str) -> None:
        ask = ("-sS", "--json", '{"x":1}', "-w", " %{http_code} %{num_connects}\n", url)

        assert await run("curl", *ask, "--next", *ask) == '{"x":1} 200 1\n{"x":1} 200 0\n'

    async def test_uploads_a_large_body_and_reads_it_back(self, url: str, large: Path, tmp_path: Path) -> None:
        back = tmp_path / "back"
        await run("curl", "-sS", "--data-binary", f"@{large}", "-o", str(back), url)

        assert digest(back) == digest(large)

    async def test_uploads_chunks(self, url: str, large: Path, tmp_path: Path, replica: ScriptedReplica) -> None:
        back = tmp_path / "back"
        chunked = ("-H", "Transfer-Encoding: chunked", "--data-binary", f"@{large}")
        await run("curl", "-sS", *chunked, "-o", str(back), url)

        assert digest(back) == digest(large)
        assert replica.calls[0].field("transfer-encoding") == ["chunked"]

    async def test_waits_for_100_continue(self, url: str, large: Path, tmp_path: Path) -> None:
        trace = tmp_path / "trace"
        expecting = ("-H", "Expect: 100-continue", "--expect100-timeout", "30", "--data-binary", f"@{large}")
        await run("curl", "-sS", "-v", "--stderr", str(trace), *expecting, "-o", os.devnull, url)

        assert "HTTP/1.1 100 Continue" in trace.read_text()

    async def test_asks_for_the_head_alone(self, url: str) -> None:
        assert (await run("curl", "-sSI", url)).startswith("HTTP/1.1 200 OK\r\n")

    async def test_speaks_http_1_0(self, url: str) -> None:
        assert await run("curl", "-sS", "--http1.0", "-d", "tensor", url) == "tensor"

    async def test_reads_events_as_they_come(self, url: str, replica: ScriptedReplica) -> None:
        read = asyncio.Event()

        async def events(call: Call) -> None:
            call.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            await read.wait()
            call.send(b"data: 2\n\n")
            call.close()

        replica.script = events
        process = await asyncio.create_subprocess_exec(tool("curl"), "-sSN", url, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None

        try:
            first = await asyncio.wait_for(process.stdout.readuntil(b"\n\n"), TOOL_S)
            read.set()
            rest, _ = await asyncio.wait_for(process.communicate(), TOOL_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

        assert (first, rest, process.returncode) == (b"data: 1\n\n", b"data: 2\n\n", 0)


class TestLoadGenerators:
    async def test_hey_gets_200_each_time(self, url: str, replica: ScriptedReplica) -> None:
        """It is Go's net/http."""
        output = await run("hey", "-n", "400", "-c", "8", "-m", "POST", "-d", '{"x":1}', url)

        assert re.findall(r"\[(\d+)\]\s+(\d+) responses", output) == [("200", "400")]
        assert "Error distribution" not in output

    async def test_wrk_gets_200_each_time(self, url: str, replica: ScriptedReplica) -> None:
        output = await run("wrk", "-t1", "-c8", "-d1s", url)

        assert "Non-2xx" not in output
        assert "Socket errors" not in output
        assert int(re.findall(r"(\d+) requests in", output)[0]) > 100


NODE = """
const url = process.argv[1];
const post = body => fetch(url, {method: "POST", body}).then(answer => answer.text());
const pieces = new ReadableStream({start(c) { for (const p of ["ten", "sor"]) c.enqueue(new TextEncoder().encode(p)); c.close(); }});
(async () => {
  const found = {posts: []};
  for (let i = 0; i < 5; i++) found.posts.push(await post("tensor" + i));
  found.streamed = await (await fetch(url, {method: "POST", body: pieces, duplex: "half"})).text();
  found.head = (await fetch(url, {method: "HEAD"})).status;
  found.unknown = await (await fetch(url.replace("/m/", "/none/"))).json();
  found.parallel = await Promise.all(Array.from({length: 20}, (_, i) => post("p" + i)));
  console.log(JSON.stringify(found));
})();
"""


class TestNode:
    async def test_fetches_in_a_row_in_pieces_and_in_parallel(self, url: str, replica: ScriptedReplica) -> None:
        found = json.loads(await run("node", "-e", NODE, url))

        assert found["posts"] == [f"tensor{i}" for i in range(5)]
        assert (found["streamed"], found["head"]) == ("tensor", 200)
        assert found["unknown"]["code"] == "MODEL_NOT_FOUND"
        assert found["parallel"] == [f"p{i}" for i in range(20)]


PAGE = """<!doctype html><title>x</title><pre id=out></pre><script>
const say = text => document.getElementById("out").textContent += text + "\\n";
const json = {"content-type": "application/json"};
(async () => {
  const own = await fetch("/v2/models/m/infer", {method: "POST", headers: json, body: '{"x":1}'});
  say("own " + own.status + " " + await own.text() + " " + (own.headers.get("x-request-id") !== null));
  for (const path of ["open", "shut"]) {
    try {
      const other = await fetch(`http://127.0.0.1:${location.port}/models/m/${path}`, {method: "POST", headers: json, body: "{}"});
      say(path + " " + other.status);
    } catch (error) { say(path + " " + error.name); }
  }
  say("done");
})();
</script>"""
ALLOWED = (
    b"Access-Control-Allow-Origin: *",
    b"Access-Control-Allow-Headers: content-type",
    b"Access-Control-Allow-Methods: POST",
)


async def site(call: Call) -> None:
    """A model that serves a page, and says for one of its paths that pages of other origins may ask it."""
    await call.completed.wait()
    if call.target == b"/models/m/page":
        call.answer(PAGE.encode(), b"200 OK", b"Content-Type: text/html")
    elif call.target == b"/models/m/open":
        call.answer(b"", b"200 OK", *ALLOWED)
    else:
        call.answer(call.body)


class TestBrowser:
    async def test_predicts_from_a_page_of_its_own_origin_and_of_another_where_the_model_allows_it(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, tmp_path: Path
    ) -> None:
        """The gateway has no word in CORS: a preflight is carried to the model, and the model's answer decides."""
        replica.script = site
        await gateway.route(replica)
        page = f"http://localhost:{gateway.port}/models/m/page"  # another origin than 127.0.0.1
        flags = (
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=20000",
            "--dump-dom",
        )

        shown = await run("chromium-headless-shell", *flags, page)

        lines = shown.partition('id="out">')[2].partition("</pre>")[0].splitlines()
        assert lines == ['own 200 {"x":1} true', "open 200", "shut TypeError", "done"]
        assert [call.target for call in replica.calls if call.method == b"OPTIONS"] == [
            b"/models/m/open",
            b"/models/m/shut",
        ]
