"""Requests for a decision, what is asked of a pool by them, and the answers, as they are sent."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from hashlib import blake2b
from operator import is_not
from typing import TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from farebox.access.id import Prefix, encode_numbered
from farebox.catalog.cover import Cover
from farebox.catalog.number import NumberCode, number_of
from farebox.catalog.plan import Interval
from farebox.http.body import read_body, refuse_repeated
from farebox.http.code import HttpCode, status_of
from farebox.http.problem import ProblemDetails, Refused, problem_details, refused
from farebox.ledger.account import Account
from farebox.ledger.command import Answer, Command, Draw, Extend, Release, Reserve, Settle
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.money.rounding import EXACT
from farebox.postgres.pool import PoolKey

TEXT_MAX = 256
_NOTE_MAX = 4096


class HoldAsked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a hold is to last; none: as long as the pool's policy says."""

    seconds: int | None = None


class AuthorizeRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """May `subject` take `amount` units of `pool`, or use so much of `feature`?

    license: in place of a pool, that of this license; of several the one with `unit`. Beside a
    feature it is the license under which it is asked for.
    customer: whose entitlement to the feature counts; without it, that of the subject's customer.
    Beside a pool it must be one that the pool serves.
    unit: refused if the pool holds another. hold: set them aside instead of taking them for good.
    key: sent again with the same body, units move once (`Idempotency-Key` does as well).
    allotment: the share to take from; without it, that of the subject. metadata: kept with it.
    """

    amount: Decimal
    pool: str | None = None
    license: str | None = None
    feature: str | None = None
    customer: str | None = None
    unit: str | None = None
    subject: str | None = None
    allotment: str | None = None
    hold: HoldAsked | None = None
    key: str | None = None
    metadata: dict[str, str] | None = None


class BatchRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Up to 500 requests, each decided by itself, in this order."""

    requests: list[AuthorizeRequest]


class SettleRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was really used."""

    amount: Decimal
    key: str | None = None
    metadata: dict[str, str] | None = None


class ExtendRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Units to hold besides, and how long from now the hold is to last.

    seconds: the hold never ends earlier than before; without it, it ends when it would have.
    """

    amount: Decimal = Decimal(0)
    seconds: int | None = None
    key: str | None = None


class ReleaseRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give all back."""

    key: str | None = None


class Granted(Struct, frozen=True, kw_only=True):
    """A yes, durable: what moved, from where, and what the grants have left.

    covered: units that grants gave. beyond: the rest, by account (overdraft, overage, burst).
    available: what all grants have left after it. expires_at: of the hold, also where the same
    request is answered again and the hold has ended.
    """

    granted: bool = True
    id: str | None
    pool: str
    amount: Decimal
    covered: Decimal
    beyond: Mapping[Account, Decimal]
    available: Decimal
    over_limit: bool
    time: datetime
    hold: str | None = None
    expires_at: datetime | None = None
    repeated: bool = False


