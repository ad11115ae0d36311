"""Answer what was used: by customer, subject, dimension and window, current to the last event."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import groupby
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.catalog.customer import Customer
from farebox.flows.read_usage import MeterHistory, read_meters, read_quantities
from farebox.metering.quantity import Quantity, Target
from farebox.metering.reading import meter_dimensions
from farebox.metering.window import BUCKET, Span, WindowSize, windows
from farebox.period.calendar import is_timezone
from farebox.postgres import customer, stream
from farebox.postgres.session import Pool, transaction
from farebox.postgres.usage import Range

WINDOWS_MAX = 1_000
ROWS_MAX = 10_000

# Windows of the clock may be shorter than their name where it is changed, never by half.
_LENGTH = {
    WindowSize.MINUTE: timedelta(minutes=1),
    WindowSize.FIVE_MINUTES: timedelta(minutes=5),
    WindowSize.QUARTER_HOUR: BUCKET,
    WindowSize.HOUR: timedelta(hours=1),
    WindowSize.DAY: timedelta(days=1),
    WindowSize.WEEK: timedelta(days=7),
    WindowSize.MONTH: timedelta(days=28),
}


class UsageCode(StrEnum):
    """Why a question about usage has no answer, in order of precedence."""

    UNKNOWN_METER = "unknown_meter"
    UNKNOWN_CUSTOMER = "unknown_customer"
    UNKNOWN_TIMEZONE = "unknown_timezone"
    UNKNOWN_DIMENSION = "unknown_dimension"
    RANGE_EMPTY = "range_empty"
    TOO_MANY_WINDOWS = "too_many_windows"
    TOO_MANY_ROWS = "too_many_rows"


class UsageRefusal(Struct, frozen=True):
    """A refusal with the field at fault and what would help."""

    code: UsageCode
    field: str
    message: str


class UsageQuestion(Struct, frozen=True, kw_only=True):
    """What is asked of one meter in [start, end).

    customer: none asks for all, `customers_max` at a time after the key `after`.
    window: none gives one row for the whole span. timezone: none takes each customer's own.
    filters: keep only readings with one of these values, by dimension.
    """

    meter: str
    start: datetime
    end: datetime
    customer: str | None = None
    after: str = ""
    customers_max: int = 100
    window: WindowSize | None = None
    timezone: str | None = None
    group_by: tuple[str, ...] = ()
    by_subject: bool = False
    filters: Mapping[str, frozenset[str]] = {}
    subjects: tuple[str, ...] | None = None


class UsageRow(Struct, frozen=True, kw_only=True):
    """What was used in [start, end); events: how many readings it is made of."""

    customer: str
    subject: str | None
    start: datetime
    end: datetime
    dimensions: Mapping[str, str]
    quantity: Decimal | None
    events: int


class UsageAnswer(Struct, frozen=True):
    """The rows that have any usage; `sequence` is the last event they count.

    after: the customer to go on after, None where all were answered.
    """

    rows: tuple[UsageRow, ...]
    unit: str
    sequence: int
    after: str | None


def query_usage(
    pool: Pool, organization_id: UUID, question: UsageQuestion
) -> UsageAnswer | UsageRefusal:
    """Answer from one snapshot, so that all rows count the same events."""
    with transaction(pool, organization_id, snapshot=True) as connection:
        # Only rows of this snapshot are read, so this event is the last that any of them counts.
        sequence = stream.read_head(connection, organization_id).last_sequence
        history = read_meters(connection, organization_id, question.meter).get(question.meter)
        refusal = _refusal(question, history)
        if refusal is not None:
            return refusal
        assert history is not None
        customers = _customers(connection, organization_id, question)
        if not customers and question.customer is not None:
            message = f"there is no customer {question.customer!r}"
            return UsageRefusal(UsageCode.UNKNOWN_CUSTOMER, "customer", message)
        page = customers[: question.customers_max]
        rows = _rows(connection, organization_id, question, history, page)
    if rows is None:
        message = f"more than {WINDOWS_MAX} windows; take a longer window or a shorter span"
        return UsageRefusal(UsageCode.TOO_MANY_WINDOWS, "window", message)
    if len(rows) > ROWS_MAX:
        message = f"more than {ROWS_MAX} rows; ask for fewer customers, windows or dimensions"
        return UsageRefusal(UsageCode.TOO_MANY_ROWS, "group_by", message)
    after = page[-1].key if len(customers) > len(page) else None
    return UsageAnswer(tuple(rows), history.current.unit, sequence, after)


def _refusal(question: UsageQuestion, history: MeterHistory | None) -> UsageRefusal | None:
    if history is None:
        message = f"there is no meter {question.meter!r}"
        return UsageRefusal(UsageCode.UNKNOWN_METER, "meter", message)
    if question.timezone is not None and not is_timezone(question.timezone):
        message = f"{question.timezone!r} is not in the IANA time zone database"
        return UsageRefusal(UsageCode.UNKNOWN_TIMEZONE, "timezone", message)
    known = {name for meter in history.versions.values() for name in meter_dimensions(meter)}
    for field, names in (("group_by", question.group_by), ("filters", tuple(question.filters))):
        for name in names:
            if name not in known:
                has = ", ".join(sorted(known)) or "none"
                message = f"meter {question.meter!r} has no dimension {name!r}; it has {has}"
                return UsageRefusal(UsageCode.UNKNOWN_DIMENSION, field, message)
    if question.start >= question.end:
        return UsageRefusal(UsageCode.RANGE_EMPTY, "to", "`to` must lie after `from`")
    if question.window is not None:
        # Before they are counted out: a thousand years of minutes must not be.
        count = (question.end - question.start) // _LENGTH[question.window]
        if count > 2 * WINDOWS_MAX:
            message = f"more than {WINDOWS_MAX} windows; take a longer window or a shorter span"
            return UsageRefusal(UsageCode.TOO_MANY_WINDOWS, "window", message)
    return None


def _customers(
    connection: Connection, organization_id: UUID, question: UsageQuestion
) -> list[Customer]:
    if question.customer is not None:
        found = customer.find_customer(connection, organization_id, question.customer)
        return [] if found is None else [found]
    return customer.customers(
        connection, organization_id, after=question.after, limit=question.customers_max + 1
    )


def _rows(
    connection: Connection,
    organization_id: UUID,
    question: UsageQuestion,
    history: MeterHistory,
    customers: Sequence[Customer],
) -> list[UsageRow] | None:
    """Return the rows by customer and window; None where there are too many windows."""
    rows: list[UsageRow] = []
    # Windows begin where the customer's day does, so customers are read one time zone at a time.
    in_zone = sorted(customers, key=lambda one: _timezone(question, one))
    for timezone, group in groupby(in_zone, key=lambda one: _timezone(question, one)):
        spans: list[Span] = [(question.start, question.end)]
        if question.window is not None:
            spans = windows(question.start, question.end, question.window, timezone)
        if len(spans) > WINDOWS_MAX:
            return None
        keys = [one.key for one in group]
        rows += _read(connection, organization_id, question, history, keys, spans)
    rows.sort(key=lambda row: (row.customer, row.start, row.subject or "", *row.dimensions.items()))
    return rows


def _timezone(question: UsageQuestion, owner: Customer) -> str:
    if question.window is None:
        return ""
    return question.timezone or owner.timezone


def _read(
    connection: Connection,
    organization_id: UUID,
    question: UsageQuestion,
    history: MeterHistory,
    keys: Sequence[str],
    spans: Sequence[Span],
) -> list[UsageRow]:
    found = read_quantities(
        connection,
        organization_id,
        history,
        [Target(key, question.meter, question.start, question.end) for key in keys],
        dimensions=question.group_by,
        windows=spans,
        cut=Range(
            by_subject=question.by_subject,
            subjects=question.subjects,
            # No bucket ends inside these, so only single readings tell them apart.
            raw=question.window in (WindowSize.MINUTE, WindowSize.FIVE_MINUTES),
        ),
        filters=question.filters,
    )
    return [_row(question, keys, spans, one) for one in found]


def _row(
    question: UsageQuestion, keys: Sequence[str], spans: Sequence[Span], one: Quantity
) -> UsageRow:
    start, end = spans[one.group.window]
    return UsageRow(
        customer=keys[one.group.target],
        subject=one.group.subject if question.by_subject else None,
        start=start,
        end=end,
        dimensions=dict(zip(question.group_by, one.group.dimensions, strict=True)),
        quantity=one.quantity,
        events=one.events,
    )
