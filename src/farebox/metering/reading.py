"""What a meter reads from one event: a value, its dimensions, who used it and who pays."""

from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, TypeVar

from msgspec import Struct

from farebox.catalog.expression import Field, NumberReader, compile_number, parse_expression
from farebox.catalog.filter import FilterCode, compile_filter, fields_read
from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.number import NumberCode, plain_text
from farebox.catalog.path import (
    MISSING,
    Data,
    Fault,
    Key,
    Missing,
    PathReader,
    compile_path,
    read_keys,
    simple_keys,
)

TEXT_LENGTH_MAX = 256

_ONE = Decimal(1)
_NO_DATA: Final[dict[str, Any]] = {}
_INTEGER_LIMIT = 10**TEXT_LENGTH_MAX


class Reading(Struct, frozen=True):
    """One quantity of one event. `value` is text for unique_count only.

    `dimensions` are in the order of `meter_dimensions`; `subject` and `customer` are empty when
    the event names none.
    """

    value: Decimal | str
    dimensions: tuple[str, ...]
    subject: str
    customer: str


class ReadingCode(StrEnum):
    """Why an event cannot be read, in order of precedence."""

    FILTER_FAILED = "filter_failed"
    FILTER_NOT_BOOLEAN = "filter_not_boolean"
    VALUE_MISSING = "value_missing"
    VALUE_NOT_A_NUMBER = "value_not_a_number"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    DIVISION_BY_ZERO = "division_by_zero"
    VALUE_NOT_SCALAR = "value_not_scalar"
    VALUE_TOO_LONG = "value_too_long"
    DIMENSION_NOT_SCALAR = "dimension_not_scalar"
    DIMENSION_TOO_LONG = "dimension_too_long"
    SUBJECT_NOT_SCALAR = "subject_not_scalar"
    SUBJECT_TOO_LONG = "subject_too_long"
    CUSTOMER_NOT_SCALAR = "customer_not_scalar"
    CUSTOMER_TOO_LONG = "customer_too_long"
    TEXT_HAS_NUL = "text_has_nul"


class ReadingRefusal(Struct, frozen=True):
    """The event matches the meter but cannot be read.

    `field` is the part of the meter (`value`, `dimensions.model`, `spread.input`, `subject`),
    `path` the JSONPath, expression or filter that it was to be read by.
    """

    code: ReadingCode
    meter: str
    field: str
    path: str


Outcome = tuple[Reading, ...] | ReadingRefusal

Placement = tuple[str, str, tuple[str, ...]]
"""Where a reading belongs: subject, customer, dimensions without the spread's."""

Fields = frozenset[tuple[Key, ...]]
"""Members of the event's data, each by its chain of keys."""


def meter_dimensions(meter: Meter) -> tuple[str, ...]:
    """Return the names of a reading's dimensions, in order: the meter's, then the spread's."""
    spread = () if meter.spread is None else (meter.spread.dimension,)
    return (*meter.dimensions, *spread)


def compile_meter(meter: Meter) -> "CompiledMeter":
    """Make a meter ready to read events. It must have passed `check_meter`."""
    return CompiledMeter(meter)


