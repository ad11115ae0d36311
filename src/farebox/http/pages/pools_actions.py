"""What can be done to a pool from its page: units granted, a grant that waits paid or not paid."""

from decimal import Decimal

from litestar import post
from litestar.concurrency import sync_to_thread
from litestar.exceptions import PermissionDeniedException
from litestar.response import Redirect

from farebox.access.id import Prefix, decode_numbered
from farebox.catalog.number import NumberCode, number_of
from farebox.flows.grant_units import change_grant, grant_units
from farebox.http.pages.form import read_form
from farebox.http.pages.page import PageRequest, Viewer, missing
from farebox.http.pages.pools import find_shown
from farebox.http.pages.pools_view import day_of
from farebox.http.pages.webhooks import read_may_manage
from farebox.http.state import State
from farebox.ledger.administer import NewGrant
from farebox.ledger.grant import Basis
from farebox.ledger.pool_check import check_grant
from farebox.ledger.refusal import Refusal
from farebox.period.calendar import start_of_day
from farebox.postgres.pool_balance import find_balance
from farebox.postgres.session import transaction

_VERBS = {"pay": "paid", "fail": "failed"}
_BASES = (Basis.PURCHASED, Basis.PROMOTIONAL, Basis.INCLUDED)


@post("/pools/{key:str}/grants", status_code=303)
async def grant(request: PageRequest, farebox: State, viewer: Viewer, key: str) -> Redirect:
    """Grant units; the form carries the key of the grant, so sent twice it grants once."""
    form = await read_form(request)
    return await sync_to_thread(_grant, request, farebox, viewer, key, form)


@post("/pools/{key:str}/grants/{grant_id:str}/{verb:str}", status_code=303)
async def settle_grant(
    request: PageRequest, farebox: State, viewer: Viewer, key: str, grant_id: str, verb: str
) -> Redirect:
    """Say that a grant that waits was paid, or was not."""
    return await sync_to_thread(_settle, request, farebox, viewer, key, grant_id, verb)


def _grant(
    request: PageRequest, farebox: State, viewer: Viewer, key: str, form: dict[str, str]
) -> Redirect:
    _require_manage(request, farebox, viewer)
    now, organization_id = farebox.clock(), viewer.organization_id
    with transaction(farebox.pool, organization_id) as connection:
        shown = find_shown(connection, organization_id, key)
        row = find_balance(connection, organization_id, shown.pool_id)
        assert row is not None, "a pool is never removed"
        asked = _asked(form, row.timezone)
        if isinstance(asked, str):
            return _back(key, asked)
        problems = check_grant(asked, shown.definition.policy.currency)
        if problems:
            return _back(key, problems[0].code)
        done = grant_units(connection, organization_id, shown.pool_id, asked, now)
    if isinstance(done, Refusal):
        return _back(key, done.code)
    return _back(key, "pending" if asked.pending else "granted")


def _settle(
    request: PageRequest, farebox: State, viewer: Viewer, key: str, grant_id: str, verb: str
) -> Redirect:
    _require_manage(request, farebox, viewer)
    named = decode_numbered(Prefix.GRANT, grant_id)
    organization_id = viewer.organization_id
    with transaction(farebox.pool, organization_id) as connection:
        shown = find_shown(connection, organization_id, key)
        if verb not in _VERBS or named is None or named[0] != shown.pool_id:
            raise missing("such grant in this pool")
        done = change_grant(
            connection, organization_id, shown.pool_id, named[1], verb, farebox.clock()
        )
    if isinstance(done, Refusal):
        return _back(key, done.code)
    return _back(key, _VERBS[verb])


def _asked(form: dict[str, str], timezone: str) -> NewGrant | str:
    """Return what the form asks for, or a code for what cannot be read."""
    amount, cost = _number(form.get("amount", "")), _number(form.get("cost", ""))
    last = form.get("last_day", "").strip()
    day = day_of(last)
    basis = form.get("basis", "")
    if not isinstance(amount, Decimal) or isinstance(cost, str):
        return "number_unreadable"
    if last and day is None:
        return "day_unreadable"
    return NewGrant(
        key=form.get("key", "")[:128] or None,
        amount=amount,
        basis=Basis(basis) if basis in _BASES else Basis.PROMOTIONAL,
        expires_at=None if day is None else start_of_day(day.add(days=1), timezone),
        cost=cost,
        on_invoice=form.get("on_invoice") == "1",
        pending=form.get("pending") == "1",
    )


def _number(text: str) -> Decimal | str | None:
    """Return a number as people type it, with commas or spaces between thousands."""
    digits = text.strip().replace(",", "").replace(" ", "")
    if not digits:
        return None
    found = number_of(digits)
    return found.value if isinstance(found, NumberCode) else found


def _require_manage(request: PageRequest, farebox: State, viewer: Viewer) -> None:
    if not read_may_manage(request, farebox, viewer):
        raise PermissionDeniedException(
            "This API key may only read. Sign in with one that manages."
        )


def _back(key: str, said: str) -> Redirect:
    return Redirect(f"/console/pools/{key}", status_code=303, query_params={"said": str(said)})
