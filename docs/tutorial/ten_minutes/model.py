"""A small MLP as `mlp.mlir`, its weights, and one input: y = down(gelu(up(x) + bias))."""

import numpy as np

from tilewright.compiler import dsl
from tilewright.compiler.importers.mlir import save_mlir

TOKENS, FEATURES, HIDDEN = 64, 256, 1024


class MLP(dsl.Module):
    def __init__(self):
        self.up = dsl.Linear(FEATURES, HIDDEN)
        self.bias = dsl.Parameter(HIDDEN)
        self.down = dsl.Linear(HIDDEN, FEATURES)

    def main(self, x):
        return self.down(dsl.gelu(self.up(x) + self.bias, approximate="tanh"))


rng = np.random.default_rng(0)
shapes = {"up.weight": (HIDDEN, FEATURES), "bias": (HIDDEN,), "down.weight": (FEATURES, HIDDEN)}
weights = {key: rng.normal(0, 0.04, shape).astype(np.float32) for key, shape in shapes.items()}
save_mlir("mlp.mlir", dsl.trace(dsl.function(x=dsl.f32(TOKENS, FEATURES))(MLP().main)), weights)
np.savez("inputs.npz", x=rng.standard_normal((TOKENS, FEATURES)).astype(np.float32))
