"""The rewrite language: rules as patterns of ops, conditions, and what replaces them.

`syntax` is a rule as it is written, `rule` what it means once it is checked; `checking.load_rules`
goes from the one to the other. `pattern.RulePattern` makes ordinary xDSL patterns of rules,
`rule_pass.RulePass` passes. docs/rules.md is the reference of the language.
"""
