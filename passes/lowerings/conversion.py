"""What a lowering reads operands from and appends ops to: one function on its way to `tpu`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from xdsl.dialects.builtin import TensorType
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Attribute, Block, Operation, SSAValue

from tilewright.dialects import top, tpu
from tilewright.dialects.element_types import BF16, F16, F32, I8, ElementType, tensor_type
from tilewright.dialects.errors import OptionError, UnsupportedError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.quantization import (
    DEFAULT_SCHEME,
    DENSE,
    Scheme,
    check_quant,
    parse_scheme,
)
from tilewright.dialects.scopes import where_of
from tilewright.passes.specialize_weights import QUANT_ATTRIBUTE, SCALE_ATTRIBUTE

ROLE_ATTRIBUTE = "top.role"
"""On a `top.MatMul`: `"head"`; on a `top.Gather`: `"embedding"`."""

CALIBRATION_ATTRIBUTE = "top.calibration"
"""On a module: the digest of the calibration whose ranges its int8 layers are to have."""

QUANT_MODES = (*DENSE, "w8a16", "w4a16-channel", "f8e4m3")
"""What `quant` may be for weights of any shape."""
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
        check_quant(self.quant)
        if self.act not in ACTIVATIONS:
            raise OptionError(f"unknown activation type {self.act!r}", hint="f16 or bf16")

    @property
    def compute(self) -> ElementType:
        """The type in which activations are stored."""
        return _ELEMENTS[self.quant if self.quant in DENSE else self.act]


@dataclass(frozen=True)
class Mark:
    """How far a conversion has come: its last op, and how many weights and casts it has made."""

    last_op: Operation | None
    weights: int
    casts: int


@dataclass(frozen=True)
class QuantizedParts:
    """A quantized matrix: what `tpu.A16MatMul` takes of it."""

    codes: SSAValue
    scale: SSAValue
    zero: SSAValue | None


def suggestion(scheme: Scheme, depth: int) -> str:
    """What to use where the group of `scheme` does not divide `depth`."""
    smaller = [g for g in (128, 64, 32, 16) if g < scheme.group and depth % g == 0]
    names = [replace(scheme, group=g).name for g in (*smaller[:1], 0)]
    return "use " + " or ".join(names)


class Conversion:
    """The new function: `block` is its body so far, `values` maps old values to new ones.

    A lowering reads operands (`read`, `quantized`, `codes_and_scale`), appends ops (`append`,
    `append_same`) and returns what stands for its op's results. It does not change the old
    function. What it has appended before it answers None is taken back.
    """

    def __init__(
        self,
        options: ConversionOptions,
        f32_values: Iterable[SSAValue],
        *,
        is_public: bool,
        is_calibrated: bool = False,
    ) -> None:
        self.options = options
        self.is_calibrated = is_calibrated
        """Whether the module says that ranges of activations are known."""
        self.compute = options.compute
        self.is_public = is_public
        self.block = Block()
        self.values: dict[SSAValue, SSAValue] = {}
        self.kept: dict[SSAValue, ElementType] = {}
        """Of the results that kept their `top` op, and f32: what the conversion gives them."""
        self._f32_values = f32_values
        self._weights: dict[tuple[object, ...], SSAValue] = {}
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
        self,
        old: top.WeightOp,
        form: str,
        element: ElementType,
        shape: Sequence[int] | None = None,
        *,
        scheme: str = DEFAULT_SCHEME,
        bias: str | None = None,
        transposed: bool = False,
    ) -> SSAValue:
        """A weight in a form of `tpu.Weight`, made once; `shape` is its own if left out.

        Quantized forms are of `[N, K]`; `transposed` says that the source is `[K, N]`.
        """
        made = (old.result, form, element, scheme, bias, transposed)
        if made not in self._weights:
            op = tpu.WeightOp(
                old.key.data,
                shape_of(old.result) if shape is None else shape,
                element,
                form=form,
                scheme=scheme,
                bias=bias,
                transposed=transposed,
            )
            op.location = old.location
            self.block.add_op(op)
            self._weights[made] = op.result
        return self._weights[made]

    def quant_of(self, weight: top.WeightOp) -> str:
        """The scheme, or the dense element type, that a weight is to be stored in."""
        mark = weight.attributes.get(QUANT_ATTRIBUTE)
        return self.options.quant if mark is None else getattr(mark, "data", "")

    def quantized(
        self, weight: top.WeightOp, scheme: Scheme, *, transposed: bool = False
    ) -> QuantizedParts:
        """The codes, scales and zero points of a matrix.

        The scales are f32 where the weight is marked (`specialize_weights`), else `compute`. Raises
        `UnsupportedError` where the group does not divide the inputs.
        """
        channels, depth = shape_of(weight.result)[:: -1 if transposed else 1]
        if not scheme.fits(depth):
            raise UnsupportedError(
                f"groups of {scheme.group} do not divide the {depth} inputs of weight "
                f"{weight.key.data!r}",
                where=where_of(weight),
                hint=f"{suggestion(scheme, depth)}, or --quant-rule for this weight",
            )
        groups = (channels, scheme.groups(depth))
        codes = (channels, scheme.format.row_bytes(depth))
        scale = F32 if SCALE_ATTRIBUTE in weight.attributes else self.compute

        def part(form: str, element: ElementType, shape: tuple[int, ...]) -> SSAValue:
            return self.weight(
                weight, form, element, shape, scheme=scheme.name, transposed=transposed
            )

        return QuantizedParts(
            part("codes", I8, codes),
            part("scale", scale, groups),
            part("zero", I8, groups) if scheme.zero_point else None,
        )

    def codes_and_scale(
        self, weight: top.WeightOp, *, transposed: bool = False
    ) -> tuple[SSAValue, SSAValue]:
        """The int8 codes `[N, K]` of a matrix and its scales `[N, 1]`: `quantized` as `w8a16`."""
        parts = self.quantized(weight, parse_scheme(DEFAULT_SCHEME), transposed=transposed)
        return parts.codes, parts.scale

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
