"""BentoML: one service, one worker, no access log."""

import bentoml
from common import Model


@bentoml.service(name="iris", workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Iris:
    def __init__(self):
        self.model = Model()

    @bentoml.api
    def predict(self, instances: list[list[float]]) -> list[int]:
        return self.model.predict(instances).tolist()
