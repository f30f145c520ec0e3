"""PyTriton: NVIDIA's Triton with its dynamic batcher, and one Python instance."""

import os

import numpy as np
from common import Model
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

model = Model()
port = int(os.environ["BENCH_PORT"])


@batch
def infer(x):
    return [np.asarray(model.predict(x), dtype=np.int64).reshape(-1, 1)]


ports = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
with Triton(config=TritonConfig(**ports, http_address="127.0.0.1", grpc_address="127.0.0.1")) as triton:
    triton.bind(
        model_name="iris",
        infer_func=infer,
        inputs=[Tensor(name="x", dtype=np.float64, shape=(4,))],
        outputs=[Tensor(name="y", dtype=np.int64, shape=(1,))],
        config=ModelConfig(batching=True, max_batch_size=64, batcher=DynamicBatcher()),
        strict=True,
    )
    triton.serve()
