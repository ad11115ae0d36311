"""Computed values in exact arithmetic: a small closed language, the same in Decimal and SQL.

    sum      = product {("+" | "-") product}
    product  = unary {("*" | "/") unary}
    unary    = "-" unary | primary
    primary  = number | field | function | "(" sum ")"
    function = ("min" | "max") "(" sum {"," sum} ")" | "round" "(" sum "," places ")"
             | "div" "(" sum "," sum "," places ["," mode] ")"
    field    = key {"." key}, key = name | "`" any characters "`"

`+ - *` are exact. `a / b` is `div(a, b, 18)`: rounded half up at 18 decimals. A field that is
absent refuses the reading; it never counts as zero.
"""

import re
from collections.abc import Callable
from decimal import Decimal, Inexact

from msgspec import Struct

from farebox.catalog.number import NumberCode, number_of, within_limits
from farebox.catalog.path import Data, Fault, compile_path, read_keys
from farebox.money.rounding import EXACT, QUANTITY_DECIMALS, RoundingMode, divide, round_to

TEXT_LENGTH_MAX = 1000
DEPTH_MAX = 50


class Number(Struct, frozen=True):
    """A literal."""

    value: Decimal


class Field(Struct, frozen=True):
    """A value of the event's data, by its chain of keys."""

    keys: tuple[str, ...]


class Negation(Struct, frozen=True):
    """Minus `operand`."""

    operand: "Expression"


class Operation(Struct, frozen=True):
    """`+`, `-` or `*` of two values, exact."""

    sign: str
    left: "Expression"
    right: "Expression"


class Extreme(Struct, frozen=True):
    """`min` or `max` of one or more values."""

    name: str
    operands: tuple["Expression", ...]


class Rounding(Struct, frozen=True):
    """`operand` rounded half up (away from zero) to `places` decimals."""

    operand: "Expression"
    places: int


class Division(Struct, frozen=True):
    """The exact quotient, rounded once."""

    dividend: "Expression"
    divisor: "Expression"
    places: int
    mode: RoundingMode


Expression = Number | Field | Negation | Operation | Extreme | Rounding | Division

NumberReader = Callable[[Data], Decimal | NumberCode]
"""From event data to a quantity within the limits, or the code of why there is none."""


class _Syntax(Exception):
    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(position, message)


def parse_expression(text: str) -> Expression | Fault:
    """Parse the text of a computed value."""
    if len(text) > TEXT_LENGTH_MAX:
        return Fault(TEXT_LENGTH_MAX, f"an expression has at most {TEXT_LENGTH_MAX} characters")
    try:
        parser = _Parser(text)
        node = parser.sum(0)
        if parser.token:
            raise _Syntax(parser.position, f"unexpected {parser.token}")
    except _Syntax as error:
        return error.fault
    return node


def compile_number(text: str) -> NumberReader | Fault:
    """Compile what reads a meter's number: a JSONPath if it starts with `$`, else an expression."""
    if text.startswith("$"):
        path = compile_path(text)
        return path if isinstance(path, Fault) else lambda data: number_of(path(data))
    node = parse_expression(text)
    return node if isinstance(node, Fault) else compile_expression(node)


def compile_expression(node: Expression) -> NumberReader:
    """Return the reader of a parsed expression: all fields first, then the arithmetic."""
    fields = fields_of(node)
    readers = tuple(read_keys(keys) for keys in fields)
    compute = _compile(node, {keys: place for place, keys in enumerate(fields)})

    def read(data: Data) -> Decimal | NumberCode:
        values: list[Decimal] = []
        for reader in readers:
            value = number_of(reader(data))
            if type(value) is NumberCode:
                return value
            values.append(value)  # type: ignore[arg-type]
        try:
            return number_of(compute(values))
        except ZeroDivisionError:
            return NumberCode.DIVISION_BY_ZERO
        except Inexact:  # an intermediate result beyond 120 digits
            return NumberCode.NUMBER_OUT_OF_RANGE

    return read


def fields_of(node: Expression) -> tuple[tuple[str, ...], ...]:
    """Return the fields that an expression reads, each once, in the order of the text."""
    match node:
        case Number():
            return ()
        case Field(keys):
            return (keys,)
        case Negation(operand) | Rounding(operand):
            return fields_of(operand)
        case Operation(_, left, right) | Division(left, right):
            children: tuple[Expression, ...] = (left, right)
        case Extreme(_, operands):
            children = operands
    return tuple(dict.fromkeys(keys for child in children for keys in fields_of(child)))


_Compute = Callable[[list[Decimal]], Decimal]


def _compile(node: Expression, places: dict[tuple[str, ...], int]) -> _Compute:
    match node:
        case Number(value):
            return lambda _: value
        case Field(keys):
            place = places[keys]
            return lambda values: values[place]
        case Negation(operand):
            inner = _compile(operand, places)
            return lambda values: EXACT.minus(inner(values))
        case Operation(sign, left, right):
            return _compile_operation(sign, _compile(left, places), _compile(right, places))
        case Extreme(name, operands):
            choose = min if name == "min" else max
            each = tuple(_compile(operand, places) for operand in operands)
            return lambda values: choose(compute(values) for compute in each)
        case Rounding(operand, decimals):
            inner = _compile(operand, places)
            return lambda values: round_to(inner(values), decimals)
        case Division(dividend, divisor, decimals, mode):
            above, below = _compile(dividend, places), _compile(divisor, places)
            return lambda values: divide(above(values), below(values), decimals, mode)


