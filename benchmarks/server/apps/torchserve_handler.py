"""TorchServe: a handler without torch, which gets what its batcher joined."""

import json

from common import Model


class Handler:
    def initialize(self, context):
        self.model = Model()
        self.initialized = True

    def handle(self, requests, context):
        bodies = [request.get("body") or request.get("data") for request in requests]
        rows = [(json.loads(b) if isinstance(b, (bytes, bytearray)) else b)["instances"][0] for b in bodies]
        return [{"predictions": [int(answer)]} for answer in self.model.predict(rows)]