class CompiledMeter:
    """A meter ready to read the events of its type.

    fields: members of the data that decide, with subject and type, where a reading belongs; None
    where that is not certain. reads_source: whether the event's source does so too.
    """

    __slots__ = (
        "_customer",
        "_dimensions",
        "_filter",
        "_key",
        "_number",
        "_spread",
        "_subject",
        "_text",
        "dimensions",
        "fields",
        "meter",
        "reads_source",
    )

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.dimensions = meter_dimensions(meter)
        self._key = meter.key
        self._filter = _sound(compile_filter(meter.filter)) if meter.filter else None
        self._number: _Number | None = None
        self._text: _Text | None = None
        self._spread: tuple[_Number, ...] | None = None
        if meter.spread is not None:
            self._spread = tuple(
                _Number(_sound(compile_number(text)), f"spread.{name}", text, name)
                for name, text in meter.spread.values.items()
            )
        elif meter.value is not None and meter.aggregation is Aggregation.UNIQUE_COUNT:
            self._text = _Text(_scalar_reader(meter.value), "value", "value", meter.value)
        elif meter.value is not None and meter.aggregation is not Aggregation.COUNT:
            self._number = _Number(_sound(compile_number(meter.value)), "value", meter.value)
        self._dimensions = tuple(
            _Text(_sound(compile_path(path)), "dimension", f"dimensions.{name}", path)
            for name, path in meter.dimensions.items()
        )
        self._subject = _person(meter.subject, "subject")
        self._customer = _person(meter.customer, "customer")
        self.fields, self.reads_source = _fields_of(meter)

    def read(self, content: object, event_type: str, source: str, subject: str | None) -> Outcome:
        """Return the event's readings: none when the filter says no or every spread is zero.

        `content` is the event's decoded data; what is not a JSON object has no fields. The
        caller has chosen the meter by `event_type`; only the filter looks at it.
        """
        data: Data = content if type(content) is dict else _NO_DATA
        if self._filter is not None:
            verdict = self._filter(data, event_type, source, subject or "")
            if verdict is not True:
                return () if verdict is False else self._filter_refusal(verdict)
        value = self.value(data)
        if type(value) is ReadingRefusal:
            return value
        placement = self._place(data, subject)
        if isinstance(placement, ReadingRefusal):
            return placement
        user, payer, texts = placement
        if type(value) is list:
            return tuple(Reading(each, (*texts, name), user, payer) for name, each in value)
        return (Reading(value, texts, user, payer),)

    def place(
        self, data: Data, event_type: str, source: str, subject: str | None
    ) -> Placement | ReadingRefusal | None:
        """Return where the event's readings belong, whatever their values; None: not taken."""
        if self._filter is not None:
            verdict = self._filter(data, event_type, source, subject or "")
            if verdict is not True:
                return None if verdict is False else self._filter_refusal(verdict)
        return self._place(data, subject)

    def _place(self, data: Data, subject: str | None) -> Placement | ReadingRefusal:
        texts: list[str] = []
        for dimension in self._dimensions:
            text = dimension.read(data)
            # Most are short texts, which need no more than this.
            if type(text) is not str or len(text) > TEXT_LENGTH_MAX or "\0" in text:
                text = _text_of(text)
                if type(text) is _TextFault:
                    return dimension.refusal(self._key, text)
            texts.append(text)
        user: Any = "" if subject is None else subject
        if self._subject is not None:
            user = _text_of(self._subject.read(data))
        if "\0" in user or type(user) is _TextFault:
            return _refuse_subject(self._key, self._subject, user)
        payer: Any = ""
        if self._customer is not None:
            payer = _text_of(self._customer.read(data))
            if type(payer) is _TextFault:
                return self._customer.refusal(self._key, payer)
        return user, payer, tuple(texts)

    def value(self, data: Data) -> Any:
        """Return a Decimal, a text, a list of (spread name, Decimal), or the refusal."""
        number = self._number
        if number is not None:
            value = number.read(data)
            return number.refusal(self._key, value) if type(value) is NumberCode else value
        if self._spread is not None:
            return self._spread_values(data, self._spread)
        if self._text is None:
            return _ONE
        found = self._text.read(data)
        if found is MISSING or found is None:
            return self._text.refused(self._key, ReadingCode.VALUE_MISSING)
        text = _text_of(found)
        return self._text.refusal(self._key, text) if type(text) is _TextFault else text

    def _spread_values(self, data: Data, spread: tuple["_Number", ...]) -> Any:
        values: list[tuple[str, Decimal]] = []
        for number in spread:
            value = number.read(data)
            if type(value) is NumberCode:
                if value is not NumberCode.VALUE_MISSING:
                    return number.refusal(self._key, value)
            elif value:
                values.append((number.name, value))  # type: ignore[arg-type]
        return values

    def _filter_refusal(self, fault: FilterCode) -> ReadingRefusal:
        code = ReadingCode(fault.value)
        return ReadingRefusal(code, self._key, "filter", self.meter.filter or "")


