"""The pass `convert-top-to-tpu`: storage types and weight quantization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter
from xdsl.transforms.dead_code_elimination import is_trivially_dead

from tilewright.dialects import top, tpu
from tilewright.dialects.element_types import ElementType
from tilewright.dialects.errors import IRError
from tilewright.dialects.graph import storage_of
from tilewright.dialects.scopes import functions_of, where_of
from tilewright.passes import actions
from tilewright.passes.lowerings import Conversion, ConversionOptions, lowerings_of
from tilewright.passes.lowerings.checking import check_lowered
from tilewright.passes.lowerings.conversion import CALIBRATION_ATTRIBUTE, typed
from tilewright.passes.lowerings.f32_values import f32_values


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

    Requires a verified module of `func` and `top` ops, and of others that have a lowering.
    Guarantees a module of `func` and `tpu` ops in which f32 stands only where it is due: RoPE
    tables (found by following the operands of `top.Rope` back), logits, marked scales.

    Options:

    - `quant`: the element type of everything (`f32`, `f16`, `bf16`), or the scheme of matrices of
      linear layers, everything else in `act`: `w8a16` (int8 codes with a scale a row), `w8a16-g64`
      (a scale for each 64 inputs), `w4a16` (groups of 64, with zero points), `w4a16-g32`,
      `w4a16-channel`, `w4a16-absmax` (without zero points), `f8e4m3`, `f8e5m2`. `int8` needs a
      calibrated module (the attribute `top.calibration`).
    - `act`: the activation type of schemes, `f16` or `bf16`.
    - `quant_head`: quantize also the `top.MatMul` with `top.role = "head"`.
    - `quant_embedding`: quantize also the table of the `top.Gather` with `top.role = "embedding"`.

    The result of the head, and of a matrix product that a public function returns, is f32. Weights
    with `top.scale = "f32"` (see `specialize_weights`) have f32 scales, those with `top.quant` that
    scheme or element type.

    How an op is converted is said by a lowering (`tilewright.passes.lowerings`); its application is
    a step. An op whose step is held back stays as it is: operands are cast to f32 for it, and its
    result for what reads it. Signatures are those of the whole conversion whatever is held back.
    """

    name = "convert-top-to-tpu"

    quant: str = "w8a16"
    act: str = "f16"
    quant_head: bool = False
    quant_embedding: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        options = ConversionOptions(self.quant, self.act, self.quant_head, self.quant_embedding)
        calibrated = CALIBRATION_ATTRIBUTE in op.attributes
        conversion = _ModuleConversion(functions_of(op), options, f32_values(op), calibrated)
        for name, function in functions_of(op).items():
            Rewriter.replace_op(function, conversion.function(name), [])


@dataclass
class _ModuleConversion:
    """Converts functions, those that are called before those that call them."""

    functions: Mapping[str, FuncOp]
    options: ConversionOptions
    f32_values: set[SSAValue]
    is_calibrated: bool
    converted: dict[str, FuncOp] = field(default_factory=dict[str, FuncOp])

    def function(self, name: str) -> FuncOp:
        """The converted function."""
        if name not in self.converted:
            old = self.functions[name]
            callees = {
                callee: self.function(callee)
                for callee in (
                    op.callee.string_value() for op in old.walk() if isinstance(op, top.CallOp)
                )
            }
            self.converted[name] = _FunctionConversion(self, old, callees).run()
        return self.converted[name]


