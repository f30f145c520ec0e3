"""LitServe: one worker, as its documentation starts one."""

import os

import litserve
from common import Model


class Api(litserve.LitAPI):
    def setup(self, device):
        self.model = Model()

    def decode_request(self, request):
        return request["instances"]

    def predict(self, x):
        return self.model.predict(x).tolist()

    def encode_response(self, output):
        return {"predictions": output}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", devices=1, workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), generate_client_file=False, log_level="warning")
