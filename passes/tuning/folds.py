"""Where a factor on the inputs of linear layers can be taken out of what makes these inputs.

`(x / s) (W * s)^T = x W^T`: the columns of a weight may be multiplied by `s`, input by input, if
what makes the inputs is divided by `s`. That can be done to

- the weight and bias of an RMSNorm or LayerNorm;
- the rows of `up` in `gate * up` (SwiGLU, `SiLU(gate) * up`): the product is linear in `up`;
- the rows of the values' projection before attention, whose output is linear in the values; query
  heads that share a head of values share their factors;
- the rows of a linear layer that is read directly;

also where the rows are those of a larger matrix that is cut by slices (queries, keys and values in
one, gate and up in one), and where the values go through a cache. It is exact only if nothing else
reads what is divided, in any function of the module: that is checked by resolved key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from tilewright.dialects import top
from tilewright.dialects.graph import shape_of
from tilewright.passes.tuning.layers import walk_public

NORM, PRODUCT, ATTENTION, LINEAR = "norm", "product", "attention", "linear"


@dataclass(frozen=True)
class Producer:
    """Elements `start`, `start + 1`, ... of a weight along `axis`, one for each class."""

    key: str
    axis: int
    start: int


@dataclass(frozen=True)
class Fold:
    """Linear layers with one input, and what makes it.

    A factor `s[c]` divides element `c` of the producers and multiplies the inputs `k` of the
    consumers with `class_of[k] == c`.
    """

    kind: str
    consumers: tuple[str, ...]
    """Resolved keys of weights."""
    producers: tuple[Producer, ...]
    class_of: tuple[int, ...]

    @property
    def classes(self) -> int:
        """How many factors there are."""
        return max(self.class_of) + 1


@dataclass(frozen=True)
class _Rows:
    """Columns `start`, `start + 1`, ... of the result of a linear layer."""

    op: top.MatMulOp
    start: int


@dataclass(frozen=True)
class _Source:
    """What makes a value, and the states on the way; keys are relative to the scope."""

    kind: str
    producers: tuple[Producer, ...]
    class_of: tuple[int, ...]
    states: tuple[str, ...] = ()


@dataclass
class _Claims:
    """How often a fold was found, over all functions and scopes."""

    count: int = 0
    states: set[str] = field(default_factory=set[str])


def find_folds(module: ModuleOp) -> list[Fold]:
    """The folds of a module, in the order of execution of their first consumers."""
    reads: Counter[str] = Counter()
    found: dict[Fold, _Claims] = {}
    for op, scope in walk_public(module):
        if isinstance(op, top.WeightOp | top.StateOp):
            reads[_read_key(op, scope)] += len(list(op.result.uses))
        for result in op.results:
            fold = _fold(result, scope)
            if fold is not None:
                claims = found.setdefault(fold[0], _Claims())
                claims.count += 1
                claims.states.update(fold[1])
    return [fold for fold, claims in found.items() if _is_alone(fold, claims, reads)]


def _read_key(op: top.WeightOp | top.StateOp, scope: str) -> str:
    return ("state " if isinstance(op, top.StateOp) else "") + scope + op.key.data


def _is_alone(fold: Fold, claims: _Claims, reads: Counter[str]) -> bool:
    """Whether every read of the weights and states is part of the fold."""
    keys = {*fold.consumers, *(producer.key for producer in fold.producers), *claims.states}
    distinct = len(set(fold.consumers)) == len(fold.consumers)
    return distinct and all(reads[key] == claims.count for key in keys)


def _fold(value: SSAValue, scope: str) -> tuple[Fold, tuple[str, ...]] | None:
    """The fold whose consumers read `value`, and the states on the way; none if there is none."""
    consumers = list(_consumers(value))
    if not consumers or None in consumers:
        return None
    source = _source_of(value)
    if source is None:
        return None
    fold = Fold(
        source.kind,
        tuple(sorted(scope + key for key in consumers if key is not None)),
        tuple(Producer(scope + p.key, p.axis, p.start) for p in source.producers),
        source.class_of,
    )
    return fold, tuple(f"state {scope}{key}" for key in source.states)


def _consumers(value: SSAValue) -> Iterator[str | None]:
    """The weights that `value` is multiplied with; None for a use that is no linear layer."""
    for use in value.uses:
        op = use.operation
        weight = op.right.owner if isinstance(op, top.MatMulOp) else None
        is_input = isinstance(op, top.MatMulOp) and op.x is value and use.index == 0
        yield weight.key.data if isinstance(weight, top.WeightOp) and is_input else None


def _source_of(value: SSAValue) -> _Source | None:
    op = value.owner
    width = shape_of(value)[-1]
    if isinstance(op, top.RMSNormOp | top.LayerNormOp):
        return _of_norm(op, width)
    if isinstance(op, top.SwiGLUOp):
        return _of_rows(PRODUCT, op.up, op)
    if isinstance(op, top.MulOp):
        if shape_of(op.a) != shape_of(op.b):
            return None
        return _of_rows(PRODUCT, op.b, op) or _of_rows(PRODUCT, op.a, op)
    if isinstance(op, top.AttentionOp):
        return _of_attention(op)
    if isinstance(op, top.MatMulOp | top.SliceOp):
        return _of_rows(LINEAR, value, None)
    return None


def _of_norm(op: top.RMSNormOp | top.LayerNormOp, width: int) -> _Source | None:
    if op.weight is None:
        return None
    vectors = [op.weight] if isinstance(op, top.RMSNormOp) else [op.weight, op.bias]
    weights = [vector.owner for vector in vectors if vector is not None]
    keys = [weight.key.data for weight in weights if isinstance(weight, top.WeightOp)]
    if len(keys) < len(weights):
        return None
    return _Source(NORM, tuple(Producer(key, 0, 0) for key in keys), tuple(range(width)))


def _of_rows(kind: str, value: SSAValue, reader: Operation | None) -> _Source | None:
    """The rows of a linear layer that make `value`, which only `reader` may read (its consumers
    have been checked if that is None)."""
    if reader is not None and not _is_read_only_by(value, reader):
        return None
    rows = _rows(value)
    producers = None if rows is None else _producers(rows)
    if producers is None:
        return None
    return _Source(kind, producers, tuple(range(shape_of(value)[-1])))


def _of_attention(op: top.AttentionOp) -> _Source | None:
    """The values' projection, read directly or through a cache."""
    states: tuple[str, ...] = ()
    values, reader = op.v, op
    update = values.owner
    if isinstance(update, top.CacheUpdateOp):
        cache = update.cache.owner
        if not isinstance(cache, top.StateOp) or not _is_read_only_by(values, op):
            return None
        states = (cache.key.data,)
        values, reader = update.rows, update
    found = _of_rows(ATTENTION, values, reader)
    if found is None:
        return None
    heads, groups = op.num_heads.value.data, op.num_kv_heads.value.data
    size = shape_of(op.v)[-1] // groups
    class_of = tuple(
        (head // (heads // groups)) * size + i for head in range(heads) for i in range(size)
    )
    return _Source(ATTENTION, found.producers, class_of, states)


def _is_read_only_by(value: SSAValue, reader: Operation) -> bool:
    return [use.operation for use in value.uses] == [reader]


def _rows(value: SSAValue) -> _Rows | None:
    """The linear layer whose columns `value` is, if nobody else reads these columns."""
    op = value.owner
    if isinstance(op, top.MatMulOp):
        return _Rows(op, 0)
    if not isinstance(op, top.SliceOp) or not isinstance(op.x.owner, top.MatMulOp):
        return None
    mine = _columns(op)
    for use in op.x.uses:
        other = use.operation
        if other is op:
            continue
        if not isinstance(other, top.SliceOp):
            return None
        first, last = _columns(other)
        if first < mine[1] and mine[0] < last:
            return None
    return _Rows(op.x.owner, mine[0])


def _columns(op: top.SliceOp) -> tuple[int, int]:
    """The range of the last axis that a slice takes."""
    start = op.offsets.get_values()[-1]
    return start, start + shape_of(op.result)[-1]


def _producers(rows: _Rows) -> tuple[Producer, ...] | None:
    """The weight and bias of a linear layer whose result's columns from `rows.start` are meant."""
    op = rows.op
    if not isinstance(op.right.owner, top.WeightOp):
        return None
    axis = 1 if op.right_transpose is None else 0
    producers = [Producer(op.right.owner.key.data, axis, rows.start)]
    if op.bias is not None:
        if not isinstance(op.bias.owner, top.WeightOp):
            return None
        producers.append(Producer(op.bias.owner.key.data, 0, rows.start))
    return tuple(producers)
