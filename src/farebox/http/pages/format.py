"""How values look on a page: exact digits, grouped; times in a named zone; money by currency."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from babel.numbers import get_currency_symbol

from farebox.catalog.number import plain_text
from farebox.money.amount import EXPONENTS
from farebox.money.rounding import EXACT, round_to
from farebox.period.instant import BEGINNING, END

_SCALES = ((Decimal(10) ** 12, "T"), (Decimal(10) ** 9, "B"), (Decimal(10) ** 6, "M"))
_THOUSAND = Decimal(1000)
_COMPACT_FROM = Decimal(100_000)
_INSTANT = timedelta(microseconds=1)
MINUS = "\u2212"
NONE = "\u2013"


def quantity(value: Decimal | int | None) -> str:
    """Every digit, in groups of three."""
    return NONE if value is None else _grouped(plain_text(Decimal(value)))


def compact(value: Decimal | int | None) -> str:
    """Three or four digits and a letter: 22.36M. For a glance; the exact value is in the title."""
    if value is None:
        return NONE
    value = Decimal(value)
    size = value.copy_abs()
    if size < _COMPACT_FROM:
        return _grouped(plain_text(round_to(value, 0 if size >= _THOUSAND else 2)))
    for scale, letter in _SCALES:
        if size >= scale:
            return _grouped(plain_text(round_to(_over(value, scale), 2))) + letter
    return plain_text(round_to(_over(value, _THOUSAND), 1)) + "K"


def money(value: Decimal | None, currency: str) -> str:
    """An amount with at least the currency's decimals, and more where it has more."""
    if value is None:
        return NONE
    places = EXPONENTS.get(currency, 2)
    digits = plain_text(value.copy_abs())  # abs() would round to the context
    whole, _, part = digits.partition(".")
    text = _grouped(whole) + (f".{part.ljust(places, '0')}" if part or places else "")
    symbol = get_currency_symbol(currency, locale="en_US")
    shown = f"{symbol}{text}" if len(symbol) == 1 else f"{symbol}\u00a0{text}"
    return f"{MINUS}{shown}" if value < 0 else shown


def moment(instant: datetime | None, timezone: str = "UTC") -> str:
    """An instant to the second."""
    if instant is None:
        return NONE
    local = instant.astimezone(ZoneInfo(timezone))
    return f"{local.day} {local:%b %Y, %H:%M:%S}"


def day(instant: datetime | date | None, timezone: str = "UTC") -> str:
    """The day of an instant; the ends of time say so."""
    if instant is None or instant in (BEGINNING, END):
        return "always" if instant == BEGINNING else NONE
    if isinstance(instant, datetime):
        instant = instant.astimezone(ZoneInfo(timezone)).date()
    return f"{instant.day} {instant:%b %Y}"


def span(start: datetime, end: datetime, timezone: str = "UTC") -> str:
    """A half-open stretch of time: by its first and last day where it is made of whole days."""
    zone = ZoneInfo(timezone)
    first, after = start.astimezone(zone), end.astimezone(zone)
    if first.time() != time.min or after.time() != time.min:
        return f"{moment(start, timezone)} \u2013 {moment(end, timezone)}"
    last = (after - _INSTANT).date()
    if first.date() == last:
        return day(last)
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day}\u2013{last.day} {last:%b %Y}"
    if first.year == last.year:
        return f"{first.day} {first:%b} \u2013 {last.day} {last:%b %Y}"
    return f"{day(first.date())} \u2013 {day(last)}"


def iso(instant: datetime) -> str:
    """What a `time` element's datetime attribute holds."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def words(text: object) -> str:
    """A code as words: no_cell becomes "no cell"."""
    return str(text).replace("_", " ")


def dimensions(values: Mapping[str, str]) -> str:
    """Dimension values on one line."""
    return " · ".join(value or f"no {name}" for name, value in values.items()) or "all"


def _over(value: Decimal, scale: Decimal) -> Decimal:
    # The scales are powers of ten, so the quotient is exact.
    return EXACT.divide(value, scale)


def _grouped(text: str) -> str:
    sign, digits = (MINUS, text[1:]) if text.startswith("-") else ("", text)
    whole, point, part = digits.partition(".")
    return f"{sign}{int(whole):,}{point}{part}"


FILTERS: Mapping[str, Callable[..., str]] = {
    "quantity": quantity,
    "compact": compact,
    "money": money,
    "moment": moment,
    "day": day,
    "span": span,
    "iso": iso,
    "words": words,
    "dims": dimensions,
}
