"""What can be wrong with a meter, found before it reads a single event."""

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from enum import StrEnum

from farebox.catalog.expression import Field, parse_expression
from farebox.catalog.filter import compile_filter
from farebox.catalog.meter import Aggregation, Conversion, Meter, Spread
from farebox.catalog.number import NumberCode, within_limits
from farebox.catalog.path import Fault, compile_path
from farebox.catalog.problem import Problem
from farebox.catalog.yaml_text import escape_pointer
from farebox.money.rounding import QUANTITY_DECIMALS

DIMENSIONS_MAX = 16
SPREAD_VALUES_MAX = 64
WEIGHT_SECONDS_MAX = 31_622_400
"""A leap year: no unit of time in use is longer."""

_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


class MeterCode(StrEnum):
    """Why a meter is refused, in order of precedence."""

    EVENT_TYPE_REQUIRED = "event_type_required"
    VALUE_REQUIRED = "value_required"
    VALUE_NOT_READ = "value_not_read"
    VALUE_AND_SPREAD = "value_and_spread"
    SPREAD_NEEDS_SUM = "spread_needs_sum"
    SPREAD_EMPTY = "spread_empty"
    BAD_PATH = "bad_path"
    BAD_EXPRESSION = "bad_expression"
    BAD_FILTER = "bad_filter"
    DIMENSION_NAME_INVALID = "dimension_name_invalid"
    DIMENSION_DUPLICATE = "dimension_duplicate"
    TOO_MANY_DIMENSIONS = "too_many_dimensions"
    PERCENTILE_REQUIRED = "percentile_required"
    PERCENTILE_OUT_OF_RANGE = "percentile_out_of_range"
    COUNTER_REQUIRED = "counter_required"
    COUNTER_UNKNOWN = "counter_unknown"
    OPTION_NOT_USED = "option_not_used"
    WEIGHT_OUT_OF_RANGE = "weight_out_of_range"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    DIVIDE_BY_ZERO = "divide_by_zero"
    DECIMALS_OUT_OF_RANGE = "decimals_out_of_range"


def check_meter(meter: Meter, pointer: str) -> list[Problem]:
    """Return every problem of a meter; `pointer` is the JSON pointer at which it stands."""
    checks = (_value, _spread, _filter, _dimensions, _people, _options, _conversion)
    return [
        Problem(code, f"{pointer}/{field}", message)
        for check in checks
        for code, field, message in check(meter)
    ]


_Found = Iterator[tuple[MeterCode, str, str]]


def _value(meter: Meter) -> _Found:
    if not meter.event_type:
        yield MeterCode.EVENT_TYPE_REQUIRED, "event_type", "a meter reads one type of event"
    counts = meter.aggregation is Aggregation.COUNT
    if meter.value is None:
        if not counts and meter.spread is None:
            yield MeterCode.VALUE_REQUIRED, "value", f"{meter.aggregation} needs a value"
        return
    if counts:
        yield MeterCode.VALUE_NOT_READ, "value", "count counts events; filter says which"
    if meter.spread is not None:
        yield MeterCode.VALUE_AND_SPREAD, "spread", "a meter has a value or a spread, not both"
    yield from _number(meter, meter.value, "value")


def _number(meter: Meter, text: str, field: str) -> _Found:
    if text.startswith("$"):
        yield from _path(text, field)
        return
    parsed = parse_expression(text)
    if isinstance(parsed, Fault):
        yield MeterCode.BAD_EXPRESSION, field, _at(parsed)
    elif meter.aggregation is Aggregation.UNIQUE_COUNT and not isinstance(parsed, Field):
        message = "unique_count counts what a field says; it takes a field or a path"
        yield MeterCode.BAD_EXPRESSION, field, message


def _path(text: str, field: str) -> _Found:
    compiled = compile_path(text)
    if isinstance(compiled, Fault):
        yield MeterCode.BAD_PATH, field, _at(compiled)


def _at(fault: Fault) -> str:
    return f"{fault.message} (at character {fault.position + 1})"


def _spread(meter: Meter) -> _Found:
    spread = meter.spread
    if spread is None:
        return
    if meter.aggregation is not Aggregation.SUM:
        yield MeterCode.SPREAD_NEEDS_SUM, "spread", "only sum can be spread over several values"
    if not spread.values:
        yield MeterCode.SPREAD_EMPTY, "spread/values", "a spread names at least one value"
    if len(spread.values) > SPREAD_VALUES_MAX:
        message = f"a spread has at most {SPREAD_VALUES_MAX} values"
        yield MeterCode.TOO_MANY_DIMENSIONS, "spread/values", message
    yield from _names((spread.dimension,), "spread/dimension")
    if spread.dimension in meter.dimensions:
        message = f"{spread.dimension} is a dimension already"
        yield MeterCode.DIMENSION_DUPLICATE, "spread/dimension", message
    yield from _spread_values(meter, spread)


