"""What a hundred rules cost, on ops that they match and on ops that they do not.

The peers of the same run: one rule, and the same hundred patterns written by hand and tried in
turn. Rule number k turns `top.Relu(top.MulConst(x) {value: k})` into `top.Relu(x)`, so all rules
have one root and must be told apart by what makes its operand.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import process_time

from timing import paired, report, seconds
from xdsl.dialects.builtin import FunctionType, ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region
from xdsl.pattern_rewriter import (
    GreedyRewritePatternApplier,
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
)

from tilewright.dialects import top
from tilewright.dialects.element_types import F32, tensor_type
from tilewright.passes.rewriting import apply_patterns
from tilewright.passes.rules.checking import load_rules
from tilewright.passes.rules.parser import parse
from tilewright.passes.rules.pattern import RulePattern
from tilewright.passes.rules.source import Source

OPS = 5000
ROUNDS = 5
LIMIT_S = 2.0
PARSE_LIMIT_S = 0.05
RATIO_LIMIT = 1.5

RULE = """
/// Drop a factor of {k} before a Relu.
rule DropFactor{k} {{
  match {{ y = top.Relu(top.MulConst(x) {{value: {k}}}) }}
  where rank(x) == 2
  replace y with top.Relu(x)
}}
"""


class DropFactor(RewritePattern):
    """The same by hand."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        if not isinstance(op, top.ReluOp):
            return
        product = op.x.owner
        if not isinstance(product, top.MulConstOp) or product.value.value.data != self.factor:
            return
        rewriter.replace(op, top.ReluOp(product.x))
        if not product.result.uses:
            rewriter.erase(product)


def graph(factor: float) -> ModuleOp:
    """`OPS` ops: pairs of a `MulConst` and a `Relu`."""
    block = Block(arg_types=[tensor_type((4, 8), F32)])
    value = block.args[0]
    for _ in range(OPS // 2):
        scaled = top.MulConstOp(value, factor)
        relu = top.ReluOp(scaled.result)
        block.add_ops([scaled, relu])
        value = relu.result
    block.add_op(ReturnOp(value))
    kind = FunctionType.from_lists([block.args[0].type], [value.type])
    return ModuleOp([FuncOp("f", kind, Region(block))])


def rewriting(factor: float, pattern: RulePattern) -> Callable[[], object]:
    """Applies a pattern to a new graph at each call, which is made beforehand."""
    graphs = [graph(factor) for _ in range(ROUNDS)]
    return lambda: apply_patterns(graphs.pop(), [pattern])


def by_hand(factor: float) -> Callable[[], object]:
    """Tries the hundred patterns in turn."""
    graphs = [graph(factor) for _ in range(ROUNDS)]
    patterns = [DropFactor(float(k)) for k in range(1, 101)]
    walker = PatternRewriteWalker(GreedyRewritePatternApplier(list(patterns)))
    return lambda: walker.rewrite_module(graphs.pop())


def cpu_seconds(run: Callable[[], object]) -> float:
    """CPU seconds of one call: it is too short for the clock of a machine that others use too."""
    start = process_time()
    run()
    return process_time() - start


def main() -> None:
    """Print seconds and ratios beside their limits."""
    text = "".join(RULE.format(k=k) for k in range(1, 101))
    load_rules(Source("warm", RULE.format(k=1)))
    parsing = min(cpu_seconds(lambda: parse(Source("rules", text))) for _ in range(ROUNDS))
    report("100 rules: parse, seconds of CPU", parsing, PARSE_LIMIT_S, "s")
    rules = load_rules(Source("rules", text)).rules
    # Of each number the last rules: the one that matches is the last to be tried in turn.
    patterns = {count: RulePattern(rules[-count:]) for count in (1, 10, 100)}
    for title, factor in (("matching", 100.0), ("not matching", 0.5)):
        for count, pattern in patterns.items():
            run = rewriting(factor, pattern)
            took = median(seconds(run) for _ in range(ROUNDS))
            report(f"{count} rules on {OPS} ops, {title}", took, LIMIT_S, "s")
        _, _, ratio = paired(
            rewriting(factor, patterns[100]), rewriting(factor, patterns[1]), ROUNDS
        )
        report(f"100 rules to 1 rule, {title}", ratio, RATIO_LIMIT, "x")
        _, hand_s, ratio = paired(rewriting(factor, patterns[100]), by_hand(factor), ROUNDS)
        report(f"100 rules to 100 by hand ({hand_s:.3f} s), {title}", ratio, 1.0, "x")


if __name__ == "__main__":
    main()
