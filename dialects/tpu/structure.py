"""`tpu` weights, states, calls, and rows picked by index."""

from __future__ import annotations

from collections.abc import Sequence
from enum import auto

from xdsl.dialects.builtin import StringAttr, UnitAttr
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import SpacedOpaqueSyntaxAttribute
from xdsl.irdl import irdl_attr_definition, irdl_op_definition, opt_prop_def, prop_def
from xdsl.utils.str_enum import StrEnum

from tilewright.dialects import graph
from tilewright.dialects.element_types import F32, I8, I32, ElementType, tensor_type
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.quantization import DEFAULT_SCHEME, is_scheme
from tilewright.dialects.shape_rules import require
from tilewright.dialects.tpu.base import TpuOp


class WeightForm(StrEnum):
    """What a `tpu.Weight` holds: the whole tensor, or a part of its quantized form."""

    DENSE = auto()
    CODES = auto()
    """Codes `i8[N, K]`, or `i8[N, K / 2]` where two lie in a byte."""
    SCALE = auto()
    """Scales `[N, G]`, one for each group of `K / G` inputs."""
    ZERO = auto()
    """Zero points `i8[N, G]`."""
    REQUANT = auto()
    """`i32[N, 3]`: bias, multiplier and shift of an int8 product (`tpu.Int8MatMul`)."""
    INPUT_SCALE = auto()
    """`f32[1, 1]`: the calibrated scale of the input of the layer that has the weight."""
    OUTPUT_SCALE = auto()
    """`f32[1, 1]`: that of its output."""


@irdl_attr_definition
class WeightFormAttr(EnumAttribute[WeightForm], SpacedOpaqueSyntaxAttribute):
    """The form of a `tpu.Weight`."""

    name = "tpu.weight_form"


@irdl_op_definition
class WeightOp(TpuOp, graph.Weight):
    """A tensor of the weight container, in one of the forms that the machine stores.

    ```mlir
    %codes = tpu.Weight codes "mlp.dense_h_to_4h.weight" : tensor<27392x4096xi8>
    %scale = tpu.Weight scale "mlp.dense_h_to_4h.weight" : tensor<27392x1xf16>
    %bias = tpu.Weight dense "self_attention.query_key_value.bias" : tensor<4608xf16>
    ```

    `dense` is the tensor itself, rounded to the element type. The other forms are parts of the
    matrix quantized as `scheme` says (`w8a16` if left out): `codes` `i8[N, K]` (`i8[N, K / 2]` for
    four bits), `scale` `[N, G]`, `zero` `i8[N, G]`; for `int8`, `requant` `i32[N, 3]`,
    `input_scale` and `output_scale` `f32[1, 1]`, which calibration gives (`bias` is the key of the
    layer's bias, which `requant` takes in). With `transposed`, the container holds `[K, N]` where
    the op's matrix is `[N, K]`.

    Invariants:

    - `codes are i8 of rank 2, not tensor<...>`
    - `scale is floating-point of rank 2, not tensor<...>`
    - `zero is i8 of rank 2, not tensor<...>`
    - `requant is i32 of shape [N, 3], not tensor<...>`
    - `input_scale is f32 of shape [1, 1], not tensor<...>`
    - `output_scale is f32 of shape [1, 1], not tensor<...>`
    - `dense does not hold codes: tensor<...>`
    - `dense has no scheme`
    - `unknown quantization ...`
    - `only a matrix is transposed, not tensor<...>`
    """

    name = "tpu.Weight"

    form = prop_def(WeightFormAttr)
    scheme = opt_prop_def(StringAttr)
    bias = opt_prop_def(StringAttr)
    transposed = opt_prop_def(UnitAttr)

    assembly_format = "$form $key attr-dict `:` type($result)"

    def __init__(
        self,
        key: str,
        shape: Sequence[int],
        element: ElementType,
        *,
        form: WeightForm | str = WeightForm.DENSE,
        scheme: str = DEFAULT_SCHEME,
        bias: str | None = None,
        transposed: bool = False,
    ) -> None:
        TpuOp.__init__(
            self,
            properties={
                "key": StringAttr(key),
                "form": WeightFormAttr(WeightForm(form)),
                "scheme": None if scheme == DEFAULT_SCHEME else StringAttr(scheme),
                "bias": None if bias is None else StringAttr(bias),
                "transposed": UnitAttr() if transposed else None,
            },
            result_types=[tensor_type(tuple(shape), element)],
        )

    @property
    def scheme_name(self) -> str:
        """The name of the scheme of all forms but `dense`."""
        return DEFAULT_SCHEME if self.scheme is None else self.scheme.data

    def check(self) -> None:
        super().check()
        shape, element, form = shape_of(self.result), storage_of(self.result), self.form.data
        held = self.result.type
        rank = len(shape)
        if form == WeightForm.CODES:
            require(element == I8 and rank == 2, f"codes are i8 of rank 2, not {held}")
        elif form == WeightForm.SCALE:
            fits = element.is_float and rank == 2
            require(fits, f"scale is floating-point of rank 2, not {held}")
        elif form == WeightForm.ZERO:
            require(element == I8 and rank == 2, f"zero is i8 of rank 2, not {held}")
        elif form == WeightForm.REQUANT:
            fits = element == I32 and rank == 2 and shape[1] == 3
            require(fits, f"requant is i32 of shape [N, 3], not {held}")
        elif form in (WeightForm.INPUT_SCALE, WeightForm.OUTPUT_SCALE):
            require(
                element == F32 and shape == (1, 1), f"{form} is f32 of shape [1, 1], not {held}"
            )
        else:
            require(element != I8, f"dense does not hold codes: {held}")
            require(self.scheme is None, "dense has no scheme")
        require(is_scheme(self.scheme_name), f"unknown quantization {self.scheme_name!r}")
        require(
            self.transposed is None or len(shape) == 2,
            f"only a matrix is transposed, not {held}",
        )


@irdl_op_definition
class StateOp(TpuOp, graph.State):
    """A tensor that lives between calls.

    ```mlir
    %cache = tpu.State "k_cache" : tensor<512x256xf16>
    ```
    """

    name = "tpu.State"


@irdl_op_definition
class CallOp(TpuOp, graph.Call):
    """Call a function under key scopes.

    ```mlir
    %y = tpu.Call @layer(%x, %positions) {scopes = ["encoder.layers.0.", "encoder.layers.1."]} :
      (tensor<512x4096xf16>, tensor<512xi32>) -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Call"


@irdl_op_definition
class GatherOp(TpuOp, graph.Gather):
    """Pick rows of a table.

    ```mlir
    %y = tpu.Gather %table, %ids : tensor<65024x4096xf16>, tensor<512xi32> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Gather"


@irdl_op_definition
class CacheUpdateOp(TpuOp, graph.CacheUpdate):
    """Write rows into a state.

    ```mlir
    %new = tpu.CacheUpdate %cache, %rows at %positions :
      tensor<512x256xf16>, tensor<1x256xf16>, tensor<1xi32> -> tensor<512x256xf16>
    ```
    """

    name = "tpu.CacheUpdate"
