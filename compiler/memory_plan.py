"""Where every tensor of a tiled module lies in global memory.

Weights and states have an address for each resolved key. Activations live in *frames*: a function's
frame holds the results of its launches and calls, placed by liveness so that dead tensors make
room, and a called function's frame stands above its caller's, as on a stack. The caller says where
arguments are and where results go, so a layer's frame is planned once however often it is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Attribute, Block, OpResult, SSAValue

from tilewright.backends.chip import Chip
from tilewright.dialects.element_types import ElementType, element_of
from tilewright.dialects.errors import FitError, IRError, UnsupportedError
from tilewright.dialects.memory_types import align_up
from tilewright.dialects.quantization import DEFAULT_SCHEME
from tilewright.dialects.scopes import functions_of
from tilewright.dialects.tpu import CallOp, LaunchOp, StateOp, WeightOp
from tilewright.passes.views import view_of


@dataclass(frozen=True)
class WeightSlot:
    """A tensor of the artifact's weight file and its place in global memory."""

    name: str
    """Key in the artifact (`weight_name`)."""
    key: str
    """Key in the source container."""
    form: str
    transposed: bool
    element: ElementType
    shape: tuple[int, ...]
    address: int
    scheme: str = DEFAULT_SCHEME
    """Of all forms but `dense`."""
    bias: str | None = None
    """Key of the bias that a `requant` takes in."""

    @property
    def size_bytes(self) -> int:
        return prod(self.shape) * self.element.size_bytes


@dataclass(frozen=True)
class TensorSlot:
    """A tensor's place: of a state, which lives between calls, or of an entry's input or output."""

    name: str
    element: ElementType
    shape: tuple[int, ...]
    address: int

    @property
    def size_bytes(self) -> int:
        return prod(self.shape) * self.element.size_bytes


@dataclass(frozen=True)
class Between:
    """What the calls of a chain hand on: a buffer that takes turns with that of its result."""

    result: SSAValue

    @property
    def type(self) -> Attribute:
        return self.result.type


FrameKey: TypeAlias = SSAValue | Between


def between(result: SSAValue) -> Between:
    """The second buffer of a chain's `result`."""
    return Between(result)


@dataclass(frozen=True)
class Frame:
    """A function's activations: byte offsets of the values that have a buffer of their own."""

    offsets: dict[FrameKey, int]
    size_bytes: int


@dataclass(frozen=True)
class MemoryPlan:
    """Addresses of everything in global memory. The frames of entry functions start at `arena`."""

    weights: dict[str, WeightSlot]
    states: dict[str, TensorSlot]
    inputs: dict[str, tuple[TensorSlot, ...]]
    outputs: dict[str, tuple[TensorSlot, ...]]
    frames: dict[str, Frame]
    arena: int
    arena_bytes: int
    base: int
    end: int

    @property
    def used_bytes(self) -> int:
        return self.end - self.base


def entry_functions(module: ModuleOp) -> list[func.FuncOp]:
    """The functions that can be run: neither private nor kernels."""
    return [
        op
        for op in module.ops
        if isinstance(op, func.FuncOp)
        and "tpu.kernel" not in op.attributes
        and not (op.sym_visibility is not None and op.sym_visibility.data == "private")
    ]


def weight_name(
    key: str, form: str, *, transposed: bool = False, scheme: str = DEFAULT_SCHEME
) -> str:
    """The artifact's name for a form of the source tensor `key`: `w`, `w.transposed`, `w.codes` of
    the default scheme, `w.w4a16.codes` of another."""
    if form == "dense":
        return f"{key}.transposed" if transposed else key
    return f"{key}.{form}" if scheme == DEFAULT_SCHEME else f"{key}.{scheme}.{form}"


def weight_name_of(op: WeightOp, key: str | None = None) -> str:
    """The artifact's name for what a `tpu.Weight` holds, relative to its scope; or for the resolved
    `key`."""
    return weight_name(
        op.key.data if key is None else key,
        op.form.data,
        transposed=op.transposed is not None,
        scheme=op.scheme_name,
    )


def tensor_bytes(value: FrameKey) -> int:
    """Bytes of a tensor value."""
    assert isinstance(value.type, TensorType)
    return prod(value.type.get_shape()) * element_of(value.type).size_bytes