def _spread_values(meter: Meter, spread: Spread) -> _Found:
    for name, text in spread.values.items():
        yield from _names((name,), f"spread/values/{escape_pointer(name)}")
        yield from _number(meter, text, f"spread/values/{escape_pointer(name)}")


def _filter(meter: Meter) -> _Found:
    if meter.filter:
        compiled = compile_filter(meter.filter)
        if isinstance(compiled, Fault):
            yield MeterCode.BAD_FILTER, "filter", _at(compiled)


def _dimensions(meter: Meter) -> _Found:
    count = len(meter.dimensions) + (meter.spread is not None)
    if count > DIMENSIONS_MAX:
        message = f"{count} dimensions; a meter has at most {DIMENSIONS_MAX}"
        yield MeterCode.TOO_MANY_DIMENSIONS, "dimensions", message
    for name, path in meter.dimensions.items():
        yield from _names((name,), f"dimensions/{escape_pointer(name)}")
        yield from _path(path, f"dimensions/{escape_pointer(name)}")


def _names(names: Iterable[str], field: str) -> _Found:
    for name in names:
        if _NAME.fullmatch(name) is None:
            message = "a name has 1 to 128 letters, digits and . _ : -"
            yield MeterCode.DIMENSION_NAME_INVALID, field, message


def _people(meter: Meter) -> _Found:
    if meter.subject is not None:
        yield from _path(meter.subject, "subject")
    if meter.customer is not None:
        yield from _path(meter.customer, "customer")


def _options(meter: Meter) -> _Found:
    aggregation = meter.aggregation
    if aggregation is Aggregation.PERCENTILE and meter.percentile is None:
        message = "percentile needs a percentile, as in 95"
        yield MeterCode.PERCENTILE_REQUIRED, "percentile", message
    if meter.percentile is not None and not _is_percentile(meter.percentile):
        message = "a percentile is between 0 and 100, with at most 18 decimals"
        yield MeterCode.PERCENTILE_OUT_OF_RANGE, "percentile", message
    if aggregation is Aggregation.INCREASE and meter.counter is None:
        message = "increase needs the dimension that tells one counter from another"
        yield MeterCode.COUNTER_REQUIRED, "counter", message
    if meter.counter is not None and meter.counter not in meter.dimensions:
        yield MeterCode.COUNTER_UNKNOWN, "counter", f"{meter.counter} is not among the dimensions"
    used = {"percentile": Aggregation.PERCENTILE, "counter": Aggregation.INCREASE}
    for field, user in used.items():
        if getattr(meter, field) is not None and aggregation is not user:
            yield MeterCode.OPTION_NOT_USED, field, f"{aggregation} does not use {field}"
    if meter.per_event and aggregation is Aggregation.UNIQUE_COUNT:
        message = "unique_count reads texts; there is no quantity of each event to keep"
        yield MeterCode.OPTION_NOT_USED, "per_event", message
    if not 1 <= meter.weight_seconds <= WEIGHT_SECONDS_MAX:
        message = f"weight_seconds is between 1 and {WEIGHT_SECONDS_MAX}"
        yield MeterCode.WEIGHT_OUT_OF_RANGE, "weight_seconds", message


def _is_percentile(value: Decimal) -> bool:
    return not isinstance(within_limits(value), NumberCode) and 0 <= value <= 100


def _conversion(meter: Meter) -> _Found:
    conversion = meter.conversion
    if conversion is None:
        return
    yield from _factors(conversion)
    if conversion.divide_by == 0:
        yield MeterCode.DIVIDE_BY_ZERO, "conversion/divide_by", "nothing is divided by zero"
    if not 0 <= conversion.decimals <= QUANTITY_DECIMALS:
        message = f"decimals is between 0 and {QUANTITY_DECIMALS}"
        yield MeterCode.DECIMALS_OUT_OF_RANGE, "conversion/decimals", message


def _factors(conversion: Conversion) -> _Found:
    factors = {"multiply_by": conversion.multiply_by, "divide_by": conversion.divide_by}
    for field, value in factors.items():
        if isinstance(within_limits(value), NumberCode) or value < 0:
            message = "a factor is from 0 to below 10^20, with at most 18 decimals"
            yield MeterCode.NUMBER_OUT_OF_RANGE, f"conversion/{field}", message
