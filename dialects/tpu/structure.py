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
from tilewright.dialects.element_types import I8, ElementType, tensor_type
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.shape_rules import require
from tilewright.dialects.tpu.base import TpuOp


class WeightForm(StrEnum):
    """What a `tpu.Weight` holds: the whole tensor, its int8 codes, or the scales of its rows."""

    DENSE = auto()
    CODES = auto()
    SCALE = auto()


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

    `dense` is the tensor itself, rounded to the element type; `codes` its int8 codes `[N, K]`;
    `scale` its scales `[N, 1]`. With `transposed`, the container holds `[K, N]` where the op's
    matrix is `[N, K]`.

    Invariants:

    - `codes are i8 of rank 2, not tensor<...>`
    - `scale is floating-point of shape [N, 1], not tensor<...>`
    - `dense does not hold codes: tensor<...>`
    - `only a matrix is transposed, not tensor<...>`
    """

    name = "tpu.Weight"

    form = prop_def(WeightFormAttr)
    transposed = opt_prop_def(UnitAttr)

    assembly_format = "$form $key attr-dict `:` type($result)"

    def __init__(
        self,
        key: str,
        shape: Sequence[int],
        element: ElementType,
        *,
        form: WeightForm | str = WeightForm.DENSE,
        transposed: bool = False,
    ) -> None:
        TpuOp.__init__(
            self,
            properties={
                "key": StringAttr(key),
                "form": WeightFormAttr(WeightForm(form)),
                "transposed": UnitAttr() if transposed else None,
            },
            result_types=[tensor_type(tuple(shape), element)],
        )

    def check(self) -> None:
        super().check()
        shape, element, form = shape_of(self.result), storage_of(self.result), self.form.data
        held = self.result.type
        if form == WeightForm.CODES:
            require(element == I8 and len(shape) == 2, f"codes are i8 of rank 2, not {held}")
        elif form == WeightForm.SCALE:
            require(
                element.is_float and len(shape) == 2 and shape[1] == 1,
                f"scale is floating-point of shape [N, 1], not {held}",
            )
        else:
            require(element != I8, f"dense does not hold codes: {held}")
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