class Help(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What helps: to wait, or the cheapest top-up or plan that would cover; price: each time."""

    kind: str
    at: datetime | None = None
    key: str | None = None
    name: str | None = None
    price: Decimal | None = None
    currency: str | None = None
    units: Decimal | None = None
    interval: Interval | None = None
    interval_count: int | None = None


class DecisionProblem(ProblemDetails, frozen=True, kw_only=True):
    """A no: nothing moved. `left` could be had now; more comes by itself at `refills_at`.

    help: what would let the request through; to wait only where what is known to come will do.
    """

    pool: str
    left: Decimal | None = None
    refills_at: datetime | None = None
    help: Sequence[Help] = ()


class Decision(Struct, frozen=True):
    """What became of one request of a batch: it was granted, or it was refused."""

    granted: Granted | None
    refused: DecisionProblem | None


class BatchDecisions(Struct, frozen=True):
    """The answer to each request, in order: what `POST /v1/authorize` would have answered."""

    granted: int
    refused: int
    answers: list[Decision]


Value = TypeVar("Value", bound=Struct)
# What each member is where it is not said.
_UNSAID: dict[type[Struct], list[object]] = {
    kind: [one.default for one in msgspec.structs.fields(kind)]
    for kind in (AuthorizeRequest, SettleRequest)
}
_AUTHORIZE = msgspec.json.Decoder(AuthorizeRequest)
_SETTLE = msgspec.json.Decoder(SettleRequest)
_ENCODER = msgspec.json.Encoder()
# A null character cannot be stored; the letters of a field's name may be escaped, too.
_ESCAPED = re.compile(rb"\\u00(?:00|[67])")
# What msgspec takes for a number and `is_numeral` does not. It begins with plain text, so that a
# search costs half a microsecond; what is no finite number is for `amount_of`.
_NO_NUMERAL = re.compile(
    rb'"amount"[ \t\r\n]*:[ \t\r\n]*"'
    rb'(?!-?[A-Za-z]|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,9})?")'
)


def read_request(body: bytes) -> AuthorizeRequest:
    """Return what was asked; raises Refused."""
    return _decode(_AUTHORIZE, body, AuthorizeRequest)


def _decode(decoder: "msgspec.json.Decoder[Value]", body: bytes, kind: type[Value]) -> Value:
    if _NO_NUMERAL.search(body) or (b"\\u00" in body and _ESCAPED.search(body)):
        return read_body(body, kind)  # it names what is wrong, if anything is
    try:
        value = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return read_body(body, kind)  # it says what is wrong, and where
    # Each member has a colon, and so may texts. The count is cheap, the look is not.
    said = msgspec.structs.astuple(value)
    colons, members = body.count(b":"), sum(map(is_not, said, _UNSAID[kind]))
    if colons > members and (b"\\" in body or colons > members + sum(map(_colons, said))):
        refuse_repeated(body)
    return value


def _colons(value: object) -> int:
    """Return how many colons there are inside of what a member says, none of it given twice."""
    match value:
        case str():
            return value.count(":")
        case dict():
            return sum(1 + name.count(":") + text.count(":") for name, text in value.items())
        case HoldAsked():
            return int(value.seconds is not None)
        case _:
            return 0


def command_of(request: AuthorizeRequest, key: str | None) -> Command:
    amount = above_zero(request.amount)
    note = note_text(request.metadata)
    key = key_of(request.key, key)
    subject, allotment = (
        text_of(request.subject, "subject"),
        text_of(request.allotment, "allotment"),
    )
    hold = request.hold
    mode = "" if hold is None else f"hold {hold.seconds}"
    parts = (request.feature, subject, allotment, _digits(amount), request.unit, mode, note)
    digest = None if key is None else digest_of(parts)
    if hold is None:
        return Draw(
            amount=amount,
            unit=request.unit,
            subject=subject,
            allotment=allotment,
            key=key,
            digest=digest,
            note=note,
        )
    return Reserve(
        amount=amount,
        unit=request.unit,
        seconds=seconds_of(hold.seconds),
        subject=subject,
        allotment=allotment,
        key=key,
        digest=digest,
        note=note,
    )


def for_customer(command: Command, request: AuthorizeRequest, pool: PoolKey) -> Command:
    """Tell a request for a child of the pool's customer from one for another under its key."""
    if command.digest is None or request.customer in (None, pool.customer):
        return command
    digest = digest_of((command.digest, request.customer))
    return msgspec.structs.replace(command, digest=digest)


def hold_command(verb: str, number: int, body: bytes, key: str | None) -> Command:
    if verb == "settle":
        settle = _decode(_SETTLE, body, SettleRequest)
        amount = amount_of(settle.amount)
        if amount < 0:
            raise _invalid("what was used is not negative")
        key, note = key_of(settle.key, key), note_text(settle.metadata)
        digest = digest_of((verb, str(number), _digits(amount), note))
        return Settle(hold=number, amount=amount, key=key, digest=digest, note=note)
    if verb == "extend":
        extend = read_body(body, ExtendRequest)
        amount = amount_of(extend.amount)
        if amount < 0:
            raise _invalid("what is held besides is not negative")
        key = key_of(extend.key, key)
        digest = digest_of((verb, str(number), _digits(amount), str(extend.seconds)))
        seconds = seconds_of(extend.seconds)
        return Extend(hold=number, amount=amount, seconds=seconds, key=key, digest=digest)
    release = read_body(body, ReleaseRequest)
    key = key_of(release.key, key)
    return Release(hold=number, key=key, digest=digest_of((verb, str(number))))


def amount_of(value: Decimal) -> Decimal:
    """Return an amount that can be kept; raises Refused."""
    amount = number_of(value)
    if isinstance(amount, NumberCode):
        raise _invalid("an amount is a finite number below 10^20 with at most 18 decimals")
    return amount


def above_zero(value: Decimal) -> Decimal:
    """As `amount_of`, of units that are to move."""
    amount = amount_of(value)
    if amount <= 0:
        raise _invalid("an amount is above zero")
    return amount


def _digits(amount: Decimal) -> str:
    """Return an amount as text, the same however it was written, with all of its digits."""
    return f"{amount.normalize(EXACT)}"


def _invalid(detail: str) -> Refused:
    return refused(RefusalCode.AMOUNT_INVALID, detail, pointer="/amount")


def seconds_of(seconds: int | None) -> int | None:
    if seconds is not None and seconds < 1:
        detail = "a hold lasts at least a second"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/hold/seconds")
    return seconds


def text_of(value: str | None, name: str) -> str | None:
    if value is not None and not (0 < len(value) <= TEXT_MAX and value.isprintable()):
        detail = f"a {name} is 1 to {TEXT_MAX} printable characters"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer=f"/{name}")
    return value