class _FunctionConversion:
    """Rebuilds a function, op by op."""

    def __init__(
        self, module: _ModuleConversion, function: FuncOp, callees: Mapping[str, FuncOp]
    ) -> None:
        self.function = function
        self.callees = callees
        self.options = module.options
        self.convert = Conversion(
            module.options,
            module.f32_values,
            is_public=function.sym_visibility is None,
            is_calibrated=module.is_calibrated,
        )
        self.top_weights: dict[SSAValue, SSAValue] = {}

    def run(self) -> FuncOp:
        """The converted function, of the same name."""
        old, block = self.function.body.block, self.convert.block
        for argument in old.args:
            new = block.insert_arg(typed(argument, self.convert.element(argument)), len(block.args))
            new.name_hint = argument.name_hint
            new.location = argument.location
            self.convert.values[argument] = new
        for op in old.ops:
            self._convert(op)
        self._drop_unread()
        last = block.last_op
        outputs = last.operand_types if last is not None else ()
        result = FuncOp(
            self.function.sym_name.data,
            ([argument.type for argument in block.args], list(outputs)),
            Region(block),
            visibility=self.function.sym_visibility,
            arg_attrs=self.function.arg_attrs,
            res_attrs=self.function.res_attrs,
        )
        result.attributes.update(self.function.attributes)
        result.location = self.function.location
        return result

    def _drop_unread(self) -> None:
        """Erase what a lowering of a later op, which took in an earlier one, no longer reads."""
        block = self.convert.block
        work = [new.owner for old, new in self.convert.values.items() if old.uses and not new.uses]
        while work:
            op = work.pop()
            if isinstance(op, Operation) and op.parent is block and is_trivially_dead(op):
                work += [operand.owner for operand in op.operands]
                op.detach()
                op.erase()

    def _convert(self, op: Operation) -> None:
        """Append what stands for `op`. What functions and layers agree on is no step."""
        convert = self.convert
        if isinstance(op, ReturnOp):
            convert.append(ReturnOp(*(convert.read(value) for value in op.operands)), op)
        elif isinstance(op, top.CallOp):
            self._call(op)
        elif isinstance(op, top.StateOp):
            self._replace(op, convert.append_same(op, tpu.StateOp, [], convert.compute))
        elif not isinstance(op, top.WeightOp):  # made where it is used, in the form needed there
            self._lower(op)

    def _call(self, op: top.CallOp) -> None:
        callee = self.callees[op.callee.string_value()]
        operands = [
            self.convert.read(value, storage_of(parameter))
            for value, parameter in zip(op.arguments, callee.body.block.args, strict=True)
        ]
        outputs = callee.function_type.outputs.data
        call = tpu.CallOp(callee.sym_name.data, operands, outputs, scopes=op.scope_names)
        self._replace(op, self.convert.append(call, op))

    def _lower(self, op: Operation) -> None:
        """Take the step of the first lowering that applies, unless a watcher holds it back.

        The lowering runs before the step is announced: only then is it known to apply, and to what
        types the step would lead. A step that is held back is taken back; so is one that raises,
        which therefore raises only where it is not held back.
        """
        convert, mark = self.convert, self.convert.mark()
        if isinstance(op, top.CacheUpdateOp) and op.cache in convert.kept:
            self._keep(op, [convert.kept[op.cache]])  # writes into a state that was kept
            return
        for lowering in lowerings_of(type(op), self.options):
            try:
                results = lowering.lower(op, convert)
                if results is None:
                    convert.take_back(mark)
                    continue
                check_lowered(lowering, op, results, convert, mark)
            except Exception:
                convert.take_back(mark)
                if actions.begin(lowering.name, op) or not self._can_keep(op):
                    raise
                self._keep(op, [convert.element(result) for result in op.results])
                return
            if actions.begin(lowering.name, op):
                self._replace(op, results)
                if actions.watched():
                    actions.end(convert.since(mark))
                return
            elements = [storage_of(result) for result in results]
            convert.take_back(mark)
            if self._can_keep(op):
                self._keep(op, elements)
            else:
                self._replace(op, lowering.lower(op, convert) or ())
            return
        raise IRError(
            f"{op.name} cannot be converted",
            where=where_of(op),
            hint="convert-top-to-tpu takes functions of top ops; an op of another dialect needs "
            "a lowering of its own (tilewright.passes.lowerings)",
        )

    def _replace(self, op: Operation, results: Sequence[SSAValue]) -> None:
        """`results` stand for those of `op`, and take over their names."""
        for old, new in zip(op.results, results, strict=True):
            if new.name_hint is None:
                new.name_hint = old.name_hint
            self.convert.values[old] = new

    def _can_keep(self, op: Operation) -> bool:
        """Whether `op` may stay. What writes in place stays only with the state that it writes:
        it would write into the copy that a cast makes."""
        if not isinstance(op, top.CacheUpdateOp):
            return True
        cache = self.convert.values[op.cache]
        if isinstance(op.cache.owner, top.StateOp) and isinstance(cache.owner, tpu.StateOp):
            return not cache.uses  # nothing has read it: the state can stay, too
        return cache.type == op.cache.type

    def _keep(self, op: Operation, elements: Sequence[ElementType]) -> None:
        """Append `op` as it is, on operands of its own types. Its results are f32; readers take
        them in `elements`, which is what the conversion gives them."""
        convert = self.convert
        if isinstance(op, top.CacheUpdateOp) and isinstance(op.cache.owner, top.StateOp):
            self._keep_state(op.cache.owner)
        operands = {value: self._read_as_top(value) for value in op.operands}
        kept = op.clone(dict(operands))
        self._replace(op, convert.append(kept, op))
        for result, element in zip(op.results, elements, strict=True):
            if element.is_float:
                convert.kept[result] = element

    def _keep_state(self, state: top.StateOp) -> None:
        """Put the `top` op back for a state that has been converted and not been used."""
        new = self.convert.values[state.result].owner
        if isinstance(new, tpu.StateOp):
            kept = state.clone()
            kept.location = state.location
            Rewriter.replace_op(new, kept)
            self.convert.values[state.result] = kept.result
            self.convert.kept[state.result] = storage_of(new.result)

    def _read_as_top(self, value: SSAValue) -> SSAValue:
        """The new value of `value` in its old type; a weight as `top` reads it."""
        if not isinstance(value.owner, top.WeightOp):
            return self.convert.read(value, storage_of(value))
        if value not in self.top_weights:
            kept = value.owner.clone()
            (self.top_weights[value],) = self.convert.append(kept, value.owner)
        return self.top_weights[value]
