"""Whether an event may come in now, and the names by which it counts once.

An event is known by (organization, source, id). What it says is known by a digest, which tells
an event that is sent again from another one under the same name.
"""

from datetime import datetime, timedelta
from hashlib import blake2b

import msgspec
from msgspec import Struct

from farebox.events.event import Event
from farebox.events.limits import DEFAULT_LIMITS, Limits
from farebox.events.refusal import EventCode, Rejection

_DIGEST_SIZE = 16
_CANONICAL = msgspec.json.Encoder(decimal_format="number", order="deterministic")


FUTURE_MAX = timedelta(hours=1)
"""So far ahead of its receipt an event may be dated, unless another policy is given."""


class TimePolicy(Struct, frozen=True):
    """How far the time of an event may lie from the time of its receipt; None: any distance."""

    late: timedelta | None = timedelta(days=400)
    future: timedelta | None = FUTURE_MAX


DEFAULT_TIME_POLICY = TimePolicy()


class Admitted(Struct, frozen=True, gc=False):
    """An event that may come in.

    `time` is that of the event, or of its receipt where the sender gave none. `payload` is JSON
    text on one line, keys sorted: data, extensions, datacontenttype, dataschema, data_base64.
    `key` and `digest` have 16 bytes.
    """

    event: Event
    time: datetime
    key: bytes
    digest: bytes
    payload: str


def admit(
    index: int,
    event: Event,
    organization: bytes,
    now: datetime,
    policy: TimePolicy = DEFAULT_TIME_POLICY,
    limits: Limits = DEFAULT_LIMITS,
) -> Admitted | Rejection:
    """Admit `event`, received at `now`, or say why not; `index` is its place in its request."""
    attributes = _CANONICAL.encode((event.id, event.source, event.type, event.subject, event.time))
    payload = _payload(event)
    if len(attributes) + len(payload) > limits.event_bytes_max:
        message = f"an event may have at most {limits.event_bytes_max} bytes as compact JSON"
        return _refuse(index, event, EventCode.EVENT_TOO_LARGE, "", message)
    time = now if event.time is None else event.time
    if policy.late is not None and time < now - policy.late:
        message = f"lies more than {policy.late.days} days before its receipt"
        return _refuse(index, event, EventCode.TIME_TOO_OLD, "/time", message)
    if policy.future is not None and time > now + policy.future:
        message = f"lies more than {policy.future} after its receipt; is the clock right?"
        return _refuse(index, event, EventCode.TIME_IN_FUTURE, "/time", message)
    return Admitted(
        event,
        time,
        event_key(organization, event.source, event.id),
        # A JSON array ends where it ends, so the two texts cannot run into each other.
        blake2b(attributes + payload, digest_size=_DIGEST_SIZE).digest(),
        payload.decode(),
    )


def event_key(organization: bytes, source: str, id_: str) -> bytes:
    """Return the 16 bytes that name an event for ever; `organization` is a UUID's 16 bytes."""
    assert len(organization) == _DIGEST_SIZE
    source_bytes = source.encode()
    # The length of the source is part of it: ("ab", "c") and ("a", "bc") are two events.
    framed = b"%b%d:%b%b" % (organization, len(source_bytes), source_bytes, id_.encode())
    return blake2b(framed, digest_size=_DIGEST_SIZE).digest()


def _payload(event: Event) -> bytes:
    members: dict[str, object] = {}
    if event.data is not None:
        members["data"] = event.data
    if event.extensions:
        members.update(event.extensions)
    if event.datacontenttype is not None:
        members["datacontenttype"] = event.datacontenttype
    if event.dataschema is not None:
        members["dataschema"] = event.dataschema
    if event.data_base64 is not None:
        members["data_base64"] = event.data_base64
    return _CANONICAL.encode(members)


def _refuse(index: int, event: Event, code: EventCode, pointer: str, message: str) -> Rejection:
    return Rejection(index, code, pointer, message, event.id, event.source)
