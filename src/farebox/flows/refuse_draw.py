"""Why an event may not name the draw that it names: `fareboxdraw` says that the draw paid for it.

A draw may be looked up before the event is appended: it is there for ever, and whom its pool serves
is asked again when usage burns. One that is taken back in between was the vendor's to take back.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from farebox.ledger.refusal import RefusalCode
from farebox.postgres import draw_paid
from farebox.postgres.event_row import Prepared

POINTER = "/fareboxdraw"


class DrawRefusal(Struct, frozen=True):
    """An event whose draw cannot have paid for it; nothing of the event is stored."""

    code: RefusalCode
    message: str


REFUSALS = {
    one.code.value: one
    for one in (
        DrawRefusal(
            RefusalCode.DRAW_UNKNOWN,
            "no draw of this id took units; name the one that paid for this use, or none",
        ),
        DrawRefusal(
            RefusalCode.DRAW_REVERSED, "all of this draw was taken back, so it pays for nothing"
        ),
        DrawRefusal(
            RefusalCode.SUBJECT_NOT_SERVED,
            "this use counts for somebody whom the pool of this draw does not serve",
        ),
    )
}


def naming(events: Sequence[Prepared]) -> list[int]:
    """Return the places (from 0) of the events that name a draw; nearly always none."""
    return [place for place, event in enumerate(events) if event.draw is not None]


def as_refusals(named: Sequence[int], rows: Iterable[tuple[Any, ...]]) -> dict[int, DrawRefusal]:
    """Return by place what is refused, from the rows of `draw_paid.refuse_call` of those named."""
    found = draw_paid.refused(rows)
    return {named[place]: REFUSALS[reason] for place, reason in found.items()}
