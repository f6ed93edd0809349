"""`top` weights, states, calls, and rows picked by index."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.irdl import irdl_op_definition

from tilewright.dialects import graph
from tilewright.dialects.element_types import F32, ElementType
from tilewright.dialects.top.base import TopOp


@irdl_op_definition
class WeightOp(TopOp, graph.Weight):
    """A tensor of the weight container.

    ```mlir
    %w = top.Weight "mlp.dense_h_to_4h.weight" : tensor<27392x4096xf32>
    ```
    """

    name = "top.Weight"

    def __init__(self, key: str, shape: Sequence[int], element: ElementType = F32) -> None:
        super().__init__(key, shape, element)


@irdl_op_definition
class StateOp(TopOp, graph.State):
    """A tensor that lives between calls.

    ```mlir
    %cache = top.State "k_cache" : tensor<512x256xf32>
    ```
    """

    name = "top.State"

    def __init__(self, key: str, shape: Sequence[int], element: ElementType = F32) -> None:
        super().__init__(key, shape, element)


@irdl_op_definition
class CallOp(TopOp, graph.Call):
    """Call a function under key scopes.

    ```mlir
    %y = top.Call @layer(%x, %positions) {scopes = ["encoder.layers.0.", "encoder.layers.1."]} :
      (tensor<512x4096xf32>, tensor<512xi32>) -> tensor<512x4096xf32>
    ```
    """

    name = "top.Call"


@irdl_op_definition
class GatherOp(TopOp, graph.Gather):
    """Pick rows of a table.

    ```mlir
    %y = top.Gather %table, %ids : tensor<65024x4096xf32>, tensor<512xi32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Gather"


@irdl_op_definition
class CacheUpdateOp(TopOp, graph.CacheUpdate):
    """Write rows into a state.

    ```mlir
    %new = top.CacheUpdate %cache, %rows at %positions :
      tensor<512x256xf32>, tensor<1x256xf32>, tensor<1xi32> -> tensor<512x256xf32>
    ```
    """

    name = "top.CacheUpdate"
