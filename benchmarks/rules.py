"""What a hundred rules cost: on ops that they match and on ops that they do not, beside one rule and
beside the same hundred patterns written by hand and tried in turn.

Rule number k turns `top.Relu(top.MulConst(x) {value: k})` into `top.Relu(x)`, so all rules have one
root and must be told apart by what makes its operand.
"""

from __future__ import annotations

from statistics import median

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


def main() -> None:
    """Print seconds and ratios beside their limits."""
    text = "".join(RULE.format(k=k) for k in range(1, 101))
    load_rules(Source("warm", RULE.format(k=1)))
    loads = median(seconds(lambda: load_rules(Source("rules", text))) for _ in range(ROUNDS))
    report("100 rules: parse and check", loads, PARSE_LIMIT_S, "s")
    rules = load_rules(Source("rules", text)).rules
    patterns = {count: RulePattern(rules[:count]) for count in (1, 10, 100)}
    by_hand = PatternRewriteWalker(
        GreedyRewritePatternApplier([DropFactor(float(k)) for k in range(1, 101)])
    )
    # The last rule of the list is the one that matches, which is the worst case for trying in turn.
    for title, factor, first in (("matching", 100.0, rules[99:]), ("not matching", 0.5, rules[:1])):
        patterns[1] = RulePattern(first)
        for count in (1, 10, 100):
            if title == "matching" and count == 10:
                patterns[10] = RulePattern(rules[90:])
            modules = [graph(factor) for _ in range(ROUNDS)]
            took = median(seconds(lambda m=m, c=count: apply_patterns(m, [patterns[c]])) for m in modules)
            report(f"{count} rules on {OPS} ops, {title}", took, LIMIT_S, "s")
        one_and_all = iter([graph(factor) for _ in range(2 * ROUNDS)])
        _, _, ratio = paired(
            lambda: apply_patterns(next(one_and_all), [patterns[100]]),
            lambda: apply_patterns(next(one_and_all), [patterns[1]]),
            ROUNDS,
        )
        report(f"100 rules to 1 rule, {title}", ratio, RATIO_LIMIT, "x")
        hand = iter([graph(factor) for _ in range(2 * ROUNDS)])
        ours, theirs, ratio = paired(
            lambda: apply_patterns(next(hand), [patterns[100]]),
            lambda: by_hand.rewrite_module(next(hand)),
            ROUNDS,
        )
        report(f"100 rules to 100 patterns by hand ({theirs:.3f} s), {title}", ratio, 1.0, "x")


if __name__ == "__main__":
    main()
