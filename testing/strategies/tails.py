"""Distributions of weights, from which matrices are drawn: those that the closed formulas for
quantization noise know (`backends.reference.distributions`)."""

from tilewright.backends.reference.distributions import (
    DISTRIBUTIONS,
    GAUSSIAN,
    HALF_GAUSSIAN,
    LAPLACE,
    STUDENT_T4,
    UNIFORM,
    Distribution,
    quantile_table,
)

__all__ = [
    "DISTRIBUTIONS",
    "GAUSSIAN",
    "HALF_GAUSSIAN",
    "LAPLACE",
    "STUDENT_T4",
    "UNIFORM",
    "Distribution",
    "quantile_table",
]
