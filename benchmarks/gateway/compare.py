"""The gateway beside HAProxy and nginx: one process each on one core, the same back end, alternated, medians.

Needs nginx, haproxy and wrk from Debian. The load is a POST of an 84-byte inference request; the back end is an nginx
with a fixed answer. Everything listens on 127.0.0.1 and ends with the script.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from router.contract import Endpoint, ModelRoute, Table, VersionRoute, encode

PATH = "/v2/models/iris/infer"
BODY = '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP64","data":[5.1,3.5,1.4,0.2]}]}'
ANSWER = '{"model_name":"iris","outputs":[{"name":"predict","datatype":"INT64","shape":[1],"data":[0]}]}'
PROXY_CORE, LOAD_CORE = "0", "1"

BACKEND_CONF = """worker_processes 1; daemon off; pid {dir}/backend.pid; error_log {dir}/backend.err;
events {{ worker_connections 20000; }}
http {{ access_log off; keepalive_requests 1000000000; client_max_body_size 0; client_body_buffer_size 4m;
  client_body_temp_path {dir}/b1; proxy_temp_path {dir}/b2; fastcgi_temp_path {dir}/b3; uwsgi_temp_path {dir}/b4;
  scgi_temp_path {dir}/b5;
  server {{ listen 127.0.0.1:{backend} backlog=4096;
    location / {{ default_type application/json; return 200 '{answer}'; }} }} }}
"""
NGINX_CONF = """worker_processes 1; daemon off; pid {dir}/proxy.pid; error_log {dir}/proxy.err;
events {{ worker_connections 20000; }}
http {{ access_log off; keepalive_requests 1000000000; client_max_body_size 0; client_body_buffer_size 4m;
  client_body_temp_path {dir}/p1; proxy_temp_path {dir}/p2; fastcgi_temp_path {dir}/p3; uwsgi_temp_path {dir}/p4;
  scgi_temp_path {dir}/p5;
  upstream b {{ server 127.0.0.1:{backend}; keepalive 512; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; }} }} }}
"""
HAPROXY_CONF = """global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  http-reuse always
listen f
  bind 127.0.0.1:{port}
  server s 127.0.0.1:{backend}
"""
LUA = """wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = {body}
"""


def main() -> None:
    options = _options()
    tools = [name for name in ("nginx", "haproxy", "wrk", "taskset") if shutil.which(name) is None]
    if tools:
        sys.exit(f"Error: {', '.join(tools)}: not found; run `apt-get install nginx haproxy wrk`")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        ports = _start_all(stack, directory, options.models)
        results: dict[str, list[tuple[float, float, float]]] = {proxy: [] for proxy in ports}
        script = directory / "post.lua"
        script.write_text(LUA.format(body=_lua_body(options.body_bytes)))
        for _ in range(options.rounds):
            for proxy, port in ports.items():
                results[proxy].append(_load(script, port, options.connections, options.seconds))
        _print(results, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--body-bytes", type=int, default=0, help="0: the inference request of 84 bytes")
    parser.add_argument("--models", type=int, default=1, help="models in the gateway's table")
    return parser.parse_args()


def _start_all(stack: ExitStack, directory: Path, models: int) -> dict[str, int]:
    backend, *ports = (_free_port() for _ in range(5))
    values = {"dir": directory, "backend": backend, "answer": ANSWER}
    (directory / "backend.conf").write_text(BACKEND_CONF.format(**values))
    (directory / "nginx.conf").write_text(NGINX_CONF.format(port=ports[0], **values))
    (directory / "haproxy.cfg").write_text(HAPROXY_CONF.format(port=ports[1], **values))
    _write_table(directory / "table.json", backend, models)
    gateway = [sys.executable, "-m", "router", "--table", directory / "table.json", "--port", ports[2]]
    gateway += ["--metrics-port", ports[3], "--log-file", directory / "gateway.log"]
    for core, command, port in (
        (LOAD_CORE, ["nginx", "-c", directory / "backend.conf", "-p", directory], backend),
        (PROXY_CORE, ["nginx", "-c", directory / "nginx.conf", "-p", directory], ports[0]),
        (PROXY_CORE, ["haproxy", "-q", "-f", directory / "haproxy.cfg"], ports[1]),
        (PROXY_CORE, gateway, ports[2]),
    ):
        stack.enter_context(_running(["taskset", "-c", core, *map(str, command)], port))
    return {"nginx": ports[0], "haproxy": ports[1], "modelfleet": ports[2]}


def _write_table(path: Path, backend: int, models: int) -> None:
    routes = {
        name: ModelRoute({"1": VersionRoute((Endpoint(name, "127.0.0.1", backend),), concurrency=512)}, {"1": 1})
        for name in ("iris", *(f"model-{i}" for i in range(models - 1)))
    }
    path.write_bytes(encode(Table("benchmark", 1, "c", routes)))


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL)
    try:
        _await(process, port)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
    sys.exit(f"Error: {process.args!r} does not listen on port {port}")


def _load(script: Path, port: int, connections: int, seconds: float) -> tuple[float, float, float]:
    """Requests/s, median and 99th percentile in milliseconds."""
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency"]
    done = subprocess.run(
        [*command, "-s", str(script), f"http://127.0.0.1:{port}{PATH}"], capture_output=True, text=True, check=True
    )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        sys.exit(f"Error: requests failed:\n{done.stdout}")
    found = {name: re.search(rf"{name}\s+([\d.]+)(us|ms|s)?", done.stdout) for name in ("Requests/sec:", "50%", "99%")}
    rate, median, p99 = (float(m.group(1)) * {"us": 1e-3, "s": 1e3}.get(m.group(2), 1) for m in found.values() if m)
    return rate, median, p99


def _lua_body(size: int) -> str:
    return f'string.rep("x", {size})' if size else f"'{BODY}'"


def _print(results: dict[str, list[tuple[float, float, float]]], options: argparse.Namespace) -> None:
    medians = {
        proxy: [statistics.median(column) for column in zip(*rows, strict=True)] for proxy, rows in results.items()
    }
    print(
        f"{options.connections} connections, {options.rounds} rounds of {options.seconds:g} s, "
        f"{options.models} model(s) in the gateway's table"
    )
    print(f"{'':12}{'requests/s':>12}{'p50 ms':>10}{'p99 ms':>10}{'of HAProxy':>12}")
    for proxy, (rate, median, p99) in medians.items():
        print(f"{proxy:12}{rate:12.0f}{median:10.3f}{p99:10.3f}{rate / medians['haproxy'][0]:12.2f}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
