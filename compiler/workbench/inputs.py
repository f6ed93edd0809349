"""Inputs made up for any module, on which storage types and quantization change nothing.

Floats are small integers times a power of two, which f16, bf16 and f32 hold exactly. A matrix has
an element of +-127 steps in every row of its int8 codes, so that its scales, the absolute maximum
over 127, are powers of two and its codes exact. So a top module, its tpu module in any dense mode
or w8a16 and its kernels compute the same function of these inputs, and a comparison in float64 sees
nothing but the rounding of float64 (docs/workbench.md). By other schemes a matrix is rounded, the
same at every stage of a tpu module.

What an input must be follows from its uses, traced through calls, views and launches: row indices
stay below the table's rows, cache positions differ, RoPE tables end in cos 1 and sin 0, masks do
not hide a whole row.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from tilewright.compiler.weights.parts import empty_channels, int8_parts
from tilewright.compiler.weights.quantize import quantize_weight
from tilewright.compiler.weights.quantized import QuantizedWeight
from tilewright.compiler.workbench.roles import Role, Roles
from tilewright.dialects import graph, tpu
from tilewright.dialects.element_types import BF16, F32, ElementType
from tilewright.dialects.errors import OptionError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.quantization import DEFAULT_SCHEME, Scheme, parse_scheme
from tilewright.dialects.scopes import functions_of, walk_calls

Array = npt.NDArray[Any]
InputCase = Literal["random", "zeros", "large", "one-hot"]

CASES: tuple[InputCase, ...] = get_args(InputCase)
"""Random values; all activations 0; random ones 32 times as large; a single 1 in each row."""

_STEPS = 32
"""Activations are up to so many steps of `_STEP`: from -2 to 2."""
_STEP = 2.0**-4
_LARGE = 2.0**5
_MASKED = -(2.0**5)
"""exp of it is 1e-14: hidden, and no special value in any type."""
_MASKED_LARGE = -(2.0**15)
_MOST_CODE = 127
_TYPICAL_CODE = 73.0
"""Standard deviation of codes that are uniform from -127 to 127."""
_LEAST_EXPONENT = -14
"""Of a scale: the least normal f16."""
_INT8_RANGES = (127 / 32, 127 / 32)
"""Of inputs and outputs of int8 layers: scales of 2^-5, which activations are multiples of."""
_FREE_INDEX = 16
"""Integers that index nothing stay below it."""


@dataclass(frozen=True)
class _Source:
    """A tensor of the weight container: its shape, and what the model uses it for."""

    shape: tuple[int, ...]
    role: Role


class GeneratedInputs:
    """Inputs, weights and states of every function of a module, and of all modules that passes make
    of it: weights are the same by resolved key, whatever form they are asked for in.

    `seed` and `case` choose the values; equal arguments give equal values.
    """

    def __init__(self, module: ModuleOp, *, seed: int = 0, case: InputCase = "random") -> None:
        if case not in CASES:
            raise OptionError(f"unknown case of inputs {case!r}", hint=f"one of {', '.join(CASES)}")
        self.seed = seed
        self.case: InputCase = case
        self._roles = Roles(module)
        self._sources = _sources(module, self._roles)
        self._arguments = {
            name: tuple(
                self._argument(f"{name}.{index}", value)
                for index, value in enumerate(functions_of(module)[name].body.block.args)
            )
            for name in public_functions(module)
        }
        self._weights: dict[tuple[object, ...], Array] = {}

    @property
    def functions(self) -> tuple[str, ...]:
        """The public functions of the module, in order."""
        return tuple(self._arguments)

    def arguments(self, function: FuncOp) -> list[Array]:
        """An array for each argument of a public function, in the storage types it has now.

        Raises `OptionError` for a function with other arguments than those of the first module.
        """
        name = function.sym_name.data
        made, values = self._arguments.get(name), function.body.block.args
        if made is None or [a.shape for a in made] != [shape_of(value) for value in values]:
            raise OptionError(f"@{name} does not take the arguments that it took at first")
        return [a.astype(storage_of(v).dtype) for a, v in zip(made, values, strict=True)]

    def weight(self, key: str, op: Operation) -> Array:
        """The weight with the resolved `key` in the shape, form and type of a `Weight` op."""
        assert isinstance(op, graph.Weight)
        form, transposed = _form_of(op)
        shape, element = shape_of(op.result), storage_of(op.result)
        if not isinstance(op, tpu.WeightOp):
            return self.stored(key, form, shape, element, transposed)
        scope = key.removesuffix(op.key.data)
        bias = None if op.bias is None else scope + op.bias.data
        return self.stored(key, form, shape, element, transposed, op.scheme_name, bias)

    def stored(
        self,
        key: str,
        form: str,
        shape: tuple[int, ...],
        element: ElementType,
        transposed: bool = False,
        scheme: str = DEFAULT_SCHEME,
        bias: str | None = None,
    ) -> Array:
        """The weight with the resolved `key` in a form, shape and type of a tpu module."""
        made = (key, form, scheme, transposed, shape, element.name)
        if made not in self._weights:
            source = self._sources.get(key)
            if source is None:
                source = _Source(shape[::-1] if transposed else shape, Role("matrix"))
            values = self._dense(key, source)
            values = values.T if transposed else values
            if form != "dense":
                values = self._part(key, form, values, parse_scheme(scheme), bias)
            self._weights[made] = np.ascontiguousarray(values.astype(element.dtype))
        return self._weights[made]

    def _part(self, key: str, form: str, matrix: Array, scheme: Scheme, bias: str | None) -> Array:
        """A part of the quantized `matrix` `[N, K]`. Its scales have the bits of bf16, which the
        other types have too: so codes and scales go together whatever the scales are stored as."""
        made = self._quantized(key, matrix.astype(np.float32), scheme)
        parts = {"codes": made.codes, "scale": made.scale, "zero": made.zero}
        if form not in parts:
            added = None if bias is None else self.stored(bias, "dense", (len(matrix),), F32)
            empty = empty_channels(made.codes)
            parts = dict(int8_parts(key, made.scale, empty, added, {key: _INT8_RANGES}))
        part = parts[form]
        assert part is not None
        return part

    def _quantized(self, key: str, matrix: Array, scheme: Scheme) -> QuantizedWeight:
        element = F32 if scheme.int8_activations else BF16
        return quantize_weight(matrix, scheme, element, name=key)

    def states(self, module: ModuleOp, function: str) -> dict[str, Array]:
        """A state by resolved key, in its storage type, for each that the function reads."""
        states: dict[str, Array] = {}
        for op, scope in walk_calls(module, function):
            if isinstance(op, graph.State):
                key = scope + op.key.data
                values = self._activation(f"state.{key}", shape_of(op.result))
                states[key] = values.astype(storage_of(op.result).dtype)
        return states

    def arrays(self) -> Mapping[str, Array]:
        """The arguments by `function.index`, for a file."""
        return {
            f"{name}.{index}": array
            for name, arrays in self._arguments.items()
            for index, array in enumerate(arrays)
        }

    def _random(self, label: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(label.encode())])

    def _argument(self, label: str, value: SSAValue) -> Array:
        shape, role = shape_of(value), self._roles.of(value)
        if not storage_of(value).is_float:
            return self._indices(label, shape, role)
        if role.kind in ("cos", "sin", "weight of a norm"):
            return self._vector(label, shape, role)
        if role.kind == "mask":
            return self._mask(label, shape)
        values = self._activation(label, shape)
        return np.abs(values) + self._step if role.kind == "positive" else values

    @property
    def _step(self) -> float:
        """What activations are whole multiples of: at most 33 times it, in six bits."""
        return _STEP * (_LARGE if self.case == "large" else 1.0)

    def _activation(self, label: str, shape: Sequence[int]) -> Array:
        if self.case == "zeros":
            return np.zeros(shape)
        if self.case == "one-hot":
            values = np.zeros(shape)
            rows = values.reshape(-1, shape[-1] if shape else 1)
            rows[np.arange(len(rows)), np.arange(len(rows)) % rows.shape[1]] = 1.0
            return values
        steps = self._random(label).integers(-_STEPS, _STEPS + 1, shape)
        return steps * self._step

    def _mask(self, label: str, shape: Sequence[int]) -> Array:
        hidden = self._random(label).random(shape) < 0.5
        rows = hidden.reshape(-1, shape[-1])
        rows[np.arange(len(rows)), np.arange(len(rows)) % rows.shape[1]] = False
        return np.where(hidden, _MASKED_LARGE if self.case == "large" else _MASKED, 0.0)

    def _indices(self, label: str, shape: Sequence[int], role: Role) -> Array:
        limit, random = role.rows or _FREE_INDEX, self._random(label)
        count = int(np.prod(shape))
        if role.distinct and count <= limit:
            places = np.arange(count) if self.case == "zeros" else random.permutation(limit)[:count]
            return places.reshape(shape)
        if self.case == "zeros":
            return np.zeros(shape, np.int64)
        return random.integers(0, limit, shape)

    def _dense(self, key: str, source: _Source) -> Array:
        if source.role.rows is not None:
            return self._indices(f"weight.{key}", source.shape, source.role)
        if source.role.kind in ("cos", "sin", "weight of a norm") or len(source.shape) < 2:
            return self._vector(f"weight.{key}", source.shape, source.role)
        return self._matrix(f"weight.{key}", source.shape, source.role)

    def _vector(self, label: str, shape: Sequence[int], role: Role) -> Array:
        """Factors near 1, angles' cosines and sines, or small terms: 7 significant bits."""
        random = self._random(label)
        if role.kind == "weight of a norm":
            return 1.0 + random.integers(-16, 17, shape) / 64
        if role.kind in ("cos", "sin"):
            values = random.integers(-64, 65, shape) / 64
            values[..., role.rotary_dim :] = 1.0 if role.kind == "cos" else 0.0
            return values
        return random.integers(-_STEPS, _STEPS + 1, shape) / 32

    def _matrix(self, label: str, shape: Sequence[int], role: Role) -> Array:
        """Codes times powers of two, one a channel; products with it keep the size of activations.

        Without a single axis of channels all scales are equal, and rows and columns hold a 127.
        """
        random = self._random(label)
        codes = random.integers(-_MOST_CODE, _MOST_CODE + 1, shape).astype(np.float64)
        matrix = codes.reshape(-1, shape[-1])
        rows, cols = matrix.shape
        axis = role.channels if len(shape) == 2 else None
        depth = {0: cols, 1: rows}.get(axis if axis is not None else -1, min(rows, cols))
        exponent = -round(float(np.log2(_TYPICAL_CODE * depth**0.5)))
        plant = np.where(random.random(max(rows, cols)) < 0.5, -_MOST_CODE, _MOST_CODE)
        if axis != 1:
            matrix[np.arange(rows), (3 * np.arange(rows)) % cols] = plant[:rows]
        if axis != 0:
            matrix[(3 * np.arange(cols)) % rows, np.arange(cols)] = plant[:cols]
        spread = np.zeros(max(rows, cols)) if axis is None else random.integers(-1, 2, len(plant))
        scales = 2.0 ** np.maximum(exponent + spread, _LEAST_EXPONENT)
        matrix *= scales[None, :cols] if axis == 1 else scales[:rows, None]
        return codes


