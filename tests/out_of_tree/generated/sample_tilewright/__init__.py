"""What this package adds to Tilewright, by name."""

from __future__ import annotations

from tilewright.dialects.plugins import Plugin, lazy

PLUGIN = Plugin(
    name="sample",
    passes={
        "remove-double-negation": lazy(
            "sample_tilewright.remove_double_negation:RemoveDoubleNegationPass"
        ),
        "remove-double-negation-by-rules": lazy(
            "sample_tilewright.remove_double_negation_by_rules:RemoveDoubleNegationByRulesPass"
        ),
    },
)