class _TextFault(StrEnum):
    NOT_SCALAR = "not_scalar"
    TOO_LONG = "too_long"
    HAS_NUL = "has_nul"


class _Text(Struct, frozen=True):
    """A text to read, and what to say when that fails."""

    read: PathReader
    noun: str
    field: str
    path: str

    def refusal(self, meter: str, fault: _TextFault) -> ReadingRefusal:
        noun = "text" if fault is _TextFault.HAS_NUL else self.noun
        return self.refused(meter, ReadingCode(f"{noun}_{fault}"))

    def refused(self, meter: str, code: ReadingCode) -> ReadingRefusal:
        return ReadingRefusal(code, meter, self.field, self.path)


class _Number(Struct, frozen=True):
    """A number to read, and the name of its spread value."""

    read: NumberReader
    field: str
    path: str
    name: str = ""

    def refusal(self, meter: str, code: NumberCode) -> ReadingRefusal:
        return ReadingRefusal(ReadingCode(code.value), meter, self.field, self.path)


_Compiled = TypeVar("_Compiled")


def _sound(compiled: _Compiled | Fault) -> _Compiled:
    assert not isinstance(compiled, Fault), f"check_meter passed what cannot compile: {compiled}"
    return compiled


def _fields_of(meter: Meter) -> tuple[Fields | None, bool]:
    """Return all that decides where a reading belongs, and whether the event's source does too.

    None where that is not certain: wildcards, and filters beyond plain members.
    """
    fields: set[tuple[Key, ...]] = set()
    for path in filter(None, (*meter.dimensions.values(), meter.subject, meter.customer)):
        keys = simple_keys(path)
        if not keys:
            return None, False
        fields.add(keys)
    reads = fields_read(meter.filter) if meter.filter else ()
    if reads is None:
        return None, False
    for name, *members in reads:
        # Deeper members fail in ways of their own where an object was meant.
        if name == "data" and len(members) != 1:
            return None, False
        fields.update({tuple(members)} if members else ())
    return frozenset(fields), ("source",) in reads


def _person(path: str | None, noun: str) -> _Text | None:
    return None if path is None else _Text(_sound(compile_path(path)), noun, noun, path)


def _scalar_reader(text: str) -> PathReader:
    if text.startswith("$"):
        return _sound(compile_path(text))
    node = _sound(parse_expression(text))
    assert isinstance(node, Field), "check_meter lets unique_count read a field only"
    return read_keys(node.keys)


def _refuse_subject(meter: str, read: _Text | None, found: str) -> ReadingRefusal:
    if isinstance(found, _TextFault):
        assert read is not None, "an event's own subject is always text"
        return read.refusal(meter, found)
    return ReadingRefusal(ReadingCode.TEXT_HAS_NUL, meter, "subject", "subject")


def _text_of(value: object) -> str | _TextFault:
    """Return a scalar as text: a string as it is, the rest in canonical JSON, "" for nothing."""
    match value:
        case str():
            text = value
        case None | Missing():
            return ""
        case bool():
            return "true" if value else "false"
        case int():
            # Compared first: Python refuses to print more than 4,300 digits.
            if abs(value) >= _INTEGER_LIMIT:
                return _TextFault.TOO_LONG
            text = str(value)
        case Decimal():
            if not value.is_finite() or (value and abs(value.adjusted()) >= TEXT_LENGTH_MAX):
                return _TextFault.TOO_LONG
            text = plain_text(value) if value else "0"
        case _:
            return _TextFault.NOT_SCALAR
    if len(text) > TEXT_LENGTH_MAX:
        return _TextFault.TOO_LONG
    return _TextFault.HAS_NUL if "\0" in text else text
