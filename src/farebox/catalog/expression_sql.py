"""Computed values as SQL: the same meaning in NUMERIC as in Decimal."""

from collections.abc import Callable
from decimal import Decimal

from farebox.catalog.expression import (
    Division,
    Expression,
    Extreme,
    Field,
    Negation,
    Number,
    Operation,
    Rounding,
)
from farebox.catalog.number import plain_text
from farebox.money.rounding import RoundingMode


def to_sql(node: Expression, field_sql: Callable[[tuple[str, ...]], str]) -> str:
    """Return a NUMERIC expression with the same value, NULL where a reading is refused.

    `field_sql` gives the SQL of a field by its keys. Bounds of the result are the caller's.
    PostgreSQL's `/` rounds at a scale of its own choice, so a quotient is made of `div`, which
    is exact; LEAST skips NULL, so its operands are counted first. Each operand is written once.
    """
    match node:
        case Number(value):
            return f"{plain_text(value)}::numeric"
        case Field(keys):
            return f"({field_sql(keys)})::numeric"
        case Negation(operand):
            return f"(- {to_sql(operand, field_sql)})"
        case Operation(sign, left, right):
            return f"({to_sql(left, field_sql)} {sign} {to_sql(right, field_sql)})"
        case Rounding(operand, places):
            return f"round({to_sql(operand, field_sql)}, {places})"
        case Extreme(name, operands):
            return _extreme(name, [to_sql(operand, field_sql) for operand in operands])
        case Division(dividend, divisor, places, mode):
            return _division(to_sql(dividend, field_sql), to_sql(divisor, field_sql), places, mode)


def _extreme(name: str, operands: list[str]) -> str:
    names = ", ".join(f"v{place}" for place in range(len(operands)))
    values = ", ".join(f"{operand} AS v{place}" for place, operand in enumerate(operands))
    choose = "LEAST" if name == "min" else "GREATEST"
    chosen = f"CASE WHEN num_nulls({names}) = 0 THEN {choose}({names}) END"
    return f"(SELECT {chosen} FROM (SELECT {values}) AS operands)"  # noqa: S608 - no outside text


def _division(dividend: str, divisor: str, places: int, mode: RoundingMode) -> str:
    shift = f"1{'0' * places}::numeric"
    quantum = f"{plain_text(Decimal(1).scaleb(-places))}::numeric"
    scaled = f"SELECT {dividend} * {shift} AS n, NULLIF({divisor}, 0) AS d"
    cut = f"SELECT div(n, d) AS q, n, d FROM ({scaled}) AS scaled"  # noqa: S608 - as above
    parts = "q, abs(n - q * d) AS r, abs(d) AS d, sign(n) * sign(d) AS s"
    step = f"CASE WHEN {_AWAY[mode]} THEN s ELSE 0 END"
    rest = f"SELECT {parts} FROM ({cut}) AS cut"  # noqa: S608 - as above
    return f"(SELECT (q + {step}) * {quantum} FROM ({rest}) AS rest)"  # noqa: S608 - as above


_AWAY = {
    RoundingMode.HALF_UP: "2 * r >= d",
    RoundingMode.HALF_EVEN: "2 * r > d OR (2 * r = d AND mod(q, 2) <> 0)",
    RoundingMode.UP: "r > 0 AND s > 0",
    RoundingMode.DOWN: "r > 0 AND s < 0",
    RoundingMode.TRUNCATE: "false",
}
"""Per mode, when the truncated quotient q moves one step away from zero; r is the rest."""