def public_functions(module: ModuleOp) -> list[str]:
    """The names of the functions that can be run: neither private nor kernels nor declarations."""
    return [
        name
        for name, function in functions_of(module).items()
        if "tpu.kernel" not in function.attributes
        and not function.is_declaration
        and (function.sym_visibility is None or function.sym_visibility.data != "private")
    ]


def _form_of(op: graph.Weight) -> tuple[str, bool]:
    if isinstance(op, tpu.WeightOp):
        return str(op.form.data), op.transposed is not None
    return "dense", False


def _source_shape(op: graph.Weight) -> tuple[int, ...]:
    shape = shape_of(op.result)
    if isinstance(op, tpu.WeightOp) and op.form.data == tpu.WeightForm.CODES:
        shape = (shape[0], _depth(op))
    return shape[::-1] if _form_of(op)[1] else shape


def _depth(codes: tpu.WeightOp) -> int:
    """The inputs of a channel whose codes these are: those of a layer that reads them."""
    for use in codes.result.uses:
        if isinstance(use.operation, tpu.A16MatMul):
            return shape_of(use.operation.x)[-1]
    return shape_of(codes.result)[1] * 8 // parse_scheme(codes.scheme_name).format.bits


def _sources(module: ModuleOp, roles: Roles) -> dict[str, _Source]:
    """What the container holds: all weights that the public functions read, by resolved key."""
    found: dict[str, list[_Source]] = {}
    for name in public_functions(module):
        for op, scope in walk_calls(module, name):
            if isinstance(op, graph.Weight) and _form_of(op)[0] in ("dense", "codes"):
                role = roles.of(op.result)
                if role.channels is not None and _form_of(op)[1]:
                    role = Role(role.kind, channels=1 - role.channels)
                found.setdefault(scope + op.key.data, []).append(_Source(_source_shape(op), role))
    return {key: _joined(sources) for key, sources in found.items()}


def _joined(sources: Sequence[_Source]) -> _Source:
    """One source for all reads of a key: channels only where all of them agree."""
    first = sources[0]
    if all(source.role == first.role for source in sources):
        return first
    kinds = {source.role.kind for source in sources}
    return _Source(first.shape, Role(first.role.kind if len(kinds) == 1 else "matrix"))
