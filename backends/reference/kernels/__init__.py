"""Executes kernel functions (`scf`, `gdma`, `bdc`) on arrays, with bounds of their errors."""

from tilewright.backends.reference.kernels.running import Kernel, run_kernel

__all__ = ["Kernel", "run_kernel"]
