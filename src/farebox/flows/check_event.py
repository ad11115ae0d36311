"""A dry run of one event: who reads it, whose it is, what it costs and where, or why not.

Nothing is stored. The event takes the way of a real one: it is decoded, admitted and read by the
meters in force, and each reading is followed as far as an invoice line.
"""

from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.events.admit import DEFAULT_TIME_POLICY, Admitted, TimePolicy, admit
from farebox.events.answer import Outcome
from farebox.events.event import Event
from farebox.events.json_text import NotJson, NotUtf8, decode_json
from farebox.events.read import read_event
from farebox.events.refusal import EventCode, Rejection
from farebox.flows.explain_event import fate_of
from farebox.flows.load_book import meter_versions
from farebox.flows.place_reading import Fate, ReadingPlace, place_reading
from farebox.flows.rate_periods import Terms, read_terms
from farebox.flows.reading_at import ReadingAt
from farebox.flows.refuse_draw import POINTER, DrawRefusal, as_refusals, naming
from farebox.metering.book import MeterBook
from farebox.metering.kind import MeterVersion
from farebox.metering.reading import ReadingRefusal, compile_meter, meter_dimensions
from farebox.postgres import catalog, draw_paid, explain
from farebox.postgres.catalog import Kind
from farebox.postgres.event_row import Prepared, prepare
from farebox.postgres.session import Pool, transaction


class MeterCheck(Struct, frozen=True, kw_only=True):
    """What a meter of the event's type makes of it; a refusal would refuse the whole event."""

    meter: str
    version: int
    fate: Fate | None
    refusal: ReadingRefusal | None = None
    readings: tuple[ReadingPlace, ...] = ()


class EventCheck(Struct, frozen=True, kw_only=True):
    """What would become of the event: the answer at the door, then its way."""

    outcome: Outcome
    event: Event | None = None
    time: datetime | None = None
    rejection: Rejection | None = None
    fate: Fate | None = None
    meters: tuple[MeterCheck, ...] = ()


def check_event(
    pool: Pool,
    organization_id: UUID,
    body: bytes,
    now: datetime,
    policy: TimePolicy = DEFAULT_TIME_POLICY,
) -> EventCheck:
    """Tell what would become of a structured CloudEvent; never raises on what was pasted."""
    event = _decode(body)
    if isinstance(event, Rejection):
        return EventCheck(outcome=Outcome.REJECTED, rejection=event)
    admitted = admit(0, event, organization_id.bytes, now, policy)
    if isinstance(admitted, Rejection):
        return EventCheck(outcome=Outcome.REJECTED, event=event, rejection=admitted)
    with transaction(pool, organization_id, snapshot=True) as connection:
        return _follow(connection, organization_id, admitted)


def _decode(body: bytes) -> Event | Rejection:
    try:
        return read_event(0, decode_json(body))
    except NotUtf8 as error:
        return Rejection(0, EventCode.NOT_UTF8, "", str(error))
    except NotJson as error:
        return Rejection(0, EventCode.MALFORMED_JSON, "", str(error))


def _follow(connection: Connection, organization_id: UUID, admitted: Admitted) -> EventCheck:
    event, time = admitted.event, admitted.time
    terms = read_terms(connection, organization_id)
    versions = meter_versions(catalog.versions(connection, organization_id, Kind.METER))
    meters = [
        _read(connection, organization_id, terms, version, admitted)
        for version in versions
        if version.meter.event_type == event.type
        and version.effective_from <= time < version.effective_to
    ]
    refused = next((one.refusal for one in meters if one.refusal is not None), None)
    if refused is not None:
        rejection = Rejection(0, refused.code, "/data", _refusal_text(refused))
        return EventCheck(
            outcome=Outcome.REJECTED,
            event=event,
            time=time,
            rejection=rejection,
            meters=tuple(meters),
        )
    unpaid = _refuse_draw(connection, organization_id, versions, admitted)
    if unpaid is not None:
        return EventCheck(
            outcome=Outcome.REJECTED,
            event=event,
            time=time,
            rejection=Rejection(0, unpaid.code, POINTER, unpaid.message),
            meters=tuple(meters),
        )
    fates = [one.fate for one in meters if one.fate is not None]
    return EventCheck(
        outcome=_outcome(connection, organization_id, admitted),
        event=event,
        time=time,
        fate=fate_of(fates),
        meters=tuple(meters),
    )


def _refuse_draw(
    connection: Connection,
    organization_id: UUID,
    versions: list[MeterVersion],
    admitted: Admitted,
) -> DrawRefusal | None:
    prepared = prepare(MeterBook(organization_id.bytes, 0, versions), admitted)
    assert isinstance(prepared, Prepared), "every meter could read it"
    named = naming([prepared])
    call = draw_paid.refuse_call(organization_id, [prepared])
    return as_refusals(named, connection.execute(*call).fetchall()).get(0) if named else None


def _refusal_text(refusal: ReadingRefusal) -> str:
    return f"meter {refusal.meter!r} cannot read {refusal.field} by {refusal.path}"


def _outcome(connection: Connection, organization_id: UUID, admitted: Admitted) -> Outcome:
    known = explain.digest_of(connection, organization_id, admitted.key)
    if known is None:
        return Outcome.ACCEPTED
    return Outcome.DUPLICATE if known == admitted.digest else Outcome.CONFLICT


def _read(
    connection: Connection,
    organization_id: UUID,
    terms: Terms,
    version: MeterVersion,
    admitted: Admitted,
) -> MeterCheck:
    event, meter = admitted.event, version.meter
    found = compile_meter(meter).read(event.data, event.type, event.source, event.subject)
    if isinstance(found, ReadingRefusal):
        return MeterCheck(meter=meter.key, version=version.version, fate=None, refusal=found)
    names, named = meter_dimensions(meter), event.extensions.get("fareboxdraw")
    places = tuple(
        place_reading(
            connection,
            organization_id,
            terms,
            ReadingAt(
                meter=meter.key,
                value=one.value,
                dimensions=dict(zip(names, one.dimensions, strict=True)),
                subject=one.subject,
                customer=one.customer,
                time=admitted.time,
                sequence=None,
                draw=named if isinstance(named, str) else None,
            ),
        )
        for one in found
    )
    fate = fate_of([place.fate for place in places]) if places else Fate.FILTERED_OUT
    return MeterCheck(meter=meter.key, version=version.version, fate=fate, readings=places)
