"""A block of your own: a gated mixer of tokens and features, stacked six times.

`outlined = True` makes the block a function: it is traced once and called six times, each time
under another key scope, and its kernels are compiled once. Attributes name the weights, as in
PyTorch; every op knows its line here.
"""

from __future__ import annotations

import numpy as np

from tilewright.compiler import dsl
from tilewright.compiler.executable import compile_module
from tilewright.compiler.pipeline import CompileOptions
from tilewright.dialects import top
from tilewright.dialects.errors import UnsupportedError
from tilewright.dialects.scopes import where_of

TOKENS, FEATURES, HIDDEN, BLOCKS = 16, 48, 128, 6


class Mixer(dsl.Module):
    """Mixes tokens with each other, then features, each time gated and added to the input."""

    outlined = True

    def __init__(self) -> None:
        self.norm = dsl.LayerNorm(FEATURES, eps=1e-5)
        self.tokens = dsl.Parameter(TOKENS, TOKENS)
        self.gate = dsl.Linear(FEATURES, HIDDEN)
        self.up = dsl.Linear(FEATURES, HIDDEN, bias=True)
        self.down = dsl.Linear(HIDDEN, FEATURES)
        self.strength = dsl.Parameter(FEATURES)

    def forward(self, x: dsl.Operand) -> dsl.Tensor:
        mixed = (x.permute(1, 0) @ self.tokens).permute(1, 0)
        h = self.norm(x + mixed)
        h = self.down(dsl.gelu(self.gate(h)) * self.up(h))
        return x + h * self.strength


class Network(dsl.Module):
    """The blocks, and the mean over the features of each token."""

    def __init__(self) -> None:
        self.blocks = [Mixer() for _ in range(BLOCKS)]

    def main(self, x: dsl.Operand) -> dsl.Tensor:
        for block in self.blocks:
            x = block(x)
        return dsl.reduce(x, "mean")


def run() -> None:
    network = Network()
    module = dsl.trace(dsl.function(x=dsl.f32(TOKENS, FEATURES))(network.main))
    print(module)
    gelu = next(op for op in module.walk() if isinstance(op, top.GELUOp))
    print("comes from:", where_of(gelu))

    generator = np.random.default_rng(0)
    arrays = {
        key: (generator.standard_normal(leaf.shape) / leaf.shape[-1] ** 0.5).astype(np.float32)
        for key, leaf in network.leaves()
    }

    x = generator.standard_normal((TOKENS, FEATURES)).astype(np.float32)
    executable = compile_module(module, arrays, CompileOptions("w8a16"))
    (result,) = executable.run("main", x=x)
    print("result:", result[:4, 0], "in", f"{executable.times()['main'].cycles:,} cycles")
    print(
        f"{len(executable.program.kernels)} kernels for "
        f"{len(executable.program.functions[0].launches)} launches"
    )

    try:
        dsl.trace(dsl.function(x=dsl.f32(TOKENS + 1, FEATURES))(network.main))
    except UnsupportedError as error:
        print("a wrong shape is reported at the line above that makes it:")
        print(error)


if __name__ == "__main__":
    run()