def plan_memory(module: ModuleOp, chip: Chip, *, check_fit: bool = True) -> MemoryPlan:
    """Place every tensor of a module that `tile-for-local-memory` has tiled.

    Raises `FitError` if the chip's global memory is too small (by how many bytes; not asked where
    `check_fit` is off), `IRError` if a function returns a value that it does not compute,
    or one value twice, `UnsupportedError` if it returns a part of one.
    """
    cursor = chip.global_base

    def take(size_bytes: int) -> int:
        nonlocal cursor
        address = cursor
        cursor = align_up(address + max(size_bytes, 1), chip.global_alignment)
        return address

    entries = entry_functions(module)
    weight_ops, state_ops = _collect(module, entries)
    weights: dict[str, WeightSlot] = {}
    for name in sorted(weight_ops):
        op, scope = weight_ops[name]
        shape, element = _shape_of(op.results[0])
        weights[name] = WeightSlot(
            name,
            scope + op.key.data,
            op.form.data,
            op.transposed is not None,
            element,
            shape,
            take(prod(shape) * element.size_bytes),
            op.scheme_name,
            None if op.bias is None else scope + op.bias.data,
        )
    states: dict[str, TensorSlot] = {}
    for name in sorted(state_ops):
        shape, element = _shape_of(state_ops[name].results[0])
        states[name] = TensorSlot(name, element, shape, take(prod(shape) * element.size_bytes))
    inputs: dict[str, tuple[TensorSlot, ...]] = {}
    outputs: dict[str, tuple[TensorSlot, ...]] = {}
    for function in entries:
        name = function.sym_name.data
        arguments, results = function.body.block.args, returned_values(function)
        taken: set[str] = set()
        inputs[name] = tuple(
            TensorSlot(
                port_name,
                element_of(value.type),
                _shape_of(value)[0],
                take(tensor_bytes(value)),
            )
            for port_name, value in zip(
                _port_names(arguments, "input", taken), arguments, strict=True
            )
        )
        outputs[name] = tuple(
            TensorSlot(
                port_name,
                element_of(value.type),
                _shape_of(value)[0],
                take(tensor_bytes(value)),
            )
            for port_name, value in zip(_port_names(results, "output", taken), results, strict=True)
        )
    frames = {
        function.sym_name.data: _plan_frame(function, chip)
        for function in module.ops
        if isinstance(function, func.FuncOp) and "tpu.kernel" not in function.attributes
    }
    depths: dict[str, int] = {}
    functions = {f.sym_name.data: f for f in module.ops if isinstance(f, func.FuncOp)}
    arena_bytes = max((_stack_bytes(functions, frames, f, depths) for f in entries), default=0)
    arena = take(arena_bytes)
    used = cursor - chip.global_base
    if check_fit and used > chip.global_bytes:
        heaviest = sum(slot.size_bytes for slot in weights.values())
        raise FitError(
            f"the model does not fit the global memory of {chip.name}: "
            f"{used - chip.global_bytes:,} bytes too many",
            why=f"it needs {used:,} of {chip.global_bytes:,} bytes ({heaviest:,} for weights, "
            f"{sum(s.size_bytes for s in states.values()):,} for the KV cache, "
            f"{arena_bytes:,} for activations)",
            hint="quantize the weights (--quant w8a16 or w4a16, --quant-head) or shorten --seq",
        )
    return MemoryPlan(
        weights, states, inputs, outputs, frames, arena, arena_bytes, chip.global_base, cursor
    )


def _port_names(values: Sequence[SSAValue], kind: str, taken: set[str]) -> list[str]:
    """A name for each port: its value's where it has one, different from those in `taken`."""
    names: list[str] = []
    for index, value in enumerate(values):
        name = value.name_hint or f"{kind}_{index}"
        if name in taken:
            name = f"{name}_{kind}_{index}"
        taken.add(name)
        names.append(name)
    return names


def returned_values(function: func.FuncOp) -> Sequence[SSAValue]:
    """The operands of a function's return."""
    last = function.body.block.last_op
    assert isinstance(last, func.ReturnOp)
    return tuple(last.arguments)


def _shape_of(value: SSAValue) -> tuple[tuple[int, ...], ElementType]:
    assert isinstance(value.type, TensorType)
    return tuple(value.type.get_shape()), element_of(value.type)


@dataclass(frozen=True)
class _References:
    """What a function names: its weights (with artifact names under its scope), states, calls."""

    weights: tuple[tuple[WeightOp, str], ...]
    states: tuple[StateOp, ...]
    calls: tuple[CallOp, ...]

    @staticmethod
    def of(function: func.FuncOp) -> _References:
        ops = list(function.body.block.ops)
        return _References(
            tuple((op, weight_name_of(op)) for op in ops if isinstance(op, WeightOp)),
            tuple(op for op in ops if isinstance(op, StateOp)),
            tuple(op for op in ops if isinstance(op, CallOp)),
        )


