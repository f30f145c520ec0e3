"""FastAPI: the usual app (pydantic, sync handler), or with BENCH_ASYNC=1 what a tuned one does (no pydantic, async)."""

import json
import os

from common import Model
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

app = FastAPI()
model = Model()


class Rows(BaseModel):
    instances: list[list[float]]


if os.environ.get("BENCH_ASYNC") == "1":

    @app.post("/predict")
    async def predict(request: Request):
        rows = json.loads(await request.body())["instances"]
        return Response(json.dumps({"predictions": model.predict(rows).tolist()}), media_type="application/json")

else:

    @app.post("/predict")
    def predict(body: Rows):
        return {"predictions": model.predict(body.instances).tolist()}
