"""From the text of a filter to its tree, with errors that show the place."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Final, NoReturn, final

import msgspec
from msgspec import Struct

from hookline.core.errors import Fault, InvalidInput

MAX_TEXT: Final = 2_000
MAX_TERMS: Final = 100
MAX_EACH: Final = 20
"""Comparisons with ``[*]``: each may look at hundreds of values."""
MAX_DEPTH: Final = 20
MAX_LIST: Final = 200
_MAX_INDEX: Final = 6
"""Digits of a list index: payloads of up to 1 MiB have fewer than a million elements."""

Scalar = None | bool | int | Decimal | str


class Op(StrEnum):
    """What a term asks of the value at its path."""

    EQ = "=="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    IN = "in"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    CONTAINS = "contains"
    EXISTS = "exists"


_OPS: Final = frozenset(op.value for op in Op)
ORDERING: Final = frozenset({Op.LT, Op.LE, Op.GT, Op.GE})
_ON_TEXT: Final = frozenset({Op.PREFIX, Op.SUFFIX})

ENVELOPE: Final = {
    "type": "type",
    "id": "id",
    "object.type": "object_type",
    "object.id": "object_id",
    "source.application": "source_application",
    "source.user_id": "source_user",
    "key": "key",
    "correlation_id": "correlation_id",
}
"""Paths outside the payload, and the fields of ``Event`` behind them."""


class Each(Struct, frozen=True):
    """The step ``[*]``: every element of a list."""


Step = str | int | Each


class Path(Struct, frozen=True):
    """Where to look: a field of the event (``field``), or steps into its data (``field`` is "")."""

    text: str
    field: str
    steps: tuple[Step, ...]


class Term(Struct, frozen=True):
    """One comparison. ``literals`` is empty for ``exists``, several for ``in``, else one."""

    text: str
    path: Path
    op: Op
    literals: tuple[Scalar, ...]
    operand: str
    """The literals as they were written."""


class Not(Struct, frozen=True):
    """Holds if its node does not."""

    text: str
    node: Node


class All(Struct, frozen=True):
    """``and``"""

    text: str
    nodes: tuple[Node, ...]


class AnyOf(Struct, frozen=True):
    """``or``"""

    text: str
    nodes: tuple[Node, ...]


Node = Term | Not | All | AnyOf


# --- tokens -----------------------------------------------------------------------------------------


class _Kind(StrEnum):
    NAME = "name"
    NUMBER = "number"
    STRING = "string"
    SIGN = "sign"
    END = "end"


class _Token(Struct, frozen=True):
    kind: _Kind
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


_TOKEN: Final = re.compile(
    r"""[ \t\r\n]*(?:
        (?P<name>[A-Za-z_$][A-Za-z0-9_$\-]*)
      | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
      | (?P<string>"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*")
      | (?P<sign>==|!=|<=|>=|<|>|\(|\)|\[|\]|,|\.|\*)
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
"""Linear in the text: no two branches begin alike."""

_WORDS: Final = frozenset({"and", "or", "not", "true", "false", "null", *_OPS})
_SCALARS: Final[dict[str, Scalar]] = {"true": True, "false": False, "null": None}

_HINTS: Final = {
    "=": "equality is written ==",
    "&": "write and",
    "|": "write or",
    "!": "write not before the condition, or != between path and value",
    "'": 'texts are written in double quotes, "like this"',
    '"': "this text has no closing quote",
    "AND": "write and in small letters",
    "OR": "write or in small letters",
    "NOT": "write not in small letters",
    "not": "write not before the path: not data.status in [...]",
    "exists": "write exists after the path: data.coupon exists",
}


@final
class _Scanner:
    """The tokens of a text, one ahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.last_end = 0
        self.token = self._scan(0)

    def advance(self) -> _Token:
        token = self.token
        self.last_end = token.end
        self.token = self._scan(token.end)
        return token

    def fail(self, expected: str, token: _Token | None = None) -> NoReturn:
        """Raise: ``expected`` is not what stands at ``token`` (the next one, if none is given)."""
        token = token or self.token
        found = "the end" if token.kind is _Kind.END else _shorten(token.text, 40)
        hint = _HINTS.get(token.text)
        self.refuse(f"expected {expected}, found {found}{f'; {hint}' if hint else ''}", token.start)

    def refuse(self, message: str, start: int) -> NoReturn:
        """Raise with the place ``start``."""
        column = f"column {start + 1}: {message}"
        raise InvalidInput(
            f"The filter is not valid: {column}\n{_excerpt(self.text, start)}", [Fault("filter", column)]
        )

    def _scan(self, position: int) -> _Token:
        match = _TOKEN.match(self.text, position)
        if match is None or match.lastgroup is None:
            start = position + len(self.text[position:]) - len(self.text[position:].lstrip(" \t\r\n"))
            letter = self.text[start]
            hint = _HINTS.get(letter)
            self.refuse(f"{letter!r} has no meaning here{f'; {hint}' if hint else ''}", start)
        return _Token(_Kind(match.lastgroup), match[match.lastgroup], match.start(match.lastgroup))


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _excerpt(text: str, start: int) -> str:
    """The stretch of text around ``start`` on one line, and a caret under it on the next."""
    begin = max(0, start - 40)
    line = re.sub(r"\s", " ", text[begin : start + 30])
    return f"  {line}\n  {' ' * (start - begin)}^"


# --- the tree ---------------------------------------------------------------------------------------


def parse(text: str) -> Node:
    """The tree of a filter. Raises ``InvalidInput`` with the place of the first fault."""
    if len(text) > MAX_TEXT:
        fault = f"a filter has at most {MAX_TEXT} characters, this one has {len(text)}"
        raise InvalidInput("The filter is too long", [Fault("filter", fault)])
    return _Parser(text).whole()


@final
class _Parser:
    """Recursive descent; ``MAX_DEPTH`` bounds the recursion."""

    def __init__(self, text: str) -> None:
        self._scanner = _Scanner(text)
        self._depth = 0
        self._terms = 0
        self._each = 0

    def whole(self) -> Node:
        node = self._or()
        if self._scanner.token.kind is not _Kind.END:
            self._scanner.fail("and, or, or the end")
        return node

    def _or(self) -> Node:
        return self._chain("or", self._and, AnyOf)

    def _and(self) -> Node:
        return self._chain("and", self._not, All)

    def _chain(self, word: str, part: Callable[[], Node], join: type[All] | type[AnyOf]) -> Node:
        start = self._scanner.token.start
        nodes = [part()]
        while self._scanner.token.text == word:
            self._scanner.advance()
            nodes.append(part())
        return nodes[0] if len(nodes) == 1 else join(self._since(start), tuple(nodes))

    def _not(self) -> Node:
        token = self._scanner.token
        if token.text == "not":
            self._scanner.advance()
            node = self._nested(token, self._not)
            return Not(self._since(token.start), node)
        if token.text == "(":
            self._scanner.advance()
            node = self._nested(token, self._or)
            self._sign(")", "and, or, or )")
            return node
        return self._term()

    def _nested(self, token: _Token, part: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._scanner.refuse(f"nested more than {MAX_DEPTH} deep", token.start)
        node = part()
        self._depth -= 1
        return node

    def _term(self) -> Term:
        start = self._scanner.token.start
        self._terms += 1
        if self._terms > MAX_TERMS:
            self._scanner.refuse(f"more than {MAX_TERMS} comparisons", start)
        path = self._path()
        op = self._op()
        operand_start = self._scanner.token.start
        literals = self._operand(op)
        operand = "" if op is Op.EXISTS else self._since(operand_start)
        return Term(self._since(start), path, op, literals, operand)

    def _since(self, start: int) -> str:
        return self._scanner.text[start : self._scanner.last_end]

    def _sign(self, sign: str, expected: str) -> None:
        if self._scanner.token.text != sign:
            self._scanner.fail(expected)
        self._scanner.advance()

    # paths

    def _path(self) -> Path:
        token = self._scanner.token
        if token.kind is not _Kind.NAME or token.text in _WORDS:
            self._scanner.fail("a path such as data.total or type")
        self._scanner.advance()
        if token.text == "data":
            steps = self._steps()
            return Path(self._since(token.start), "", steps)
        name = token.text
        while self._scanner.token.text == ".":
            self._scanner.advance()
            name += f".{self._name()}"
        if name not in ENVELOPE:
            known = ", ".join(ENVELOPE)
            shown = _shorten(name, 40)
            self._scanner.refuse(f"{shown} is no path; there are data and {known}", token.start)
        return Path(name, ENVELOPE[name], ())

    def _steps(self) -> tuple[Step, ...]:
        steps: list[Step] = []
        start = self._scanner.token.start
        while self._scanner.token.text in (".", "["):
            sign = self._scanner.advance()
            steps.append(self._name() if sign.text == "." else self._bracket())
        self._each += Each() in steps
        if self._each > MAX_EACH:
            self._scanner.refuse(f"more than {MAX_EACH} comparisons with [*]", start)
        return tuple(steps)

    def _name(self) -> str:
        if self._scanner.token.kind is not _Kind.NAME:
            self._scanner.fail('a field name (write ["…"] for one with other characters)')
        return self._scanner.advance().text

    def _bracket(self) -> Step:
        token = self._scanner.token
        step: Step
        if token.text == "*":
            step = Each()
        elif token.kind is _Kind.STRING:
            step = self._string(token)
        elif token.kind is _Kind.NUMBER and token.text.isdigit() and len(token.text) <= _MAX_INDEX:
            step = int(token.text)
        else:
            self._scanner.fail("a list index (0, 1, …), * or a field name in quotes")
        self._scanner.advance()
        self._sign("]", "]")
        return step

    # operators and values

    def _op(self) -> Op:
        text = self._scanner.token.text
        if text not in _OPS:
            self._scanner.fail("==, !=, <, <=, >, >=, in, prefix, suffix, contains or exists")
        self._scanner.advance()
        return Op(text)

    def _operand(self, op: Op) -> tuple[Scalar, ...]:
        if op is Op.EXISTS:
            return ()
        if op is Op.IN:
            return self._list()
        token = self._scanner.token
        if op in _ON_TEXT and token.kind is not _Kind.STRING:
            self._scanner.fail(f"a text in quotes after {op}")
        if op in ORDERING and token.text in _SCALARS:
            self._scanner.fail(f"a number or text after {op}")
        return (self._scalar(),)

    def _list(self) -> tuple[Scalar, ...]:
        token = self._scanner.token
        self._sign("[", "a list such as [1, 2] after in")
        values = [self._scalar()]
        while self._scanner.token.text == ",":
            self._scanner.advance()
            values.append(self._scalar())
            if len(values) > MAX_LIST:
                self._scanner.refuse(f"a list has at most {MAX_LIST} values", token.start)
        self._sign("]", ", or ]")
        return tuple(values)

    def _scalar(self) -> Scalar:
        token = self._scanner.token
        value: Scalar
        if token.kind is _Kind.STRING:
            value = self._string(token)
        elif token.kind is _Kind.NUMBER:
            value = self._number(token)
        elif token.text in _SCALARS:
            value = _SCALARS[token.text]
        else:
            self._scanner.fail('a value: a number, a "text", true, false or null')
        self._scanner.advance()
        return value

    def _string(self, token: _Token) -> str:
        try:
            return msgspec.json.decode(token.text, type=str)
        except (msgspec.MsgspecError, UnicodeError):
            self._scanner.refuse("this text has an escape that JSON does not know", token.start)

    def _number(self, token: _Token) -> int | Decimal:
        if token.text.lstrip("-").isdigit():
            return int(token.text)
        try:
            return Decimal(token.text)
        except InvalidOperation:
            self._scanner.refuse("this number is out of range", token.start)
