"""The digits model served, beside onnxruntime called in a loop: `make bench-onnx`.

The server answers binary requests of ROWS rows from several connections and forms its batches; then the same session,
with the same threads, computes batches of the mean size that the server formed, one after the other, with nothing
around them. The figure is rows/s of the server over rows/s of the loop. A request of few rows costs its HTTP and its
JSON many times what such a small model costs, so that the figure says something of large requests alone: all are shown.
"""

from __future__ import annotations

import argparse
import sys
import time
import urllib.request
from typing import Any, Final

import numpy as np

from benchmarks.fleet import ROOT
from benchmarks.gateway.figures import AT_LEAST, Bar
from benchmarks.server import closed_loop
from benchmarks.server.replica import server

DIGITS: Final = ROOT / "configs/models/digits/1"
LEAST: Final = 0.75
# The bar holds from here on: fewer rows are dearer to carry than to compute.
FULL_ROWS: Final = 256


def main() -> int:
    import onnxruntime

    options = _options()
    session = onnxruntime.InferenceSession(str(DIGITS / "model.onnx"), _one_thread(onnxruntime))
    bars = []
    print(f"{'rows a request':>14} {'rows a batch':>12} {'served rows/s':>14} {'loop rows/s':>14} {'ratio':>7}")
    with server(DIGITS, "auto", backend="onnx") as port:
        for rows in options.rows:
            served, batch = _serve(port, rows, options)
            alone = _loop(session, max(1, round(batch)), options.seconds)
            print(f"{rows:>14} {batch:>12.1f} {served:>14.0f} {alone:>14.0f} {served / alone:>7.2f}", flush=True)
            if rows >= FULL_ROWS:
                bars.append(Bar(f"{rows} rows a request, rows/s over a bare loop's", served / alone, AT_LEAST, LEAST))
    print("\n".join(bar.render() for bar in bars))
    return 0 if all(bar.is_met for bar in bars) else 1


def _serve(port: int, rows: int, options: argparse.Namespace) -> tuple[float, float]:
    """Rows a second, and the mean size of the batches."""
    request = _request(rows)
    closed_loop.run(port, request, options.connections, 1.0)  # the limit of a batch is learned
    before = _batches(port)
    result = closed_loop.run(port, request, options.connections, options.seconds)
    after = _batches(port)
    return result.per_s * rows, (after[0] - before[0]) / max(1.0, after[1] - before[1])


def _request(rows: int) -> bytes:
    pictures = np.random.default_rng(7).integers(0, 17, (rows, 64)).astype(np.float32)
    head = (
        f'{{"inputs":[{{"name":"image","shape":[{rows},64],"datatype":"FP32",'
        f'"parameters":{{"binary_data_size":{pictures.nbytes}}}}}],"parameters":{{"binary_data_output":true}}}}'
    ).encode()
    return closed_loop.post(
        "/v2/models/bench/infer",
        head + pictures.tobytes(),
        "application/octet-stream",
        {"inference-header-content-length": str(len(head))},
    )


def _loop(session: Any, rows: int, seconds: float) -> float:
    batch = {"image": np.random.default_rng(7).integers(0, 17, (rows, 64)).astype(np.float32)}
    names = [output.name for output in session.get_outputs()]
    for _ in range(100):
        session.run(names, batch)
    began, calls = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < seconds:
        session.run(names, batch)
        calls += 1
    return calls * rows / took


def _batches(port: int) -> tuple[float, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        page = answer.read().decode().splitlines()
    rows = next(line for line in page if line.startswith("modelfleet_batch_size_sum"))
    count = next(line for line in page if line.startswith("modelfleet_batch_size_count"))
    return float(rows.split()[-1]), float(count.split()[-1])


def _one_thread(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 64, 256, 1024])
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
