"""Pictures of 224x224x3 FP32 through the gateway, as binary tensors and as JSON: `make bench-tensors`.

The model takes each picture's mean, so that what is measured is the way there. MLServer gets the same JSON. The bars:
binary is at least 5 times our own JSON and 3 times MLServer's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.gateway.figures import AT_LEAST, Bar
from benchmarks.gateway.wrk import LoadError
from benchmarks.server import load
from benchmarks.server.lineup import PEERS_DIR, Running, StartError, ours_running, peer_running
from benchmarks.server.load import Figures
from benchmarks.server.peers import MLSERVER_IMAGE, install, is_installed

SHAPE: Final = (1, 224, 224, 3)
PATH: Final = "/v2/models/iris/infer"
MODEL: Final = """
class Model:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 224, 224, 3]}]
    outputs = [{"name": "mean", "datatype": "FP32", "shape": [-1]}]

    def load(self, path):
        pass

    def predict(self, inputs):
        return inputs["x"].mean(axis=(1, 2, 3))
"""
MANIFEST: Final = {
    "versions": {"1": {"source": "image", "backend": "python", "resources": {"cpus": 2, "memory": "1Gi"}}},
}


def main() -> int:
    options = _options()
    picture = np.random.default_rng(7).random(SHAPE, dtype=np.float32)
    tensor = {"name": "x", "shape": list(SHAPE), "datatype": "FP32"}
    as_json = json.dumps({"inputs": [{**tensor, "data": picture.ravel().tolist()}]}).encode()
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": picture.nbytes}}]}).encode()
    as_binary = head + picture.tobytes()
    print(f"one picture: {len(as_json) / 1e6:.2f} MB as JSON, {len(as_binary) / 1e6:.2f} MB as a binary tensor")
    with tempfile.TemporaryDirectory(prefix="bench-tensors-") as directory:
        (Path(directory) / "image").mkdir()
        (Path(directory) / "image" / "model.py").write_text(MODEL)
        with ours_running(MANIFEST, PATH, as_json, Path(directory)) as running:
            ours_json = _measure("Modelfleet, JSON", running, options)
            binary = {"BENCH_TYPE": "application/octet-stream", "BENCH_HEAD_BYTES": str(len(head))}
            ours = _measure("Modelfleet, binary", replace(running, body=as_binary, fields=binary), options)
    bars = [Bar("binary over our own JSON", ours.rate_per_s / ours_json.rate_per_s, AT_LEAST, 5)]
    if theirs := _mlserver(as_json, options):
        bars.append(Bar("binary over MLServer's JSON", ours.rate_per_s / theirs.rate_per_s, AT_LEAST, 3))
    print("\n".join(bar.render() for bar in bars))
    return 0 if all(bar.is_met for bar in bars) else 1


def _mlserver(body: bytes, options: argparse.Namespace) -> Figures | None:
    if not is_installed(PEERS_DIR, MLSERVER_IMAGE):
        install(PEERS_DIR, MLSERVER_IMAGE)
    try:
        with peer_running(MLSERVER_IMAGE, "image", body) as running:
            return _measure("MLServer, JSON", running, options)
    except (StartError, LoadError) as exc:
        print(f"MLServer: left out: {exc}")
        return None


def _measure(name: str, running: Running, options: argparse.Namespace) -> Figures:
    figures = load.measure(running, options.connections, seconds=options.seconds, warm_s=2, runs=options.runs)
    print(
        f"{name:<20}{figures.rate_per_s:>8.1f}/s  p50 {figures.p50_ms:>8.2f} ms  p99 {figures.p99_ms:>8.2f} ms",
        flush=True,
    )
    return figures


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=5, help="of one run (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="(default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