def key_of(said: str | None, header: str | None) -> str | None:
    """Return the key of a request, from its body or its header; raises Refused."""
    if None not in (said, header) and said != header:
        detail = "the body says one key and the header Idempotency-Key another; send one"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/key")
    key = header if said is None else said
    if key is not None and not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
        detail = "an idempotency key has 1 to 255 printable ASCII characters"
        raise refused(HttpCode.IDEMPOTENCY_KEY_INVALID, detail, pointer="/key")
    return key


def note_text(note: Mapping[str, str] | None) -> str | None:
    """Return metadata as JSON text; raises Refused."""
    if note is None:
        return None
    text = _ENCODER.encode(note).decode()
    if len(text) > _NOTE_MAX:
        detail = f"metadata has at most {_NOTE_MAX} characters"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/metadata")
    return text


def digest_of(parts: tuple[str | None, ...]) -> str:
    """Return what tells this request from another under the same key."""
    text = "\x1f".join(["\x1e" if part is None else part for part in parts])
    return blake2b(text.encode(), digest_size=16).hexdigest()


def granted(pool: str, pool_id: UUID, answer: Answer) -> Granted:
    """Return a yes as it goes over the wire."""
    number = answer.operation
    return Granted(
        id=encode_numbered(Prefix.DRAW, pool_id, number) if number else None,
        pool=pool,
        amount=answer.amount,
        covered=answer.covered,
        beyond=answer.beyond,
        available=answer.available,
        over_limit=answer.over_limit,
        time=answer.time,
        hold=None if answer.hold is None else encode_numbered(Prefix.HOLD, pool_id, answer.hold),
        expires_at=answer.expires_at,
        repeated=answer.repeated,
    )


def decision_problem(pool: str, refusal: Refusal, covers: Sequence[Cover] = ()) -> DecisionProblem:
    """Return a no as it goes over the wire, with what would help."""
    details = problem_details(refusal.code, refusal.detail)
    return DecisionProblem(
        details.type,
        details.title,
        status_of(refusal.code),
        refusal.detail,
        refusal.code,
        pool=pool,
        left=refusal.left,
        refills_at=refusal.refills_at,
        help=help_for(refusal, covers),
    )


def help_for(refusal: Refusal, covers: Sequence[Cover]) -> list[Help]:
    """Return what would help; to wait, where that helps, first."""
    found = []
    if refusal.enough_at is not None:
        found.append(Help(kind="wait", at=refusal.enough_at))
    found += [
        Help(
            kind=one.kind.value,
            key=one.key,
            name=one.name,
            price=one.price,
            currency=one.currency,
            units=one.units,
            interval=one.interval,
            interval_count=one.interval_count,
        )
        for one in covers
    ]
    return found


def refused_by(pool: str, refusal: Refusal, covers: Sequence[Cover] = ()) -> Refused:
    """Return the exception for what a pool refused."""
    return Refused(decision_problem(pool, refusal, covers))
