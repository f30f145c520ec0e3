"""TorchScript (`torch.jit.save`): names of arguments are the program's own; it does not say their types and shapes.

Those come from `signature.json`, or from a recorded request (`warmup.json`): then one more run with its rows twice
shows whether the first dimension is a batch. With neither, the model takes whatever comes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from worker_image.server import declared, log
from worker_image.server import recorded as requests
from worker_image.server.backends.base import unreadable
from worker_image.server.backends.torch_program import load_with_operators, named
from worker_image.server.tensors import Tensors, TensorSpec, datatype_of, rows_of

_ADVICE = "it may be truncated or of another format; write it again with torch.jit.save()"


def read(file: Path, said: declared.Declared, device: str) -> Script:
    module = load_with_operators(file, lambda: torch.jit.load(file, map_location=device).eval(), _ADVICE)
    arguments = _arguments(file, module)
    names = tuple(spec.name for spec in said.outputs)
    if said.inputs:
        return Script(module, _in_order(file, arguments, said.inputs), said.inputs, names)
    recorded = next((each.request.inputs for each in requests.read(file.parent)), None)
    if recorded is None:
        reason = f"TorchScript does not say what it takes; put it into {declared.FILE} beside the model"
        log.event("signature unknown", level="warning", file=str(file), reason=reason)
        return Script(module, dict(zip(arguments, arguments, strict=True)), (), names)
    fixed = tuple(TensorSpec(name, datatype_of(array.dtype), array.shape) for name, array in recorded.items())
    script = Script(module, _in_order(file, arguments, fixed), fixed, names)
    if _is_batch(script, recorded, device):
        script.inputs = tuple(TensorSpec(spec.name, spec.datatype, (-1, *spec.shape[1:])) for spec in fixed)
    return script


class Script:
    """`arguments`: public name to the argument's own. The outputs show themselves in the warm-up."""

    joins_rows = True
    most_rows: int | None = None
    outputs: tuple[TensorSpec, ...] = ()

    def __init__(
        self, module: Any, arguments: dict[str, str], inputs: tuple[TensorSpec, ...], names: tuple[str, ...]
    ) -> None:
        self._module = module
        self._arguments = tuple(arguments.values())
        self._output_names = names
        self.names = tuple(arguments)
        self.inputs = inputs

    def run(self, tensors: list[Any]) -> dict[str, Any]:
        try:
            # Its optimiser works during requests: the second call, and the first of each count of rows, took 7 to 42 ms
            # for a convolution of 0.3 ms, which then was no faster.
            with torch.jit.optimized_execution(False):
                answer = self._module(**dict(zip(self._arguments, tensors, strict=True)))
        except RuntimeError as exc:
            if self.inputs or "allocate memory" in str(exc):
                raise
            # Nobody said which shapes fit, so that these did not is the caller's to know.
            raise ValueError(_last_line(exc)) from exc
        return {name: torch.as_tensor(value) for name, value in named(answer, self._output_names).items()}


def _arguments(file: Path, module: Any) -> list[str]:
    """Those of `forward()` that must be given; each is a tensor."""
    try:
        arguments = module.forward.schema.arguments[1:]
    except (AttributeError, RuntimeError) as exc:
        raise unreadable(file, "has no forward()", "script a module whose forward() takes tensors") from exc
    needed = [each for each in arguments if not each.has_default_value()]
    for each in needed:
        if str(each.type) not in ("Tensor", "Optional[Tensor]"):
            problem = f"forward() takes {each.name!r} as {each.type}"
            raise unreadable(file, problem, "script a module whose forward() takes tensors by name alone")
    return [each.name for each in needed]


def _in_order(file: Path, arguments: list[str], specs: tuple[TensorSpec, ...]) -> dict[str, str]:
    """Which argument each input is: by its name, or by its place where the author calls them otherwise."""
    names = [spec.name for spec in specs]
    if set(names) >= set(arguments):
        return dict(zip(names, names, strict=True))
    if len(names) == len(arguments):
        return dict(zip(names, arguments, strict=True))
    wanted = ", ".join(map(repr, arguments))
    given = ", ".join(map(repr, names))
    problem = f"forward() takes {wanted}; {declared.FILE} or {requests.FILE} says {given}"
    raise unreadable(file, problem, "name one input for each argument")


def _is_batch(script: Script, recorded: Tensors, device: str) -> bool:
    """Whether twice the rows give twice the answers, and the same ones."""
    rows = rows_of(recorded)
    if rows is None or any(array.dtype.kind not in "biuf" for array in recorded.values()):
        return False
    once = [torch.from_numpy(array.copy()).to(device) for array in recorded.values()]
    with torch.inference_mode():
        expected = script.run(once)
        try:
            twice = script.run([torch.cat([tensor, tensor]) for tensor in once])
        except (RuntimeError, ValueError):
            return False
    return all(_repeats(expected[name], tensor, rows) for name, tensor in twice.items())


def _repeats(once: Any, twice: Any, rows: int) -> bool:
    if once.shape[:1] != (rows,) or twice.shape[:1] != (2 * rows,) or once.shape[1:] != twice.shape[1:]:
        return False
    return all(torch.allclose(once, part, rtol=1e-3, atol=1e-4, equal_nan=True) for part in twice.split(rows))


def _last_line(exc: RuntimeError) -> str:
    """The error itself, below PyTorch's own traceback of the script."""
    lines = [line for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__
