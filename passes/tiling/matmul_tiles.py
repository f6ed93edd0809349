"""Matrix multiplications as the tilings see them, and the local tiles that a tiling needs.

`y[m, n] = sum_k x[m, k] * w[n, k]` (or `w[k, n]`), with tiles of `tm` x `tn` x `tk`. Two roles:

- **channels left**: the weight tile is the left operand of the matrix unit, so that output channels
  lie over the lanes, and the product is transposed before the store. x stays resident. One
  row of x then costs `1 / matrix_rows` of a full set, and not a whole set of lanes.
- **rows left**: the rows of x lie over the lanes; a resident x tile meets one weight tile after
  the other. Where `tk < k`, x and w tiles stream and partial sums stay in f32.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

from tilewright.backends.chip import Chip
from tilewright.dialects.element_types import F32, I8, ElementType
from tilewright.dialects.memory_types import LocalType, align_up
from tilewright.dialects.quantization import CodeFormat


@dataclass(frozen=True)
class Epilogue:
    """What is computed of each f32 product before it is rounded, element by element."""

    commands: int = 0
    passes: int = 0
    """Vector passes over the product in f32, those of all `commands` together."""
    tiles: int = 0
    """F32 tiles of the product's shape that are there at once, the product not counted."""


NO_EPILOGUE = Epilogue()


@dataclass(frozen=True)
class Problem:
    """A (batched) matrix multiplication: `batches` times `m` x `n` x `k`."""

    m: int
    n: int
    k: int
    element: ElementType
    """Type of x, and of the weight on the matrix unit."""
    result: ElementType
    x_pitch_bytes: int
    scale: ElementType | None = None
    """Type of the scales where the weight is stored as codes."""
    code_format: CodeFormat = CodeFormat.I8
    group: int = 0
    """Inputs that share a scale; 0 where all of a channel do."""
    zero_point: bool = False
    """Each scale has a zero point, `i8`."""
    bias: ElementType | None = None
    channels_are_rows: bool = True
    """The weight is stored `[n, k]`, not `[k, n]`."""
    batches: int = 1
    epilogue: Epilogue = NO_EPILOGUE

    @property
    def stored(self) -> ElementType:
        """Element type of the weight in global memory."""
        return self.element if self.scale is None else I8

    @property
    def stored_bits(self) -> int:
        """Bits of an element of the weight in global memory."""
        return 8 * self.stored.size_bytes if self.scale is None else self.code_format.bits

    @property
    def weight_pitch_bytes(self) -> int:
        return self.stored_cols(self.k if self.channels_are_rows else self.n)

    def stored_cols(self, cols: int) -> int:
        """Bytes of `cols` elements of a row of the weight in global memory."""
        if self.scale is not None:
            return self.code_format.row_bytes(cols)
        return cols * self.element.size_bytes

    def groups(self, depth: int) -> int:
        """Scales of `depth` inputs of a channel."""
        return depth // self.group if self.group else 1

    @property
    def depth_unit(self) -> int:
        """Tiles of `k` are multiples of so much: whole groups, and whole bytes of codes."""
        a_byte = 1 if self.scale is None else 8 // self.code_format.bits
        return lcm(self.group or 1, a_byte)


@dataclass(frozen=True)
class Tiling:
    """Tile sizes, each at most the problem's own, and which operand lies over the lanes."""

    channels_left: bool
    tm: int
    tn: int
    tk: int


@dataclass(frozen=True)
class Buffers:
    """The local tiles of a tiling, in the types that the kernel uses."""

    x: LocalType
    stored: LocalType
    """The weight tile as loaded."""
    weight: LocalType
    """The weight tile as the matrix unit takes it; `stored` itself unless codes are dequantized."""
    scale: LocalType | None
    """The scales of a tile's channels, for all of k."""
    zero: LocalType | None
    bias: LocalType | None
    product: LocalType
    """What the matrix unit writes: f32 where a bias is added, k is split, or more follows."""
    rounded: LocalType
    """The product in the result's type."""
    output: LocalType
    """The stored tile: `rounded`, or its transpose if channels are left."""


def buffers(problem: Problem, tiling: Tiling) -> Buffers:
    """The tiles that a kernel with this tiling uses."""
    element, tm, tn, tk = problem.element, tiling.tm, tiling.tn, tiling.tk
    weight_shape = (tn, tk) if problem.channels_are_rows else (tk, tn)
    shape = (tn, tm) if tiling.channels_left else (tm, tn)
    in_f32 = problem.bias is not None or tk < problem.k or problem.epilogue.commands > 0
    stored = LocalType.of(*weight_shape, element)
    groups = problem.groups(problem.k)
    if problem.scale is not None:
        stored = LocalType.of(tn, problem.code_format.row_bytes(tk), I8)
    return Buffers(
        x=LocalType.of(tm, tk, element),
        stored=stored,
        weight=LocalType.of(*weight_shape, element),
        scale=None if problem.scale is None else LocalType.of(tn, groups, problem.scale),
        zero=LocalType.of(tn, groups, I8) if problem.zero_point else None,
        bias=_bias_tile(problem.bias, tiling),
        product=LocalType.of(*shape, F32 if in_f32 else problem.result),
        rounded=LocalType.of(*shape, problem.result),
        output=LocalType.of(tm, tn, problem.result),
    )


def _bias_tile(element: ElementType | None, tiling: Tiling) -> LocalType | None:
    if element is None:
        return None
    if tiling.channels_left:
        return LocalType.of(tiling.tn, 1, element)
    return LocalType.of(1, tiling.tn, element, replicated=True)


def count(total: int, tile: int) -> int:
    """How many tiles of `tile` cover `total`."""
    return -(-total // tile)


def lane_bytes(problem: Problem, tiling: Tiling, chip: Chip) -> int:
    """Local memory that the tiling needs in each lane, double buffers included.

    Tiles of half a bank and more count as whole banks: they get banks of their own, so that
    no two operands of a command meet in one. Small tiles share what is left of a bank or two.
    """
    tiles = buffers(problem, tiling)
    parts = count(problem.k, tiling.tk)
    sweeps = problem.batches * count(problem.m, tiling.tm)
    outer = 1 + (sweeps * count(problem.n, tiling.tn) > 1)
    # A split k has a first part before its loop, and the others in it.
    streamed = outer if parts == 1 else 4 if outer == 2 else min(parts, 3)
    resident = 1 + (sweeps > 1)
    products = min(parts, 3)
    rings: list[tuple[LocalType, int]] = [
        (tiles.x, resident if parts == 1 else streamed),
        (tiles.stored, streamed),
        (tiles.output, outer),
    ]
    if problem.scale is not None:
        rings.append((tiles.weight, products))
    if tiles.product != tiles.output:
        rings.append((tiles.product, 1))
    if tiles.rounded not in (tiles.product, tiles.output):
        rings.append((tiles.rounded, 1))
    if problem.epilogue.tiles:
        rings.append((tiles.product, problem.epilogue.tiles))
    rings += [
        (tile, streamed) for tile in (tiles.scale, tiles.zero, tiles.bias) if tile is not None
    ]
    large = small = 0
    for tile, ring in rings:
        size = tile.lane_bytes(chip.lanes)
        if 2 * size >= chip.bank_bytes:
            large += ring * align_up(size, chip.bank_bytes)
        else:
            small += ring * size
    return large + align_up(small, chip.bank_bytes)