def _collect(
    module: ModuleOp, entries: Sequence[func.FuncOp]
) -> tuple[dict[str, tuple[WeightOp, str]], dict[str, StateOp]]:
    weights: dict[str, tuple[WeightOp, str]] = {}
    states: dict[str, StateOp] = {}
    functions = functions_of(module)
    references: dict[str, _References] = {}

    def visit(name: str, scope: str) -> None:
        if name not in references:
            references[name] = _References.of(functions[name])
        for op, suffix in references[name].weights:
            first, first_scope = weights.setdefault(scope + suffix, (op, scope))
            if first is not op:
                _check_same(scope + suffix, (first, first_scope), (op, scope))
        for op in references[name].states:
            states.setdefault(scope + op.key.data, op)
        for op in references[name].calls:
            for inner in op.scope_names:
                visit(op.callee.string_value(), scope + inner)

    for function in entries:
        visit(function.sym_name.data, "")
    return weights, states


def _check_same(name: str, first: tuple[WeightOp, str], other: tuple[WeightOp, str]) -> None:
    """Raise `IRError` where two ops, with their scopes, want different tensors of one name."""
    types = [op.results[0].type for op, _ in (first, other)]
    if types[0] != types[1]:
        raise IRError(f"weight {name!r} is used as {types[0]} and as {types[1]}")
    if first[0].transposed != other[0].transposed:
        raise IRError(
            f"weight {name!r} is used as it is and transposed",
            why="the parts of a quantized matrix belong to one orientation: scales and groups "
            "differ",
        )
    biases = [None if op.bias is None else scope + op.bias.data for op, scope in (first, other)]
    if biases[0] != biases[1]:
        raise IRError(
            f"weight {name!r} is used with the biases {biases[0]!r} and {biases[1]!r}",
            why="the bias is a part of an int8 layer's table of requantization",
        )


def _plan_frame(function: func.FuncOp, chip: Chip) -> Frame:
    block = function.body.block
    results = returned_values(function)
    returned = {view_of(value).root for value in results}
    if len(returned) < len(results):
        raise IRError(
            f"function @{function.sym_name.data} returns one value twice",
            why="each result has memory of its own, and a launch writes its result once",
            hint="return it once, or compute it anew: top.AddConst %x {value = 0}",
        )
    for value in returned:
        if not _is_computed(value):
            raise IRError(
                f"function @{function.sym_name.data} returns a value that it does not compute",
                why="results are written by a launch or a call of the function itself",
            )
    for result in results:
        part, whole = tensor_bytes(result), tensor_bytes(view_of(result).root)
        if part != whole:
            raise UnsupportedError(
                f"function @{function.sym_name.data} returns a part of a value",
                why=f"{part:,} of the {whole:,} bytes that are written, in the place of the result",
                hint="return the whole value, or compute something with the part",
            )
    intervals = _live_intervals(block, returned)
    offsets: dict[FrameKey, int] = {}
    placed: list[tuple[int, int, int, int]] = []
    size = 0
    sizes = {value: tensor_bytes(value) for value in intervals}
    for value, (start, stop) in sorted(
        intervals.items(), key=lambda item: (-sizes[item[0]], item[1])
    ):
        length = align_up(sizes[value], chip.global_alignment)
        offset = 0
        for low, high in sorted(
            (low, high) for low, high, first, last in placed if first <= stop and start <= last
        ):
            if low < offset + length and offset < high:
                offset = high
        placed.append((offset, offset + length, start, stop))
        offsets[value] = offset
        size = max(size, offset + length)
    return Frame(offsets, size)


def _is_computed(value: SSAValue) -> bool:
    return isinstance(value, OpResult) and isinstance(value.op, LaunchOp | CallOp)


def _live_intervals(block: Block, returned: set[SSAValue]) -> dict[FrameKey, tuple[int, int]]:
    """First and last op index at which each value with a frame buffer is in use."""
    intervals: dict[FrameKey, tuple[int, int]] = {}
    for index, op in enumerate(block.ops):
        for operand in op.operands:
            root = view_of(operand).root
            if root in intervals:
                intervals[root] = (intervals[root][0], index)
        if isinstance(op, LaunchOp | CallOp):
            for result in op.results:
                if view_of(result).root is result and result not in returned:
                    intervals[result] = (index, index)
        if isinstance(op, CallOp) and len(op.scopes) > 1:
            intervals.update({between(result): (index, index) for result in op.results})
    return intervals


def _stack_bytes(
    functions: dict[str, func.FuncOp],
    frames: dict[str, Frame],
    function: func.FuncOp,
    depths: dict[str, int],
) -> int:
    name = function.sym_name.data
    if name not in depths:
        callees = {
            op.callee.string_value() for op in function.body.block.ops if isinstance(op, CallOp)
        }
        above = [_stack_bytes(functions, frames, functions[c], depths) for c in sorted(callees)]
        depths[name] = frames[name].size_bytes + max(above, default=0)
    return depths[name]
