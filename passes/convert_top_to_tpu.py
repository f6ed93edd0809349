"""The pass `convert-top-to-tpu`: storage types and weight quantization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, OpResult, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from tilewright.dialects import graph, top, tpu
from tilewright.dialects.element_types import BF16, F16, F32, I8, ElementType, tensor_type
from tilewright.dialects.errors import IRError, OptionError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.scopes import functions_of, where_of
from tilewright.passes.specialize_scales import SCALE_ATTRIBUTE, specialize_scales

__all__ = ["ConvertTopToTpuPass", "specialize_scales"]

ROLE_ATTRIBUTE = "top.role"
"""On a `top.MatMul`: `"head"`; on a `top.Gather`: `"embedding"`."""

QUANT_MODES = ("f32", "f16", "bf16", "w8a16")
_ELEMENTS = {"f32": F32, "f16": F16, "bf16": BF16}
_MOVERS = (graph.Reshape, graph.Slice, graph.Permute, graph.Concat, graph.Gather)
"""Ops whose result holds their first operand's elements: they keep its type."""
_TPU_OPS: dict[str, type[Operation]] = {op.name: op for op in tpu.Tpu.operations}


@dataclass(frozen=True)
class ConvertTopToTpuPass(ModulePass):
    """Give every value a storage type, and every linear layer its quantization.

    ```mlir
    func.func @f(%x: tensor<1x64xf32>) -> tensor<1x128xf32> {
      %w = top.Weight "proj.weight" : tensor<128x64xf32>
      %h = top.MatMul %x, %w {right_transpose} :
        tensor<1x64xf32>, tensor<128x64xf32> -> tensor<1x128xf32>
      %y = top.SiLU %h : tensor<1x128xf32> -> tensor<1x128xf32>
      func.return %y : tensor<1x128xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<1x64xf16>) -> tensor<1x128xf16> {
      %codes = tpu.Weight codes "proj.weight" : tensor<128x64xi8>
      %scale = tpu.Weight scale "proj.weight" : tensor<128x1xf16>
      %h = tpu.W8A16MatMul %x, %codes scale %scale :
        tensor<1x64xf16>, tensor<128x64xi8>, tensor<128x1xf16> -> tensor<1x128xf16>
      %y = tpu.SiLU %h : tensor<1x128xf16> -> tensor<1x128xf16>
      func.return %y : tensor<1x128xf16>
    }
    ```

    Requires a verified module of `func` and `top` ops. Guarantees a module of `func` and `tpu` ops
    in which f32 stands only where it is due: RoPE tables (found by following the operands of
    `top.Rope` back), logits, marked scales.

    Options:

    - `quant`: the element type of everything (`f32`, `f16`, `bf16`), or `w8a16`: matrices of linear
      layers as int8 codes with a scale a row, everything else in `act`.
    - `act`: the activation type of `w8a16`, `f16` or `bf16`.
    - `quant_head`: quantize also the `top.MatMul` with `top.role = "head"`.
    - `quant_embedding`: quantize also the table of the `top.Gather` with `top.role = "embedding"`.

    The result of the head, and of a matrix product that a public function returns, is f32. Weights
    with `top.scale = "f32"` (see `specialize_scales`) have f32 scales.
    """

    name = "convert-top-to-tpu"

    quant: str = "w8a16"
    act: str = "f16"
    quant_head: bool = False
    quant_embedding: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.quant not in QUANT_MODES:
            raise OptionError(
                f"unknown quantization {self.quant!r}", hint=f"one of {', '.join(QUANT_MODES)}"
            )
        if self.act not in ("f16", "bf16"):
            raise OptionError(f"unknown activation type {self.act!r}", hint="f16 or bf16")
        compute = _ELEMENTS[self.act if self.quant == "w8a16" else self.quant]
        conversion = _ModuleConversion(op, self, compute, _f32_values(op))
        for name, function in functions_of(op).items():
            Rewriter.replace_op(function, conversion.function(name), [])


def _f32_values(module: ModuleOp) -> set[SSAValue]:
    """The values that are RoPE tables or parts of them, back to weights and arguments."""
    functions = functions_of(module)
    calls: dict[str, list[top.CallOp]] = {name: [] for name in functions}
    work: list[SSAValue] = []
    for op in module.walk():
        if isinstance(op, top.RopeOp):
            work += (op.cos, op.sin)
        elif isinstance(op, top.CallOp):
            calls[op.callee.string_value()].append(op)
    found: set[SSAValue] = set()
    while work:
        value = work.pop()
        if value in found:
            continue
        found.add(value)
        owner = value.owner
        if isinstance(value, BlockArgument):
            function = value.block.parent_op()
            if isinstance(function, FuncOp):
                work += [call.arguments[value.index] for call in calls[function.sym_name.data]]
        elif isinstance(owner, top.CallOp) and isinstance(value, OpResult):
            returned = functions[owner.callee.string_value()].body.block.last_op
            if returned is not None:
                work.append(returned.operands[value.index])
        elif isinstance(owner, graph.Concat):
            work += owner.operands
        elif isinstance(owner, _MOVERS):
            work.append(owner.operands[0])
    return found


