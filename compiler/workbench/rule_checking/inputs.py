"""Numbers for an instance: argument, weight and state arrays that bring mistakes to light.

Some cases are plain (small numbers, each element another one), some are where functions have
corners: zeros, ones, equal elements, negative and large numbers. Row indices stay below the rows
they index and RoPE tables end in cos 1 and sin 0, as in `workbench.inputs`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from tilewright.backends.reference.numerics import encode_float8, stored_codes
from tilewright.compiler.weights.quantized import QuantizedWeight
from tilewright.compiler.workbench.inputs import GeneratedInputs, InputCase
from tilewright.compiler.workbench.roles import Role, Roles
from tilewright.dialects import graph, tpu
from tilewright.dialects.element_types import F32
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.quantization import Scheme
from tilewright.dialects.scopes import functions_of
from tilewright.dialects.tpu.structure import WeightForm
from tilewright.passes.lowerings.conversion import CALIBRATION_ATTRIBUTE

Array = npt.NDArray[Any]

_SMALL = (1.0, -2.0, 0.5, 3.0, -1.5, 2.0, 0.25, -0.75)
_MIXED = (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -3.0, 1e-3, 7.0, 100.0, -40.0)
_LARGE = 1e4


class InstanceInputs:
    """Arrays for the function of an instance, equal for equal seeds and cases.

    Weights and states are the same by key, whatever the rule has made of the ops that read them.
    """

    def __init__(self, module: ModuleOp, *, seed: int, case: str) -> None:
        self.seed = seed
        self.case = case
        roles = Roles(module)
        self._roles_of_arguments = [
            roles.of(argument)
            for function in functions_of(module).values()
            for argument in function.body.block.args
        ]
        self._weight_roles = {
            op.key.data: roles.of(op.result) for op in module.walk() if isinstance(op, graph.Weight)
        }
        is_of_tpu = any(isinstance(op, tpu.WeightOp) for op in module.walk())
        self._quantized = GeneratedInputs(module, seed=seed) if is_of_tpu else None

    def arguments(self, function: FuncOp) -> list[Array]:
        """An array for each argument of the function."""
        return [
            self._array(f"argument {at}", shape_of(value), self._roles_of_arguments[at], value)
            for at, value in enumerate(function.body.block.args)
        ]

    def weight(self, key: str, op: Operation) -> Array:
        """The weight called `key`, in the form and type that `op` asks for."""
        assert isinstance(op, graph.Weight)
        if isinstance(op, tpu.WeightOp) and _is_form(op) and self._quantized is not None:
            return self._quantized.weight(key, op)
        role = self._weight_roles.get(key, Role("matrix"))
        return self._array(f"weight {key}", shape_of(op.result), role, op.result)

    def states(self, module: ModuleOp) -> dict[str, Array]:
        """An array for each state that the function reads."""
        return {
            op.key.data: self._floats(f"state {op.key.data}", shape_of(op.result), "small")
            for op in module.walk()
            if isinstance(op, graph.State)
        }

    def _array(self, label: str, shape: tuple[int, ...], role: Role, value: SSAValue) -> Array:
        element = storage_of(value)
        if not element.is_float:
            return self._integers(label, shape, role).astype(element.dtype)
        if role.kind in ("cos", "sin"):
            values = self._floats(label, shape, "small")
            values[..., role.rotary_dim :] = 1.0 if role.kind == "cos" else 0.0
        elif role.kind == "positive" and self.case in ("small", "ramp", "positive"):
            values = np.abs(self._floats(label, shape, self.case)) + 0.25
        else:
            values = self._floats(label, shape, self.case)
        return values.astype(element.dtype)

    def _random(self, label: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(label.encode())])

    def _integers(self, label: str, shape: tuple[int, ...], role: Role) -> Array:
        random, limit = self._random(label), role.rows
        count = int(np.prod(shape))
        if role.distinct and limit is not None and count <= limit:
            return random.permutation(limit)[:count].reshape(shape)
        return random.integers(0, limit or 16, shape)

    def _floats(self, label: str, shape: tuple[int, ...], case: str) -> Array:
        random, count = self._random(label), int(np.prod(shape))
        match case:
            case "small":
                start = int(random.integers(len(_SMALL)))
                values = np.resize(np.roll(_SMALL, start), count)
                values += np.arange(count) // len(_SMALL)
            case "ramp":
                values = (np.arange(count) - count // 2) / 4 + float(random.integers(3))
            case "positive":
                values = random.integers(1, 64, count) / 16
            case "mixed":
                values = random.choice(_MIXED, count)
            case "ties":
                values = random.choice((-1.0, 0.5, 0.5), count)
            case "large":
                values = random.choice((_LARGE, -_LARGE, 1.0, 0.0), count)
            case _:
                values = np.full(count, 1.0 if case == "ones" else 0.0)
        return np.asarray(values, np.float64).reshape(shape)


def _is_form(op: tpu.WeightOp) -> bool:
    """Whether an op reads a weight in another form than it is stored in."""
    return op.form.data != WeightForm.DENSE or op.transposed is not None


class _SmallCodes(GeneratedInputs):
    """Matrices of -7 to 7 times a power of two, which every scheme holds exactly; that power is the
    scale of them all, as no quantizer would choose it."""

    def _matrix(self, label: str, shape: Sequence[int], role: Role) -> Array:
        del role
        return self._random(label).integers(-_MOST_CODE, _MOST_CODE + 1, shape) * _SCALE

    def _quantized(self, key: str, matrix: Array, scheme: Scheme) -> QuantizedWeight:
        del key
        steps = matrix / _SCALE
        groups = (len(matrix), scheme.groups(matrix.shape[1]))
        zero = np.full(groups, _MIDDLE, np.int8) if scheme.zero_point else None
        if scheme.format.is_float:
            codes = encode_float8(steps, scheme.format)
        else:
            codes = (steps + (_MIDDLE if scheme.zero_point else 0)).astype(np.int8)
        held = stored_codes(codes, scheme.format)
        scale = np.full(groups, _SCALE, np.float32)
        shape = (len(matrix), matrix.shape[1])
        return QuantizedWeight(scheme, shape, held, scale, F32, zero)


class _FewCodes(_SmallCodes):
    """Matrices of -1/4, 0 and 1/4: int8 holds sums of some 30 products of them exactly, too."""

    def _matrix(self, label: str, shape: Sequence[int], role: Role) -> Array:
        del role
        return self._random(label).integers(-1, 2, shape) * 0.25


_MOST_CODE, _MIDDLE = 7, 8
_SCALE = 2.0**-4


class ExactInputs:
    """Arrays that storage types and quantization do not change: see `workbench.inputs`.

    In a calibrated module, whose layers may be int8, an activation is 0 but for a 1 in each row,
    and weights are few numbers: 8 bits hold the results of products then.
    """

    def __init__(self, module: ModuleOp, *, seed: int, case: str) -> None:
        exact = _EXACT_CASES.get(case, "random")
        if CALIBRATION_ATTRIBUTE in module.attributes:
            case_of_int8: InputCase = "zeros" if exact == "zeros" else "one-hot"
            self._inputs: GeneratedInputs = _FewCodes(module, seed=seed, case=case_of_int8)
        else:
            self._inputs = _SmallCodes(module, seed=seed, case=exact)

    def arguments(self, function: FuncOp) -> list[Array]:
        """An array for each argument of the function, in the types that it has now."""
        return self._inputs.arguments(function)

    def weight(self, key: str, op: Operation) -> Array:
        """The weight called `key`, in the form and type that `op` asks for."""
        return self._inputs.weight(key, op)

    def states(self, module: ModuleOp) -> dict[str, Array]:
        """An array for each state that the function reads."""
        return self._inputs.states(module, self._inputs.functions[0])


_EXACT_CASES: dict[str, InputCase] = {"zeros": "zeros", "large": "large", "ones": "one-hot"}
"""By our cases; random for all others."""
