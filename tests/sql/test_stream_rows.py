"""What an event says comes back from its row as it was sent, character by character."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farebox.catalog.meter import Aggregation, Meter
from farebox.events.admit import Admitted, TimePolicy, admit
from farebox.events.answer import Outcome
from farebox.events.event import Event
from farebox.flows.ingest import ingest
from farebox.flows.load_book import load_book
from farebox.flows.publish import publish
from farebox.period.instant import BEGINNING
from farebox.postgres import stream
from farebox.postgres.event_row import Prepared, prepare
from farebox.postgres.session import Pool, bound, transaction

NOW = datetime(2026, 10, 2, 12, tzinfo=UTC)
ANY_TIME = TimePolicy(late=None, future=None)

# Texts that COPY, arrays or JSON give a meaning; PostgreSQL has no NUL and no half characters.
TRICKY = [
    "\\N", "\\", "\\\\", "\\.", "\\n", "NULL", "null", "", " ", "\t", "\n", "\r\n", "a\tb", "{}",
    '{"a"}', '"', '""', "'", ",", "{a,b}", "\\x41", "\\101", "ü", "😀", "\u2028", "\x7f", "\x01",
    "$1", "%s", "%(org)s", "--", ";",
]  # fmt: skip
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
TEXTS = st.one_of(
    st.sampled_from(TRICKY),
    st.text(CHARACTERS, max_size=30),
    st.lists(st.sampled_from(TRICKY), max_size=4).map("".join),
)
NUMBERS = st.one_of(
    st.decimals(
        min_value=Decimal("-1e19"), max_value=Decimal("1e19"), allow_nan=False, places=9
    ),
    st.sampled_from(
        [
            Decimal(text)
            for text in ("0", "-0", "1E+3", "1e-18", "99999999999999999999", "-1E+19", "1.500",
                         "0.000000000000000001", "12345678901234567890.123456789012345678")
        ]
    ),
)  # fmt: skip
TIMES = st.one_of(
    st.sampled_from(
        [
            BEGINNING,
            datetime(1, 1, 2, 0, 0, 0, 1, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            datetime(9999, 12, 29, 23, 59, 59, 999999, tzinfo=UTC),
        ]
    ),
    st.integers(0, 10**17).map(lambda n: BEGINNING + timedelta(microseconds=n)),
)
METERS = (
    Meter(
        key="sums",
        event_type="call",
        aggregation=Aggregation.SUM,
        value="$.number",
        dimensions={"one": "$.one", "two": "$.two"},
        per_event=True,
    ),
    Meter(key="texts", event_type="call", aggregation=Aggregation.UNIQUE_COUNT, value="$.one"),
    Meter(
        key="parts",
        event_type="call",
        aggregation=Aggregation.PERCENTILE,
        value="$.number",
        percentile=Decimal(95),
    ),
    Meter(key="levels", event_type="call", aggregation=Aggregation.LATEST, value="$.number"),
)
SENT = st.fixed_dictionaries(
    {
        "source": TEXTS.filter(bool),
        "subject": st.one_of(st.none(), TEXTS),
        "time": TIMES,
        "one": TEXTS,
        "two": TEXTS,
        "number": NUMBERS,
        "more": st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(-(10**30), 10**30), TEXTS),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)
            ),
            max_leaves=5,
        ),
    }
)


@given(sent=st.lists(SENT, min_size=1, max_size=4))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_event_comes_back_as_it_was_sent(
    pool: Pool, new_organization: Callable[[], UUID], sent: list[dict[str, Any]]
) -> None:
    organization_id = new_organization()
    publish(pool, organization_id, METERS, NOW)
    events = [
        Event(
            id=f"{number}{one['source']}"[:256],
            source=one["source"],
            type="call",
            subject=one["subject"],
            time=one["time"],
            data={name: one[name] for name in ("one", "two", "number", "more")},
        )
        for number, one in enumerate(sent)
    ]
    admitted = [admit(n, one, organization_id.bytes, NOW, ANY_TIME) for n, one in enumerate(events)]
    book = load_book(pool, organization_id)
    prepared = [prepare(book, one) for one in admitted]  # type: ignore[arg-type]
    assert [Prepared] * len(sent) == [type(one) for one in prepared]
    outcomes = ingest(pool, organization_id, prepared, book.revision, NOW, set())  # type: ignore[arg-type]
    assert [Outcome.ACCEPTED] * len(sent) == outcomes

    with transaction(pool, organization_id) as connection:
        rows = connection.execute(
            "select source, id, type, subject, time, quantities, value_texts, point_quantities,"
            " payload::text from event order by sequence"
        ).fetchall()
        dimensions = connection.execute(
            "select distinct dimensions from series where meter_key = 'sums'"
        ).fetchall()
    for one, event, admission, row in zip(sent, events, admitted, rows, strict=True):
        number = one["number"]
        # Meters read in the order of their keys: levels, parts, sums, texts.
        assert (event.source, event.id, "call", event.subject, event.time) == row[:5]
        assert ([number], [number, number]) == (row[5], row[7])
        assert (number, one["one"]) == (Decimal(row[6][0]), row[6][1])
        assert isinstance(admission, Admitted)
        assert admission.payload == row[8]
        data = msgspec.json.decode(row[8], type=dict[str, Any])["data"]
        assert (one["one"], one["two"]) == (data["one"], data["two"])
    assert {(one["one"], one["two"]) for one in sent} == {tuple(row[0]) for row in dimensions}


def staged(connection: psycopg.Connection, number: int, text: str = "x") -> str:
    return stream.copy_line(
        f"{number:032x}",
        f"{number:032x}",
        NOW,
        (text, text, text, None),
        "\t".join([stream.NULL] * 6),
        json.dumps({"data": text}),
    )


def test_what_is_dropped_leaves_no_gap(pool: Pool, organization_id: UUID) -> None:
    with transaction(pool, organization_id) as connection:
        stream.stage(connection, [staged(connection, number) for number in range(6)])
        stream.drop_staged(connection, [0, 3, 5])
        found = connection.execute("select position, key from incoming order by 1").fetchall()
    assert [(0, UUID(int=1)), (1, UUID(int=2)), (2, UUID(int=4))] == found


def test_staged_rows_are_gone_when_the_transaction_ends(pool: Pool, organization_id: UUID) -> None:
    class Stop(Exception):
        pass

    with pool.connection() as connection:
        for error in (None, Stop):
            try:
                with bound(connection, organization_id):
                    stream.stage(connection, [staged(connection, 1)])
                    if error is not None:
                        raise error
            except Stop:
                pass
            assert [] == connection.execute("select from incoming").fetchall()


def test_a_row_that_cannot_be_copied_leaves_a_clean_connection(
    pool: Pool, organization_id: UUID
) -> None:
    with pool.connection() as connection:
        with pytest.raises(psycopg.DataError), bound(connection, organization_id):
            stream.stage(connection, [staged(connection, 1), "\tnot a uuid\n"])
        with bound(connection, organization_id):
            assert [] == connection.execute("select from incoming").fetchall()


def test_only_one_holds_the_head(pool: Pool, organization_id: UUID) -> None:
    with (
        transaction(pool, organization_id) as one,
        transaction(pool, organization_id) as two,
    ):
        stream.lock_head(one, organization_id)
        two.execute("set local lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            stream.lock_head(two, organization_id)
        two.execute("rollback; begin")


def append_at(pool: Pool, organization_id: UUID, number: int, received_at: datetime) -> None:
    with transaction(pool, organization_id) as connection:
        stream.stage(connection, [staged(connection, number)])
        head = stream.lock_head(connection, organization_id)
        stream.append(connection, organization_id, head, 1, received_at)


def test_rows_before_their_partition_move_into_it(pool: Pool, organization_id: UUID) -> None:
    """March of a far year has no partition yet; its rows wait in the default one, to the edge."""
    march, april = datetime(2041, 3, 1, tzinfo=UTC), datetime(2041, 4, 1, tzinfo=UTC)
    microsecond = timedelta(microseconds=1)
    times = [march - microsecond, march, april - microsecond, april]
    base = organization_id.int & 0xFFFFFFFF
    for number, time in enumerate(times):
        append_at(pool, organization_id, base * 10 + number, time)
    where = "select received_at, tableoid::regclass::text from event order by sequence"
    with transaction(pool, organization_id) as connection:
        assert [(time, "event_default") for time in times] == connection.execute(where).fetchall()
    for _ in range(2):  # asked again, nothing changes
        with pool.connection() as connection:
            stream.ensure_partitions(connection, [march.date()])
    with transaction(pool, organization_id) as connection:
        assert [
            (times[0], "event_default"),
            (times[1], "event_204103"),
            (times[2], "event_204103"),
            (times[3], "event_default"),
        ] == connection.execute(where).fetchall()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select from event_204103")
        connection.execute("rollback; begin")
