"""PyTorch models that hold their own code: TorchScript (`.pt`, `.pth`) and exported programs (`.pt2`).

Owns what the two have in common: the choice of the file and of the device (a GPU when the container has one), numpy
arrays to tensors and back. `torch_archive.py` says what a file is, `torch_script.py` and `torch_exported.py` run it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from worker_image.server import declared, log
from worker_image.server.backends import torch_archive
from worker_image.server.backends.base import blank, find_file
from worker_image.server.backends.torch_program import Program
from worker_image.server.bfloat16 import BF16
from worker_image.server.tensors import Signature, Tensor, Tensors

SUFFIXES = (".pt2", ".pt", ".pth")


def load(directory: Path, threads: int) -> PytorchModel:
    file = find_file(directory, SUFFIXES, "pytorch")
    kind = torch_archive.kind_of(file)
    limit_threads(threads)
    device = choose_device()
    return PytorchModel(_program(kind, file, device), kind, device)


def limit_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:  # it may be set once only
        torch.set_num_interop_threads(1)


def choose_device() -> str:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = {"name": torch.cuda.get_device_name()} if device == "cuda" else {}
    log.event("device chosen", device=device, torch=torch.__version__, threads=torch.get_num_threads(), **name)
    return device


class PytorchModel:
    def __init__(self, program: Program, kind: str, device: str) -> None:
        self._program = program
        self._device = device
        # They arrive as FP32: see `bfloat16.py`.
        self._bf16 = frozenset(spec.name for spec in program.inputs if spec.datatype == "BF16")
        self.is_steady = bool(program.inputs) and all(-1 not in spec.shape[1:] for spec in program.inputs)
        self.signature = Signature(
            platform=f"pytorch_{kind}",
            inputs=program.inputs,
            outputs=program.outputs,
            default_outputs=tuple(spec.name for spec in program.outputs),
            joins_rows=program.joins_rows,
            facts=(("device", device),),
        )

    def predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        tensors = self._tensors(inputs)
        try:
            with torch.inference_mode():
                answer = self._run(tensors)
        except RuntimeError as exc:
            if "allocate memory" in str(exc) or "out of memory" in str(exc):
                raise MemoryError(str(exc)) from exc
            raise
        if missing := [name for name in outputs if name not in answer]:
            raise RuntimeError(f"the model gave {', '.join(map(repr, answer))}, without the output {missing[0]!r}")
        return {name: to_numpy(answer[name]) for name in outputs or answer}

    def warmup(self) -> Tensors | None:
        return {spec.name: blank(spec) for spec in self.signature.inputs} or None

    def _run(self, tensors: list[Any]) -> dict[str, Any]:
        """In several calls when the model was exported for fewer rows than these."""
        most = self._program.most_rows
        if most is None or len(tensors[0]) <= most:
            return self._program.run(tensors)
        parts = [self._program.run(list(part)) for part in zip(*(each.split(most) for each in tensors), strict=True)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _tensors(self, inputs: Tensors) -> list[Any]:
        names = self._program.names
        if len(inputs) == 1 and len(names) == 1:
            return [self._tensor(names[0], next(iter(inputs.values())))]
        if set(inputs) != set(names):
            # Only a model without a signature gets here: else the names were checked before.
            listed = ", ".join(map(repr, names))
            raise ValueError(f"inputs are {', '.join(map(repr, inputs))}; the model's forward() takes {listed}")
        return [self._tensor(name, inputs[name]) for name in names]

    def _tensor(self, name: str, array: Tensor) -> Any:
        if array.dtype.kind not in "biuf":
            raise ValueError(f"input {name!r} holds text; PyTorch's tensors hold numbers alone")
        array = np.ascontiguousarray(array)
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy()).to(self._device)
        return tensor.bfloat16() if name in self._bf16 else tensor


def to_numpy(tensor: Any) -> Tensor:
    found = tensor.detach().cpu()
    if found.dtype == torch.bfloat16:
        return np.asarray(found.view(torch.uint16).numpy()).view(BF16)
    return np.asarray(found.numpy())


def _program(kind: str, file: Path, device: str) -> Program:
    """Either imports what only its own kind of file needs: exported programs take 2 s to import their reader."""
    said = declared.read(file.parent)
    if kind == torch_archive.EXPORTED:
        from worker_image.server.backends import torch_exported

        return torch_exported.read(file, device, tuple(spec.name for spec in said.outputs))
    from worker_image.server.backends import torch_script

    return torch_script.read(file, said, device)
