"""Where local days, weeks and months begin, as instants in UTC.

A day begins at its first instant: at local midnight, or, where the clock skips midnight, at the
end of the gap. Where the clock shows midnight twice, the day begins the first time. A day that a
zone left out altogether (Samoa, 30 December 2011) begins where the next one does and is empty.
"""

from datetime import UTC, datetime

from whenever import Date, Instant, Time, TimeZoneNotFoundError, ZonedDateTime

_NOON = Time(12)


def is_timezone(name: str) -> bool:
    """Whether `name` is in the IANA time zone database."""
    try:
        Instant(datetime(2000, 1, 1, tzinfo=UTC)).to_tz(name)
    except (TimeZoneNotFoundError, ValueError):
        return False
    return True


def local(instant: datetime, timezone: str) -> ZonedDateTime:
    """Return the instant on the wall clock of `timezone`."""
    return Instant(instant).to_tz(timezone)


def to_instant(moment: ZonedDateTime) -> datetime:
    """Return the UTC instant of a moment on some wall clock."""
    return moment.to_instant().to_stdlib()


def day_at(instant: datetime, timezone: str) -> Date:
    """Return the local day that the instant is in.

    Where a clock goes back over midnight, the second pass of the evening is in the new day.
    """
    return local(instant, timezone).start_of("day").date()


def start_of_day(day: Date, timezone: str) -> datetime:
    """Return the first instant of a local day, in UTC."""
    # Via noon, because the library finds the first instant of the day that a moment is in.
    noon = day.at(_NOON).assume_tz(timezone, disambiguation="compatible")
    return to_instant(noon.start_of("day"))
