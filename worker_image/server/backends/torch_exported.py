"""Exported programs (`torch.export.save`): names, types, shapes and which dimension is free are the program's own.

PyTorch runs such a program through a module that checks each call against the assumptions of its export, which costs
more than a small model itself: 111 µs a call, 43 µs without (three small linear layers, one core). So each set of
shapes is checked the first time it comes, and known ones go straight to the program's graph.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from worker_image.server.backends.base import unreadable
from worker_image.server.backends.torch_program import DATATYPES, load_with_operators, named
from worker_image.server.tensors import TensorSpec

# Free dimensions could make any number of them; past this many the check is made each time.
MOST_SHAPES = 4096
_ADVICE = "it may be truncated or of another format; write it again with torch.export.save()"


def read(file: Path, device: str, names: tuple[str, ...] = ()) -> Exported:
    """`names` of the outputs, as their author wants them called."""
    program = load_with_operators(file, lambda: _load(file), _ADVICE)
    if device != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return Exported(file, program, names)


class Exported:
    def __init__(self, file: Path, program: Any, names: tuple[str, ...]) -> None:
        values = {node.name: node.meta.get("val") for node in program.graph.nodes}
        self._arguments = _user_inputs(file, program)
        self._checked = program.module()
        self._in_spec = program.call_spec.in_spec
        self._places = named(_places(program), names)
        self._direct = _direct(program)
        self._known: set[tuple[Any, ...]] = set()

        tensors = [each.name for each in self._arguments if isinstance(each, TensorArgument)]
        self.names = tuple(tensors)
        self.inputs = tuple(_spec(name, values[name]) for name in tensors)
        given = {name: values.get(argument.name) for name, argument in named(_outputs(program), names).items()}
        self.outputs = tuple(_spec(name, value) for name, value in given.items())
        rows = _batch([values[name] for name in tensors], list(given.values()))
        self.joins_rows = rows is not None
        self.most_rows = _upper(program, rows)

    def run(self, tensors: list[Any]) -> dict[str, Any]:
        shapes = tuple(tensor.shape for tensor in tensors)
        if self._direct is not None and shapes in self._known:
            flat = self._direct(*tensors)
        else:
            flat = self._run_checked(tensors)
            if len(self._known) < MOST_SHAPES:
                self._known.add(shapes)
        return {name: torch.as_tensor(flat[place]) for name, place in self._places.items()}

    def _run_checked(self, tensors: list[Any]) -> list[Any]:
        given = iter(tensors)
        leaves = [each.value if isinstance(each, ConstantArgument) else next(given) for each in self._arguments]
        args, kwargs = pytree.tree_unflatten(leaves, self._in_spec)
        try:
            return list(pytree.tree_leaves(self._checked(*args, **kwargs), is_leaf=lambda leaf: leaf is None))
        except AssertionError as exc:
            shapes = ", ".join(f"{name!r} {list(each.shape)}" for name, each in zip(self.names, tensors, strict=True))
            raise ValueError(f"shapes {shapes} are not those that the model was exported for ({exc})") from exc


def _load(file: Path) -> Any:
    """`torch.export.load` logs why it failed and raises something that says to look there."""
    told = _Cause()
    logger = logging.getLogger("torch.export")
    logger.addFilter(told)
    try:
        return torch.export.load(file)
    except Exception as exc:
        raise told.cause or exc from exc
    finally:
        logger.removeFilter(told)


class _Cause(logging.Filter):
    """Keeps the exception that was logged, and the line out of the log."""

    cause: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        self.cause = record.exc_info[1] if record.exc_info else self.cause
        return False


def _user_inputs(file: Path, program: Any) -> list[Any]:
    found = [spec.arg for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    for argument in found:
        if not isinstance(argument, (TensorArgument, ConstantArgument)):
            problem = f"takes {argument.name!r}, which is no tensor ({type(argument).__name__})"
            raise unreadable(file, problem, "export it with tensors as inputs alone")
    return found


def _outputs(program: Any) -> Any:
    """The program's answer, with the tensors' descriptions for the tensors and None for everything else."""
    specs = [spec for spec in program.graph_signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
    leaves = [spec.arg if isinstance(spec.arg, TensorArgument) else None for spec in specs]
    return pytree.tree_unflatten(leaves, program.call_spec.out_spec)


def _places(program: Any) -> Any:
    """The program's answer, with the place among its flat outputs for each tensor."""
    specs = [spec for spec in program.graph_signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
    leaves = [place if isinstance(spec.arg, TensorArgument) else None for place, spec in enumerate(specs)]
    return pytree.tree_unflatten(leaves, program.call_spec.out_spec)


def _direct(program: Any) -> Any:
    """The program's graph as a function of its input tensors to its flat outputs; None where it does more than that."""
    signature = program.graph_signature
    if any(spec.kind is not OutputKind.USER_OUTPUT for spec in signature.output_specs):
        return None  # it also changes buffers or inputs, which the checked way puts back in their places
    lifted = []
    for spec in signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            held = program.state_dict if spec.target in program.state_dict else program.constants
            lifted.append(held[spec.target].detach())
        elif spec.kind is not InputKind.USER_INPUT or not isinstance(spec.arg, TensorArgument):
            return None
    forward = program.graph_module.forward
    return lambda *tensors: forward(*lifted, *tensors)


def _spec(name: str, value: Any) -> TensorSpec:
    shape = tuple(length if isinstance(length, int) else -1 for length in value.shape)
    return TensorSpec(name, DATATYPES[value.dtype], shape)


def _batch(inputs: list[Any], outputs: list[Any]) -> str | None:
    """The symbol of the rows: the first dimension of all inputs and outputs, and no other one of an input."""
    firsts = {_symbol(value.shape[0]) if len(value.shape) else None for value in [*inputs, *outputs]}
    others = {_symbol(length) for value in inputs for length in value.shape[1:]}
    return firsts.pop() if len(firsts) == 1 and not firsts & (others | {None}) else None


def _symbol(length: Any) -> str | None:
    return None if isinstance(length, int) else str(length)


def _upper(program: Any, symbol: str | None) -> int | None:
    for each, bounds in program.range_constraints.items():
        if str(each) == symbol and bounds.upper.is_Integer:
            return int(bounds.upper)
    return None
