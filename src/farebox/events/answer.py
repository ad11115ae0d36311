"""What the sender of an event is told about it."""

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from farebox.events.event import Event
from farebox.events.refusal import Rejection


class Outcome(StrEnum):
    """What became of an event at the door."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REJECTED = "rejected"


class Answer(Struct, frozen=True, omit_defaults=True):
    """The answer to one event, as the HTTP answer carries it; what is None is left out there."""

    index: int
    id: str | None
    source: str | None
    outcome: Outcome
    code: str | None = None
    pointer: str | None = None
    message: str | None = None


_CONFLICT = "an event with this source and id but other content is stored; it counts, this does not"


def answer_event(
    index: int,
    event: Event,
    outcome: Literal[Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.CONFLICT],
) -> Answer:
    """Answer an event that was admitted, by what was found under its name."""
    message = _CONFLICT if outcome is Outcome.CONFLICT else None
    return Answer(index, event.id, event.source, outcome, message=message)


def answer_rejection(rejection: Rejection) -> Answer:
    """Answer an event that was refused."""
    return Answer(
        rejection.index,
        rejection.id,
        rejection.source,
        Outcome.REJECTED,
        rejection.code.value,
        rejection.pointer,
        rejection.message,
    )
