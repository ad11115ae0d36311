"""Meters as values: which events count, what is read from them and how it adds up."""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum

from msgspec import Struct

from farebox.money.rounding import RoundingMode


class Aggregation(StrEnum):
    """How the readings of a window become one quantity."""

    COUNT = "count"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    AVG = "avg"
    LATEST = "latest"
    UNIQUE_COUNT = "unique_count"
    WEIGHTED_SUM = "weighted_sum"
    INCREASE = "increase"
    PERCENTILE = "percentile"


SINGLE_USES = (Aggregation.COUNT, Aggregation.SUM)
"""Of these a single use says what it comes to, whatever was used before it."""


class Spread(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Several readings from one event: one for each value, told apart by `dimension`.

    An LLM request has input, output and cached tokens: `dimension: token_kind`,
    `values: {input: $.input_tokens, output: $.output_tokens}`. A value that is absent or zero
    gives no reading.
    """

    dimension: str
    values: Mapping[str, str]


class Conversion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Turn the window's quantity into the billed unit: times, divided by, then rounded once.

    Bytes to started gigabytes: `divide_by: 1000000000, decimals: 0, mode: up`.
    """

    multiply_by: Decimal = Decimal(1)
    divide_by: Decimal = Decimal(1)
    decimals: int = 18
    mode: RoundingMode = RoundingMode.HALF_UP


class Meter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A meter version. Paths are JSONPath into the event's data, `$.usage.tokens`.

    value: a JSONPath or an exact expression over top-level fields (`input + 4 * output`);
        count needs none. For unique_count it may be text.
    spread: instead of value, for sum meters.
    dimensions: name to JSONPath; an absent value is the empty text.
    filter: a CEL expression over `data`, `type`, `source` and `subject`; empty takes all.
    subject: JSONPath of who used it, instead of the event's `subject`.
    customer: JSONPath of the customer's key, instead of looking up the subject.
    counter: for increase, the dimension that names the counter (a device, a machine).
    percentile: for percentile, between 0 and 100.
    weight_seconds: for weighted_sum, the unit of time (3600: GB-hours from GB).
    per_event: keep every reading, as percentage prices with per-event terms need.
    """

    key: str
    name: str = ""
    event_type: str
    aggregation: Aggregation
    value: str | None = None
    spread: Spread | None = None
    dimensions: Mapping[str, str] = {}
    filter: str = ""
    subject: str | None = None
    customer: str | None = None
    unit: str = ""
    conversion: Conversion | None = None
    counter: str | None = None
    percentile: Decimal | None = None
    weight_seconds: int = 3600
    per_event: bool = False
    metadata: Mapping[str, str] = {}


class Alias(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another name of a dimension's value: usage of `alias` is priced as `canonical`."""

    dimension: str
    alias: str
    canonical: str
