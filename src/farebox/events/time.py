"""The time of an event: RFC 3339 text into UTC."""

import re
from datetime import UTC, datetime

import msgspec

_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ](?:[01]\d|2[0-3]):\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)?", re.ASCII
)


def parse_time(text: str) -> datetime | None:
    """Read a time, cutting digits below the microsecond; None where the text is not one.

    Without an offset it is taken as UTC, and a space may stand for the T. Leap seconds are not
    times here, as they are not in PostgreSQL's ranges either.
    """
    # As most clocks print it; what follows reads all the forms, but takes longer.
    if (text[-1:] == "Z" and len(text) <= 27) or (text[-6:] == "+00:00" and len(text) <= 32):
        try:
            return msgspec.convert(text, datetime)
        except (msgspec.ValidationError, UnicodeEncodeError):
            pass  # as no time, or as one that is read below
    if _TIME.fullmatch(text) is None:
        return None
    try:
        time = datetime.fromisoformat(text.upper())
        if time.tzinfo is UTC:
            return time
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):  # no such day, or an offset that leaves the calendar
        return None
