"""Ray Serve: one replica. BENCH_ONGOING raises max_ongoing_requests, which its documentation advises for throughput."""

import os
import signal
import sys
import threading

import ray
from common import Model
from ray import serve
from starlette.requests import Request

options = {"num_replicas": 1, "logging_config": {"enable_access_log": False}, "ray_actor_options": {"num_cpus": 0.5}}
if ongoing := os.environ.get("BENCH_ONGOING"):
    options["max_ongoing_requests"] = int(ongoing)


@serve.deployment(**options)
class Iris:
    def __init__(self):
        self.model = Model()

    async def __call__(self, request: Request):
        rows = (await request.json())["instances"]
        return {"predictions": self.model.predict(rows).tolist()}


if __name__ == "__main__":
    ray.init(num_cpus=2, log_to_driver=False)
    address = {"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])}
    serve.start(http_options=address, logging_config={"enable_access_log": False})
    serve.run(Iris.bind(), route_prefix="/predict")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Event().wait()