def _compile_operation(sign: str, left: _Compute, right: _Compute) -> _Compute:
    apply = {"+": EXACT.add, "-": EXACT.subtract, "*": EXACT.multiply}[sign]
    return lambda values: apply(left(values), right(values))


_TOKEN = re.compile(
    r"\s*(?P<token>(?P<number>\d+(?:\.\d+)?)|(?P<name>[^\W\d]\w*)|`(?P<quoted>[^`]+)`"
    r"|(?P<sign>[-+*/(),.]))"
)


class _Parser:
    """Recursive descent with one token of look-ahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.end = 0
        self.advance()

    def advance(self) -> None:
        match = _TOKEN.match(self.text, self.end)
        if match is not None:
            self.position = match.start("token")
            self.end = match.end()
            self.kind = next(
                k for k in ("number", "name", "quoted", "sign") if match[k] is not None
            )
            self.token = match[self.kind]
            return
        rest = self.text[self.end :]
        self.position = self.end + len(rest) - len(rest.lstrip())
        if rest.strip():
            raise _Syntax(self.position, f"unexpected character {self.text[self.position]!r}")
        self.kind = self.token = ""

    def take(self, *signs: str) -> str:
        """Return and pass the sign at hand if it is one of `signs`, otherwise ""."""
        if self.kind != "sign" or self.token not in signs:
            return ""
        found = self.token
        self.advance()
        return found

    def expect(self, sign: str) -> None:
        if not self.take(sign):
            raise _Syntax(self.position, f"expected {sign} before {self.token or 'the end'}")

    def sum(self, depth: int) -> Expression:
        node = self.product(depth)
        while sign := self.take("+", "-"):
            node = Operation(sign, node, self.product(depth))
        return node

    def product(self, depth: int) -> Expression:
        node = self.unary(depth)
        while sign := self.take("*", "/"):
            start = self.position
            right = self.unary(depth)
            node = Operation(sign, node, right) if sign == "*" else _division(node, right, start)
        return node

    def unary(self, depth: int) -> Expression:
        if depth > DEPTH_MAX:
            raise _Syntax(self.position, f"nested deeper than {DEPTH_MAX}")
        if self.take("-"):
            return Negation(self.unary(depth + 1))
        return self.primary(depth)

    def primary(self, depth: int) -> Expression:
        start, kind, token = self.position, self.kind, self.token
        if self.take("("):
            node = self.sum(depth + 1)
            self.expect(")")
            return node
        if kind not in {"number", "name", "quoted"}:
            raise _Syntax(start, f"expected a number or a field before {token or 'the end'}")
        self.advance()
        if kind == "number":
            value = within_limits(Decimal(token))
            if isinstance(value, NumberCode):
                raise _Syntax(start, "a number is below 10^20 with at most 18 decimals")
            return Number(value)
        if kind == "name" and self.take("("):
            return self.function(token, start, depth + 1)
        return self.field(token)

    def field(self, first: str) -> Field:
        keys = [first]
        while self.take("."):
            if self.kind not in {"name", "quoted"}:
                raise _Syntax(self.position, "expected a name after the point")
            keys.append(self.token)
            self.advance()
        return Field(tuple(keys))

    def function(self, name: str, start: int, depth: int) -> Expression:
        if name not in {"min", "max", "round", "div"}:
            raise _Syntax(start, f"unknown function {name}; there are min, max, round and div")
        operands = [self.sum(depth)]
        if name in {"min", "max"}:
            while self.take(","):
                operands.append(self.sum(depth))
            self.expect(")")
            return Extreme(name, tuple(operands))
        self.expect(",")
        if name == "round":
            node: Expression = Rounding(operands[0], self.places())
        else:
            below = self.position
            divisor = self.sum(depth)
            self.expect(",")
            node = _division(operands[0], divisor, below, self.places(), self.mode())
        self.expect(")")
        return node

    def places(self) -> int:
        if self.kind != "number" or not re.fullmatch(r"\d\d?", self.token, re.ASCII):
            raise _Syntax(self.position, "expected the number of decimals")
        places = int(self.token)
        if places > QUANTITY_DECIMALS:
            raise _Syntax(self.position, f"at most {QUANTITY_DECIMALS} decimals")
        self.advance()
        return places

    def mode(self) -> RoundingMode:
        if not self.take(","):
            return RoundingMode.HALF_UP
        if self.token not in set(RoundingMode):
            modes = ", ".join(RoundingMode)
            raise _Syntax(self.position, f"expected a rounding mode: {modes}")
        mode = RoundingMode(self.token)
        self.advance()
        return mode


def _division(
    dividend: Expression,
    divisor: Expression,
    position: int,
    places: int = QUANTITY_DECIMALS,
    mode: RoundingMode = RoundingMode.HALF_UP,
) -> Division:
    if isinstance(divisor, Number) and not divisor.value:
        raise _Syntax(position, "division by zero")
    return Division(dividend, divisor, places, mode)
