"""Makes the nodes of `syntax` while the parser runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lark import Token, Transformer
from lark.visitors import v_args

from tilewright.passes.rules import syntax
from tilewright.passes.rules.syntax import Expression, Span, Word


def span_of(token: Token) -> Span:
    """Where a token stands."""
    return Span(token.line or 1, token.column or 1, token.end_line or 1, token.end_column or 1)


def _word(token: Token) -> Word:
    return Word(str(token), span_of(token))


@v_args(inline=True)
class SyntaxBuilder(Transformer[Token, object]):
    """Methods are called like the rules of the grammar."""

    def start(self, *items: syntax.Use | syntax.RuleSyntax) -> syntax.FileSyntax:
        return syntax.FileSyntax(
            [item for item in items if isinstance(item, syntax.Use)],
            [item for item in items if isinstance(item, syntax.RuleSyntax)],
        )

    def use(self, module: Word, names: tuple[Word, ...]) -> syntax.Use:
        return syntax.Use(module, names)

    def module(self, token: Token) -> Word:
        return _word(token)

    def rule(
        self,
        doc: str,
        keyword: Token,
        name: Token,
        benefit: int,
        match: tuple[syntax.Statement, ...],
        clauses: tuple[syntax.Where | syntax.Let, ...],
        replace: syntax.Replace,
        end: Token,
    ) -> syntax.RuleSyntax:
        span = span_of(keyword).to(span_of(end))
        return syntax.RuleSyntax(_word(name), doc, benefit, None, match, clauses, replace, span)

    def lowering(
        self,
        doc: str,
        keyword: Token,
        name: Token,
        options: tuple[tuple[Word, syntax.Constant], ...],
        benefit: int,
        match: tuple[syntax.Statement, ...],
        clauses: tuple[syntax.Where | syntax.Let, ...],
        replace: syntax.Replace,
        end: Token,
    ) -> syntax.RuleSyntax:
        span = span_of(keyword).to(span_of(end))
        return syntax.RuleSyntax(_word(name), doc, benefit, options, match, clauses, replace, span)

    def doc(self, *lines: Token) -> str:
        return "\n".join(line.removeprefix("///").strip() for line in lines)

    def options(
        self, *options: tuple[Word, syntax.Constant]
    ) -> tuple[tuple[Word, syntax.Constant], ...]:
        return options

    def option(self, name: Token, value: syntax.Literal) -> tuple[Word, syntax.Constant]:
        return _word(name), value.value

    def benefit(self, number: Token | None) -> int:
        return 1 if number is None else int(number)

    def match(self, *statements: syntax.Statement | Token) -> tuple[syntax.Statement, ...]:
        return tuple(each for each in statements if isinstance(each, syntax.Statement))

    def clauses(self, *clauses: syntax.Where | syntax.Let) -> tuple[syntax.Where | syntax.Let, ...]:
        return clauses

    def where(self, keyword: Token, condition: Expression) -> syntax.Where:
        return syntax.Where(condition, span_of(keyword).to(condition.span))

    def let(self, keyword: Token, name: Token, value: Expression) -> syntax.Let:
        return syntax.Let(_word(name), value, span_of(keyword).to(value.span))

    def replace_with(
        self, keyword: Token, targets: tuple[Word, ...], *values: syntax.Binder
    ) -> syntax.Replace:
        return syntax.Replace(targets, (), values, span_of(keyword).to(values[-1].span))

    def replace_by(
        self,
        keyword: Token,
        targets: tuple[Word, ...],
        *parts: syntax.Statement | tuple[Word, ...] | Token | None,
    ) -> syntax.Replace:
        statements = tuple(part for part in parts if isinstance(part, syntax.Statement))
        names = next((part for part in parts if isinstance(part, tuple)), ())
        values = tuple(syntax.Binder(name, "", (), name.span) for name in names)
        end = parts[-1]
        assert isinstance(end, Token)
        return syntax.Replace(targets, statements, values, span_of(keyword).to(span_of(end)))

    def statement(
        self, root: Token | None, names: tuple[Word, ...] | None, op: syntax.OpCall
    ) -> syntax.Statement:
        start = span_of(root) if root is not None else names[0].span if names else op.span
        marked = None if root is None else _word(root)
        return syntax.Statement(marked, names or (), op, start.to(op.span))

    def names(self, *names: Token) -> tuple[Word, ...]:
        return tuple(_word(name) for name in names)

    def op_call(
        self,
        op: Token,
        operands: tuple[syntax.Operand, ...],
        close: Token,
        attributes: tuple[tuple[syntax.Attribute, ...], Span] | None,
        uses: tuple[Word, Span] | None,
        result_type: syntax.ResultType | None,
    ) -> syntax.OpCall:
        end = span_of(close)
        if attributes is not None:
            end = attributes[1]
        if uses is not None:
            end = uses[1]
        if result_type is not None:
            end = result_type.span
        return syntax.OpCall(
            _word(op),
            operands,
            () if attributes is None else attributes[0],
            None if uses is None else uses[0],
            result_type,
            span_of(op).to(end),
        )

    def operands(self, *operands: syntax.Operand | None) -> tuple[syntax.Operand, ...]:
        return tuple(each for each in operands if each is not None)

    def operand(self, field: Token | None, value: syntax.Binder) -> syntax.Operand:
        name = None if field is None else _word(field)
        return syntax.Operand(name, value, (name or value).span.to(value.span))

    def binder(
        self, name: Token, suffix: Token | None, kinds: tuple[syntax.Kind, ...] | None
    ) -> syntax.Binder:
        last = kinds[-1].span if kinds else span_of(suffix or name)
        span = span_of(name).to(last)
        return syntax.Binder(_word(name), str(suffix or ""), kinds or (), span)

    def kinds(self, *kinds: syntax.Kind) -> tuple[syntax.Kind, ...]:
        return kinds

    def kind(
        self, word: Token, dims: tuple[tuple[Expression | None, ...], Span] | None = None
    ) -> syntax.Kind:
        if dims is None:
            return syntax.Kind(str(word), None, span_of(word))
        return syntax.Kind(str(word), dims[0], span_of(word).to(dims[1]))

    def dims(self, *dims: Expression | Token | None) -> tuple[tuple[Expression | None, ...], Span]:
        end = dims[-1]
        assert isinstance(end, Token)
        listed = tuple(
            None if isinstance(dim, Token) else dim for dim in dims[:-1] if dim is not None
        )
        return listed, span_of(end)

    def absent(self, token: Token) -> syntax.Absent:
        return syntax.Absent(span_of(token))

    def attributes(
        self, *parts: syntax.Attribute | Token | None
    ) -> tuple[tuple[syntax.Attribute, ...], Span]:
        end = parts[-1]
        assert isinstance(end, Token)
        return tuple(part for part in parts if isinstance(part, syntax.Attribute)), span_of(end)

    def attribute(self, name: Token, value: Expression | None) -> syntax.Attribute:
        word = _word(name)
        return syntax.Attribute(word, syntax.Literal(True, word.span) if value is None else value)

    def uses(self, count: Token, end: Token) -> tuple[Word, Span]:
        return _word(count), span_of(end)

    def like_type(self, name: Token) -> syntax.ResultType:
        return syntax.ResultType(_word(name), None, (), span_of(name))

    def explicit_type(
        self, element: Token, dims: tuple[tuple[Expression | None, ...], Span]
    ) -> syntax.ResultType:
        span = span_of(element).to(dims[1])
        return syntax.ResultType(None, _word(element), dims[0], span)

    def binary(self, left: Expression, operator: Token, right: Expression) -> Expression:
        return syntax.Binary(str(operator), left, right, left.span.to(right.span))

    def unary(self, operator: Token, operand: Expression) -> Expression:
        return syntax.Unary(str(operator), operand, span_of(operator).to(operand.span))

    def group(self, inner: Expression, close: Token) -> Expression:
        del close
        return inner

    def name(self, token: Token) -> Expression:
        return syntax.Name(str(token), span_of(token))

    def call(self, name: Token, arguments: tuple[Expression, ...], close: Token) -> syntax.Call:
        word = _word(name)
        return syntax.Call(word, arguments, word.span.to(span_of(close)))

    def arguments(self, *arguments: Expression | None) -> tuple[Expression, ...]:
        return tuple(each for each in arguments if each is not None)

    def listing(self, *parts: Expression | Token | None) -> Expression:
        end = parts[-1]
        assert isinstance(end, Token)
        items = tuple(
            part for part in parts[:-1] if part is not None and not isinstance(part, Token)
        )
        return syntax.Listing(items, (items[0].span if items else span_of(end)).to(span_of(end)))

    def index(self, value: Expression, index: Expression, close: Token) -> Expression:
        return syntax.Index(value, index, value.span.to(span_of(close)))

    def literal(self, token: Token) -> syntax.Literal:
        return syntax.Literal(_CONSTANTS[token.type](str(token)), span_of(token))


def _text(token: str) -> str:
    return token[1:-1]


_CONSTANTS: Mapping[str, Callable[[str], syntax.Constant]] = {
    "INT": int,
    "FLOAT": float,
    "STRING": _text,
    "TRUE": lambda _: True,
    "FALSE": lambda _: False,
    "NONE": lambda _: None,
}
