"""KServe's model server, alone, with its Open Inference Protocol."""

import argparse
import os
import uuid

import kserve
from common import Model


class Iris(kserve.Model):
    def load(self):
        self.model = Model()
        self.ready = True
        return True

    def predict(self, payload, headers=None, response_headers=None):
        answer = self.model.predict(payload.inputs[0].as_numpy())
        output = kserve.InferOutput(name="predict", shape=list(answer.shape), datatype="INT64", data=answer.tolist())
        # Its newest release answers 500 to a request without an id unless the model makes one.
        request_id = payload.id or uuid.uuid4().hex
        return kserve.InferResponse(response_id=request_id, model_name=self.name, infer_outputs=[output])


if __name__ == "__main__":
    argparse.ArgumentParser(parents=[kserve.model_server.parser]).parse_known_args()
    iris = Iris("iris")
    iris.load()
    kserve.ModelServer(http_port=int(os.environ["BENCH_PORT"]), workers=1, enable_grpc=False).start([iris])
