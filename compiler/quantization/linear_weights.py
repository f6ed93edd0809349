"""The weights whose scheme can be chosen: those of linear layers, the head and the embedding."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from tilewright.dialects import top
from tilewright.dialects.graph import shape_of
from tilewright.dialects.scopes import functions_of, walk_calls
from tilewright.passes.lowerings.conversion import is_head, role_of

_LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class LinearWeight:
    """A matrix `[channels, depth]` of the checkpoint and what the model does with it."""

    key: str
    channels: int
    depth: int
    is_head: bool = False
    """It makes the logits."""
    is_embedding: bool = False
    """Rows of it are looked up; with tied weights it is the head, too."""
    transposed: bool = False
    """The checkpoint holds `[depth, channels]`."""

    @property
    def is_layer(self) -> bool:
        """Whether it is neither head nor embedding, which stay dense unless asked for."""
        return not (self.is_head or self.is_embedding)

    @property
    def elements(self) -> int:
        return self.channels * self.depth


def linear_weights(module: ModuleOp) -> dict[str, LinearWeight]:
    """The weights of a top module whose scheme can be chosen, by resolved key.

    These are the right operands of `top.MatMul`, and the table of the `top.Gather` with
    `top.role = "embedding"`. Weights of other ops (norms, RoPE tables, composites) are not among
    them.
    """
    found: dict[str, LinearWeight] = {}
    for function in functions_of(module).values():
        if function.sym_visibility is not None:
            continue
        for op, scope in walk_calls(module, function):
            weight = _weight_of(op)
            if weight is None:
                continue
            key = scope + weight.key
            known = found.get(key)
            if known is None:
                found[key] = replace(weight, key=key)
            else:
                found[key] = replace(
                    known,
                    is_head=known.is_head or weight.is_head,
                    is_embedding=known.is_embedding or weight.is_embedding,
                )
    return found


def _weight_of(op: Operation) -> LinearWeight | None:
    """The weight of a linear layer or of an embedding, with its key in its function."""
    if isinstance(op, top.MatMulOp):
        key = _key(op.right)
        if key is None:
            return None
        rows, columns = shape_of(op.right)
        if op.right_transpose is not None:
            return LinearWeight(key, rows, columns, is_head=is_head(op))
        return LinearWeight(key, columns, rows, is_head=is_head(op), transposed=True)
    if isinstance(op, top.GatherOp) and role_of(op) == "embedding":
        key = _key(op.table)
        if key is not None:
            rows, columns = shape_of(op.table)
            return LinearWeight(key, rows, columns, is_embedding=True)
    return None


def _key(value: SSAValue) -> str | None:
    owner = value.owner
    if not isinstance(owner, top.WeightOp) or len(shape_of(value)) != 2:
        return None
    return owner.key.data


def kind_of(key: str) -> str:
    """What is the same in all layers: the key with `*` for the numbers of layers.

    `model.layers.3.mlp.down_proj.weight` is a `model.layers.*.mlp.down_proj.weight`.
    """
    return _LAYER_NUMBER.sub("*", key)


def listed_kinds(keys: Iterable[str]) -> list[str]:
    """The kinds among `keys`, in order, with how many there are of each."""
    counts: dict[str, int] = {}
    for key in keys:
        counts[kind_of(key)] = counts.get(kind_of(key), 0) + 1
    return [kind if count == 1 else f"{kind} ({count})" for kind, count in counts.items()]
