"""Strategies of Hypothesis for quantized arithmetic."""

from tilewright.testing.strategies.activations import (
    activations,
    cancelling,
    integer_activations,
)
from tilewright.testing.strategies.configurations import (
    QuantizerConfig,
    quantizer_configs,
    schemes,
)
from tilewright.testing.strategies.graphs import TopGraph, top_graphs
from tilewright.testing.strategies.scalars import (
    bfloat16s,
    bit_arrays,
    float8s_e4m3,
    float8s_e5m2,
    float16s,
    int4s,
    packed_int4_bytes,
    scalars,
)
from tilewright.testing.strategies.shapes import lengths, matrix_shapes
from tilewright.testing.strategies.tails import (
    DISTRIBUTIONS,
    GAUSSIAN,
    HALF_GAUSSIAN,
    LAPLACE,
    STUDENT_T4,
    UNIFORM,
    Distribution,
)
from tilewright.testing.strategies.weights import (
    constant_channels,
    grid_steps,
    largest_f16,
    log_uniform,
    near_subnormal_scales,
    on_grid,
    one_sided,
    outliers,
    tailed,
    ties,
    weights,
    with_zero_channels,
)

__all__ = [
    "DISTRIBUTIONS",
    "GAUSSIAN",
    "HALF_GAUSSIAN",
    "LAPLACE",
    "STUDENT_T4",
    "UNIFORM",
    "Distribution",
    "QuantizerConfig",
    "TopGraph",
    "activations",
    "bfloat16s",
    "bit_arrays",
    "cancelling",
    "constant_channels",
    "float8s_e4m3",
    "float8s_e5m2",
    "float16s",
    "grid_steps",
    "int4s",
    "integer_activations",
    "largest_f16",
    "lengths",
    "log_uniform",
    "matrix_shapes",
    "near_subnormal_scales",
    "on_grid",
    "one_sided",
    "outliers",
    "packed_int4_bytes",
    "quantizer_configs",
    "scalars",
    "schemes",
    "tailed",
    "ties",
    "top_graphs",
    "weights",
    "with_zero_channels",
]
