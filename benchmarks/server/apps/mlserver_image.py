"""MLServer: a custom runtime for the image model, with its own numpy codec."""

from common import Model
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Image(MLModel):
    async def load(self):
        self.model = Model()
        return True

    async def predict(self, payload):
        rows = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        answer = NumpyCodec.encode_output("mean", self.model.predict(rows))
        return InferenceResponse(model_name=self.name, outputs=[answer])
