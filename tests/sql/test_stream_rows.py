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
from farebox.flows.ingest import ingest_in
from farebox.flows.load_book import load_book
from farebox.flows.publish import publish
from farebox.period.instant import BEGINNING
from farebox.postgres import stream
from farebox.postgres.event_row import Prepared, prepare
from farebox.postgres.session import Pool, transaction
from farebox.postgres.stream import SEPARATOR, Appended, Row

NOW = datetime(2026, 10, 2, 12, tzinfo=UTC)
ANY_TIME = TimePolicy(late=None, future=None)

# Texts that arrays, JSON or the columns of a call give a meaning; PostgreSQL has no NUL and no
# half characters.
TRICKY = [
    "\\N", "\\", "\\\\", "\\.", "\\n", "NULL", "null", "", " ", "\t", "\n", "\r\n", "a\tb", "{}",
    '{"a"}', '"', '""', "'", ",", "{a,b}", "\\x41", "\\101", "ü", "😀", "\u2028", "\x7f", "\x01",
    "$1", "%s", "%(org)s", "--", ";", SEPARATOR, f"a{SEPARATOR}b", "\\u001f",
]  # fmt: skip
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
TEXTS = st.one_of(
    st.sampled_from(TRICKY),
    st.text(CHARACTERS, max_size=30),
    st.lists(st.sampled_from(TRICKY), max_size=4).map("".join),
)
NAMES = TEXTS.map(lambda text: text.replace(SEPARATOR, "")).filter(bool)
"""The door lets no control character into a name; this one would part it."""
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
    Meter(key="counts", event_type="plain", aggregation=Aggregation.COUNT),
)
SENT = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["call", "call", "plain", "unread"]),
        "source": NAMES,
        "subject": st.one_of(st.none(), NAMES),
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
            type=one["type"],
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
    with pool.connection() as connection:
        ingested = ingest_in(connection, organization_id, prepared, book.revision, NOW, set())  # type: ignore[arg-type]
    assert [Outcome.ACCEPTED] * len(sent) == ingested.outcomes

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
        assert (event.source, event.id, event.type, event.subject, event.time) == row[:5]
        # Meters read in the order of their keys: levels, parts, sums, texts.
        if event.type == "call":
            assert ([number], [number, number]) == (row[5], row[7])
            assert (number, one["one"]) == (Decimal(row[6][0]), row[6][1])
        else:
            assert ([1] if event.type == "plain" else None, None, None) == row[5:8]
        assert isinstance(admission, Admitted)
        assert admission.payload == row[8]
        data = msgspec.json.decode(row[8], type=dict[str, Any])["data"]
        assert (one["one"], one["two"]) == (data["one"], data["two"])
    called = [one for one in sent if one["type"] == "call"]
    assert {(one["one"], one["two"]) for one in called} == {tuple(row[0]) for row in dimensions}


def raw(number: int, time: datetime = NOW, text: str = "x") -> Row:
    """Return a row without readings, keyed by its number."""
    key = f"{number:032x}"
    return (time, key, key, text, text, text, "", *[""] * 6, json.dumps({"data": text}))


def append(
    connection: psycopg.Connection,
    organization_id: UUID,
    rows: list[Row],
    *,
    received_at: datetime = NOW,
    may_know: bool = True,
) -> Appended | None:
    statement, parameters = stream.append_call(
        organization_id, rows, 0, received_at, may_know=may_know, series=(), unread_types=()
    )
    return stream.appended(connection.execute(statement, parameters).fetchone())


def numbered(organization_id: UUID) -> int:
    """Return a number from which on no other organization of the tests has keys."""
    return (organization_id.int & 0xFFFFFFFFFFFF) << 32


@pytest.mark.parametrize("may_know", [True, False])
def test_what_is_known_leaves_no_gap(pool: Pool, organization_id: UUID, may_know: bool) -> None:
    base = numbered(organization_id)
    rows = [raw(base + number, text=str(number)) for number in range(6)]
    with pool.connection() as connection:
        known = append(connection, organization_id, [rows[0], rows[3], rows[5]])
        assert Appended(0, 3, {}) == known
        everything = append(connection, organization_id, rows, may_know=may_know)
        digests = {place: rows[place][2] for place in (0, 3, 5)}
        assert Appended(3, 3, digests) == everything
    with transaction(pool, organization_id) as connection:
        found = connection.execute(
            "select e.sequence, e.id, k.key from event e"
            " join event_key k using (organization_id, sequence) order by 1"
        ).fetchall()
    assert [
        (sequence, str(number), UUID(int=base + number))
        for sequence, number in enumerate([0, 3, 5, 1, 2, 4], 1)
    ] == found


@pytest.mark.parametrize("may_know", [True, False])
def test_no_rows_are_appended_as_none(pool: Pool, organization_id: UUID, may_know: bool) -> None:
    with transaction(pool, organization_id) as connection:
        empty = append(connection, organization_id, [], may_know=may_know)
        assert Appended(0, 0, {}) == empty
        append(connection, organization_id, [raw(numbered(organization_id))])
        empty = append(connection, organization_id, [], may_know=may_know)
        assert Appended(1, 0, {}) == empty


def test_a_column_may_be_empty_in_some_rows_or_in_all(pool: Pool, organization_id: UUID) -> None:
    """An empty text is null, wherever it stands; the next row keeps its own."""
    base = numbered(organization_id)
    subjects = [["", "a", ""], ["b", "", ""], ["", "", "c"], ["", "", ""], ["d"], [""]]
    with pool.connection() as connection:
        for call, some in enumerate(subjects):
            rows: Any = [
                (*raw(base + 10 * call + n)[:6], subject, *raw(base)[7:])
                for n, subject in enumerate(some)
            ]
            append(connection, organization_id, rows)
    with transaction(pool, organization_id) as connection:
        found = connection.execute(
            "select subject, series, quantities, value_series, value_texts, point_series,"
            " point_quantities from event order by sequence"
        ).fetchall()
    assert [(subject or None, *[None] * 6) for some in subjects for subject in some] == found


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


def test_rows_before_their_partition_move_into_it(pool: Pool, organization_id: UUID) -> None:
    """March of a far year has no partition yet; its rows wait in the default one, to the edge."""
    march, april = datetime(2041, 3, 1, tzinfo=UTC), datetime(2041, 4, 1, tzinfo=UTC)
    microsecond = timedelta(microseconds=1)
    times = [march - microsecond, march, april - microsecond, april]
    base = numbered(organization_id)
    with pool.connection() as connection:
        for number, time in enumerate(times):
            append(connection, organization_id, [raw(base + number)], received_at=time)
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
