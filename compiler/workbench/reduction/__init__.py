"""Shrinks a module while a failure stays: `reduce_module`."""

from tilewright.compiler.workbench.reduction.reduce import Reduction, reduce_module

__all__ = ["Reduction", "reduce_module"]