@dataclass
class _ModuleConversion:
    """Converts functions, those that are called before those that call them."""

    module: ModuleOp
    options: ConvertTopToTpuPass
    compute: ElementType
    f32_values: set[SSAValue]
    converted: dict[str, FuncOp] = field(default_factory=dict[str, FuncOp])

    def __post_init__(self) -> None:
        self._functions = functions_of(self.module)

    def function(self, name: str) -> FuncOp:
        """The converted function."""
        if name not in self.converted:
            self.converted[name] = _FunctionConversion(self, self._functions[name]).run()
        return self.converted[name]


class _FunctionConversion:
    """Rebuilds a function: `values` maps the old values to the new ones, `weights` aside."""

    def __init__(self, conversion: _ModuleConversion, function: FuncOp) -> None:
        self.conversion = conversion
        self.options = conversion.options
        self.compute = conversion.compute
        self.function = function
        self.is_public = function.sym_visibility is None
        self.values: dict[SSAValue, SSAValue] = {}
        self.weights: dict[tuple[SSAValue, str, ElementType, bool], SSAValue] = {}
        self.casts: dict[tuple[SSAValue, ElementType], SSAValue] = {}
        self.block = Block()

    def run(self) -> FuncOp:
        """The converted function, of the same name."""
        old = self.function.body.block
        for argument in old.args:
            element = self.element(argument)
            new = self.block.insert_arg(_typed(argument, element), len(self.block.args))
            new.name_hint = argument.name_hint
            new.location = argument.location
            self.values[argument] = new
        for op in old.ops:
            self.convert(op)
        last = self.block.last_op
        outputs = last.operand_types if last is not None else ()
        result = FuncOp(
            self.function.sym_name.data,
            ([argument.type for argument in self.block.args], list(outputs)),
            Region(self.block),
            visibility=self.function.sym_visibility,
            arg_attrs=self.function.arg_attrs,
            res_attrs=self.function.res_attrs,
        )
        result.attributes.update(self.function.attributes)
        result.location = self.function.location
        return result

    def element(self, value: SSAValue) -> ElementType:
        """What an argument or weight is stored as."""
        element = storage_of(value)
        if not element.is_float:
            return element
        return F32 if value in self.conversion.f32_values else self.compute

    def convert(self, op: Operation) -> None:
        """Append what stands for `op`."""
        if isinstance(op, ReturnOp):
            self.append(ReturnOp(*(self.read(value) for value in op.operands)), op)
        elif isinstance(op, top.CallOp):
            self.convert_call(op)
        elif isinstance(op, top.MatMulOp):
            self.convert_matmul(op)
        elif isinstance(op, top.GatherOp):
            self.convert_gather(op)
        elif isinstance(op, top.RopeOp):
            operands = [
                self.read(op.x, self.compute),
                self.read(op.cos, F32),
                self.read(op.sin, F32),
            ]
            self.append_same(op, operands, self.compute)
        elif isinstance(op, _MOVERS):
            self.convert_mover(op)
        elif isinstance(op, top.CastOp):
            x = self.read(op.x, None)
            target = storage_of(op.result)
            self.append(tpu.CastOp(x, self.compute if target.is_float else target), op)
        elif isinstance(op, top.WeightOp):
            pass  # made where it is used, in the form that is needed there
        elif isinstance(op, top.TopOp):
            operands = [self.read(value, self.compute) for value in op.operands]
            self.append_same(op, operands, self.compute)
        else:
            raise IRError(
                f"{op.name} cannot be converted",
                where=where_of(op),
                hint="convert-top-to-tpu takes functions of top ops",
            )

    def convert_call(self, op: top.CallOp) -> None:
        callee = self.conversion.function(op.callee.string_value())
        types = callee.function_type
        operands = [
            self.read(value, storage_of(parameter))
            for value, parameter in zip(op.arguments, callee.body.block.args, strict=True)
        ]
        scopes = op.scope_names
        self.append(
            tpu.CallOp(op.callee.string_value(), operands, types.outputs.data, scopes=scopes), op
        )

    def convert_matmul(self, op: top.MatMulOp) -> None:
        head = _role(op) == "head"
        element = F32 if head or (self.is_public and _is_returned(op.result)) else self.compute
        weight = op.right.owner
        transposed = op.right_transpose is None
        quantized = self.options.quant == "w8a16" and (not head or self.options.quant_head)
        x = self.read(op.x, self.compute)
        if quantized and isinstance(weight, top.WeightOp):
            codes, scale = self.codes_and_scale(weight, transposed=transposed)
            bias = self.read(op.bias, self.compute) if op.bias is not None else None
            self.append(tpu.W8A16MatMulOp(x, codes, scale, bias, element=element), op)
            return
        right = self.read(op.right, self.compute)
        bias = self.read(op.bias, self.compute) if op.bias is not None else None
        product = tpu.MatMulOp(x, right, bias, right_transpose=not transposed, element=element)
        self.append(product, op)

    def convert_gather(self, op: top.GatherOp) -> None:
        table = op.table.owner
        quantized = self.options.quant == "w8a16" and self.options.quant_embedding
        if quantized and _role(op) == "embedding" and isinstance(table, top.WeightOp):
            codes, scale = self.codes_and_scale(table, transposed=False)
            indices = self.read(op.indices)
            self.append(tpu.W8A16GatherOp(codes, scale, indices, element=self.compute), op)
        else:
            self.convert_mover(op)

    def convert_mover(self, op: Operation) -> None:
        """Ops on elements of any type; several operands (of a `Concat`) have one type."""
        values = op.operands[:1] if isinstance(op, graph.Gather) else op.operands
        operands = [self.read(value) for value in values]
        elements = dict.fromkeys(storage_of(operand) for operand in operands)
        element = next(iter(elements)) if len(elements) == 1 else self.compute
        operands = [self.read(value, element) for value in values]
        operands += [self.read(value) for value in op.operands[len(values) :]]
        self.append_same(op, operands, element)

    def codes_and_scale(
        self, weight: top.WeightOp, *, transposed: bool
    ) -> tuple[SSAValue, SSAValue]:
        scale = F32 if SCALE_ATTRIBUTE in weight.attributes else self.compute
        return (
            self.weight(weight, "codes", I8, transposed),
            self.weight(weight, "scale", scale, transposed),
        )

    def weight(
        self, old: top.WeightOp, form: str, element: ElementType, transposed: bool = False
    ) -> SSAValue:
        """A weight in a form, made once."""
        made = (old.result, form, element, transposed)
        if made not in self.weights:
            shape = shape_of(old.result)[::-1] if transposed else shape_of(old.result)
            if form == "scale":
                shape = (shape[0], 1)
            op = tpu.WeightOp(old.key.data, shape, element, form=form, transposed=transposed)
            op.location = old.location
            self.block.add_op(op)
            self.weights[made] = op.result
        return self.weights[made]

    def read(self, value: SSAValue, element: ElementType | None = None) -> SSAValue:
        """The new value of `value`, in `element` if that is given and both are floats."""
        is_float = storage_of(value).is_float
        if isinstance(value.owner, top.WeightOp):
            wanted = element if element is not None and is_float else self.element(value)
            return self.weight(value.owner, "dense", wanted)
        new = self.values[value]
        if element is None or not is_float or storage_of(new) == element:
            return new
        if (new, element) not in self.casts:
            cast = tpu.CastOp(new, element)
            if isinstance(value.owner, Operation):
                cast.location = value.owner.location
            self.block.add_op(cast)
            self.casts[new, element] = cast.result
        return self.casts[new, element]

    def append_same(
        self, op: Operation, operands: Sequence[SSAValue], element: ElementType
    ) -> None:
        """Append the tpu op of the same name and attributes, with float results in `element`."""
        types = [
            _typed(result, element if storage_of(result).is_float else storage_of(result))
            for result in op.results
        ]
        made = _TPU_OPS[f"tpu.{op.name.removeprefix('top.')}"].create(
            operands=operands, result_types=types, properties=dict(op.properties)
        )
        self.append(made, op)

    def append(self, new: Operation, old: Operation) -> None:
        """Append `new` in the place of `old`, with its location and the names of its results."""
        new.location = old.location
        self.block.add_op(new)
        for result, replacement in zip(old.results, new.results, strict=True):
            replacement.name_hint = result.name_hint
            self.values[result] = replacement


def _typed(value: SSAValue, element: ElementType) -> TensorType[Attribute]:
    return tensor_type(shape_of(value), element)


def _role(op: Operation) -> str:
    role = op.attributes.get(ROLE_ATTRIBUTE)
    return getattr(role, "data", "")


def _is_returned(value: SSAValue) -> bool:
    return any(isinstance(use.operation, ReturnOp) for use in value.uses)
