"""What a lowering reads operands from and appends ops to: one function on its way to `tpu`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import TensorType
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Attribute, Block, Operation, SSAValue

from tilewright.dialects import top, tpu
from tilewright.dialects.element_types import BF16, F16, F32, I8, ElementType, tensor_type
from tilewright.dialects.errors import OptionError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.passes.specialize_scales import SCALE_ATTRIBUTE

ROLE_ATTRIBUTE = "top.role"
"""On a `top.MatMul`: `"head"`; on a `top.Gather`: `"embedding"`."""

QUANT_MODES = ("f32", "f16", "bf16", "w8a16")
ACTIVATIONS = ("f16", "bf16")
_ELEMENTS = {"f32": F32, "f16": F16, "bf16": BF16}


@dataclass(frozen=True)
class ConversionOptions:
    """The options of `convert-top-to-tpu`, which see. Raises `OptionError` for an unknown value."""

    quant: str = "w8a16"
    act: str = "f16"
    quant_head: bool = False
    quant_embedding: bool = False

    def __post_init__(self) -> None:
        if self.quant not in QUANT_MODES:
            raise OptionError(
                f"unknown quantization {self.quant!r}", hint=f"one of {', '.join(QUANT_MODES)}"
            )
        if self.act not in ACTIVATIONS:
            raise OptionError(f"unknown activation type {self.act!r}", hint="f16 or bf16")

    @property
    def compute(self) -> ElementType:
        """The type in which activations are stored."""
        return _ELEMENTS[self.act if self.quant == "w8a16" else self.quant]


@dataclass(frozen=True)
class Mark:
    """How far a conversion has come: its last op, and how many weights and casts it has made."""

    last_op: Operation | None
    weights: int
    casts: int


class Conversion:
    """The new function: `block` is its body so far, `values` maps old values to new ones.

    A lowering reads operands (`read`, `codes_and_scale`), appends ops (`append`, `append_same`) and
    returns what stands for its op's results. It does not change the old function. What it has
    appended before it answers None is taken back.
    """

    def __init__(
        self, options: ConversionOptions, f32_values: Iterable[SSAValue], *, is_public: bool
    ) -> None:
        self.options = options
        self.compute = options.compute
        self.is_public = is_public
        self.block = Block()
        self.values: dict[SSAValue, SSAValue] = {}
        self.kept: dict[SSAValue, ElementType] = {}
        """Of the results that kept their `top` op, and f32: what the conversion gives them."""
        self._f32_values = f32_values
        self._weights: dict[tuple[SSAValue, str, ElementType, bool], SSAValue] = {}
        self._casts: dict[tuple[SSAValue, ElementType], SSAValue] = {}

    def element(self, value: SSAValue) -> ElementType:
        """What an argument or weight is stored as: `compute`, but f32 for RoPE tables."""
        element = storage_of(value)
        if not element.is_float:
            return element
        return F32 if value in self._f32_values else self.compute

    def read(self, value: SSAValue, element: ElementType | None = None) -> SSAValue:
        """The new value of `value`, in `element` if that is given and both are floats."""
        is_float = storage_of(value).is_float
        if isinstance(value.owner, top.WeightOp):
            wanted = element if element is not None and is_float else self.element(value)
            return self.weight(value.owner, "dense", wanted)
        new = self.values[value]
        wanted = self.kept.get(value) if element is None else element
        if wanted is None or not is_float or storage_of(new) == wanted:
            return new
        if (new, wanted) not in self._casts:
            cast = tpu.CastOp(new, wanted)
            if isinstance(value.owner, Operation):
                cast.location = value.owner.location
            self.block.add_op(cast)
            self._casts[new, wanted] = cast.result
        return self._casts[new, wanted]

    def weight(
        self, old: top.WeightOp, form: str, element: ElementType, transposed: bool = False
    ) -> SSAValue:
        """A weight in a form (`dense`, `codes`, `scale`), made once.

        `codes` and `scale` are those of `[N, K]`; `transposed` says that the source is `[K, N]`.
        """
        made = (old.result, form, element, transposed)
        if made not in self._weights:
            shape = shape_of(old.result)[::-1] if transposed else shape_of(old.result)
            if form == "scale":
                shape = (shape[0], 1)
            op = tpu.WeightOp(old.key.data, shape, element, form=form, transposed=transposed)
            op.location = old.location
            self.block.add_op(op)
            self._weights[made] = op.result
        return self._weights[made]

    def codes_and_scale(
        self, weight: top.WeightOp, *, transposed: bool = False
    ) -> tuple[SSAValue, SSAValue]:
        """The int8 codes `[N, K]` of a matrix and its scales `[N, 1]`.

        The scales are f32 where the weight is marked (`specialize_scales`), else `compute`.
        """
        scale = F32 if SCALE_ATTRIBUTE in weight.attributes else self.compute
        return (
            self.weight(weight, "codes", I8, transposed),
            self.weight(weight, "scale", scale, transposed),
        )

    def append(self, new: Operation, source: Operation) -> Sequence[SSAValue]:
        """Append `new`, which stands where `source` stood in the model; returns its results."""
        new.location = source.location
        self.block.add_op(new)
        return new.results

    def append_same(
        self,
        op: Operation,
        new_class: type[Operation],
        operands: Sequence[SSAValue],
        element: ElementType,
    ) -> Sequence[SSAValue]:
        """Append `new_class` with the attributes of `op`, its float results in `element`."""
        types = [
            typed(result, element if storage_of(result).is_float else storage_of(result))
            for result in op.results
        ]
        made = new_class.create(
            operands=operands, result_types=types, properties=dict(op.properties)
        )
        return self.append(made, op)

    def mark(self) -> Mark:
        """Where the conversion stands now."""
        return Mark(self.block.last_op, len(self._weights), len(self._casts))

    def since(self, mark: Mark) -> list[Operation]:
        """The ops appended since."""
        op = self.block.first_op if mark.last_op is None else mark.last_op.next_op
        found: list[Operation] = []
        while op is not None:
            found.append(op)
            op = op.next_op
        return found

    def take_back(self, mark: Mark) -> None:
        """Erase the ops appended since."""
        for op in reversed(self.since(mark)):
            op.detach()
            op.erase()
        while len(self._weights) > mark.weights:
            self._weights.popitem()
        while len(self._casts) > mark.casts:
            self._casts.popitem()


def typed(value: SSAValue, element: ElementType) -> TensorType[Attribute]:
    """The tensor type of the shape of `value`."""
    return tensor_type(shape_of(value), element)


def role_of(op: Operation) -> str:
    """What the model says an op is for: `"head"`, `"embedding"`, or nothing."""
    role = op.attributes.get(ROLE_ATTRIBUTE)
    return getattr(role, "data", "")


def is_head(op: Operation) -> bool:
    """Whether `op` makes the logits."""
    return role_of(op) == "head"


def is_returned(value: SSAValue) -> bool:
    """Whether a function returns `value`."""
    return any(isinstance(use.operation, ReturnOp) for use in value.uses)
