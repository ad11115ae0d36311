"""Events that name the draw that paid for them: which of them name one that cannot have."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from psycopg import Connection

from farebox.access.id import Prefix, decode_numbered
from farebox.postgres.event_row import Prepared

_REFUSE = "select place, reason from refuse_draws(%s, %s)"
_JSON = msgspec.json.Encoder()


def refuse_call(
    organization_id: UUID, events: Sequence[Prepared]
) -> tuple[str, tuple[object, ...]]:
    """Return the statement and its parameters that look up the draws of these events together.

    It is a transaction by itself, or part of one; `refused` reads its rows. Events that are in the
    stream already are not asked.
    """
    return _REFUSE, (organization_id, _JSON.encode([_asked(event) for event in events]).decode())


def refused(rows: Iterable[tuple[Any, ...]]) -> dict[int, str]:
    """Return by place (from 0) of an event the code of what is wrong with its draw."""
    return {place - 1: reason for place, reason in rows}


def _asked(event: Prepared) -> dict[str, object]:
    draw = decode_numbered(Prefix.DRAW, event.draw) if isinstance(event.draw, str) else None
    pool_id, number = (None, None) if draw is None else draw
    time, subject = event.row[0], event.row[6]
    users = {(one.subject, one.customer) for one in event.series} or {(subject, "")}
    return {"key": event.key, "pool": pool_id, "number": number, "used": time, "users": list(users)}


def draw_pays(
    connection: Connection,
    organization_id: UUID,
    draw: str,
    sequence: int | None,
    customer: str,
    subject: str,
    time: datetime,
) -> bool:
    """Tell whether a draw pays for a customer's use: its pool serves whose it is.

    sequence: of the event that names it; none where that is not in the stream.
    """
    row = connection.execute(
        "select draw_pays(%s, %s, %s, %s, %s, %s)",
        (organization_id, draw, sequence, customer, subject, time),
    ).fetchone()
    assert row is not None
    return bool(row[0])
