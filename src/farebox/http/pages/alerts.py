"""Alerts: what fires now, what did before, and the rules, with a form to add one."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from litestar import get, post
from litestar.concurrency import sync_to_thread
from litestar.exceptions import PermissionDeniedException
from litestar.response import Redirect, Response
from msgspec import Struct
from msgspec.structs import replace

from farebox.access.id import Prefix, decode_id, encode_id
from farebox.alerts.rule import AlertKind, AlertRule
from farebox.catalog.number import number_of
from farebox.catalog.problem import Problem
from farebox.events.time import parse_time
from farebox.flows.put_alert_rule import delete_alert_rule, put_alert_rule
from farebox.http.pages.alerts_words import KINDS, condition, measured, scope
from farebox.http.pages.form import read_form
from farebox.http.pages.page import Page, PageRequest, Viewer, missing, render
from farebox.http.pages.webhooks import read_may_manage
from farebox.http.state import State
from farebox.postgres import alert, alert_rule
from farebox.postgres.alert import AlertRow, AlertState
from farebox.postgres.alert_rule import RuleRow
from farebox.postgres.session import transaction

PAGE = 25
_FIRING = 200
_RULES = 1000
_SAID = {
    "added": "The rule watches from now on; it first judges within a minute.",
    "changed": "The rule is changed.",
    "deleted": "The rule is deleted, and what it fired is cleared.",
}
_NUMBERS = ("threshold", "clear_at", "units", "window_minutes")
_TEXTS = ("key", "name", "pool", "customer", "currency")


class AlertItem(Struct, frozen=True):
    """An alert with its numbers as they read."""

    row: AlertRow
    value: str
    threshold: str
    cleared: str


class RuleItem(Struct, frozen=True):
    """A rule with its condition in words."""

    row: RuleRow
    condition: str
    scope: str
    firing: int


@get("/alerts", sync_to_thread=True)
def alert_page(
    request: PageRequest, farebox: State, viewer: Viewer, after: str = "", said: str = ""
) -> Page:
    return _render(request, farebox, viewer, after=after, said=_SAID.get(said))


@post("/alerts/rules", status_code=303)
async def add_rule(request: PageRequest, farebox: State, viewer: Viewer) -> Response[Any]:
    """Put the rule of the form, or show the form again with what is wrong with it."""
    form = await read_form(request)
    return await sync_to_thread(_add, request, farebox, viewer, form)


@post("/alerts/rules/{key:str}/{verb:str}", status_code=303)
async def change_rule(
    request: PageRequest, farebox: State, viewer: Viewer, key: str, verb: str
) -> Redirect:
    """Delete a rule, or switch it on or off."""
    return await sync_to_thread(_change, request, farebox, viewer, key, verb)


def _render(
    request: PageRequest,
    farebox: State,
    viewer: Viewer,
    *,
    after: str = "",
    said: str | None = None,
    form: Mapping[str, str] | None = None,
    problems: Sequence[Problem] = (),
) -> Page:
    organization_id = viewer.organization_id
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        firing = alert.alerts(
            connection, organization_id, state=AlertState.FIRING, limit=_FIRING + 1
        )
        found = alert.alerts(
            connection,
            organization_id,
            state=AlertState.CLEARED,
            after=_position(after),
            limit=PAGE + 1,
        )
        rules = alert_rule.rules(connection, organization_id, limit=_RULES)
    return render(
        request,
        "alerts.html",
        viewer=viewer,
        status=422 if problems else 200,
        firing=[_item(row) for row in firing[:_FIRING]],
        more_firing=len(firing) > _FIRING,
        history=[_item(row) for row in found[:PAGE]],
        more=_place(found[PAGE - 1]) if len(found) > PAGE else None,
        first=not after,
        rules=[_rule_item(row, firing) for row in rules],
        kinds=KINDS,
        form=form or {},
        problems=problems,
        may_manage=read_may_manage(request, farebox, viewer),
        said=said,
    )


def _add(
    request: PageRequest, farebox: State, viewer: Viewer, form: dict[str, str]
) -> Response[Any]:
    _require_manage(request, farebox, viewer)
    asked = _asked(form)
    if isinstance(asked, AlertRule):
        done = put_alert_rule(farebox.pool, viewer.organization_id, asked, farebox.clock())
        if not isinstance(done, list):
            return _back("added" if done.created else "changed")
        asked = done
    return _render(request, farebox, viewer, form=form, problems=asked)


def _change(request: PageRequest, farebox: State, viewer: Viewer, key: str, verb: str) -> Redirect:
    _require_manage(request, farebox, viewer)
    organization_id, now = viewer.organization_id, farebox.clock()
    if verb == "delete":
        if not delete_alert_rule(farebox.pool, organization_id, key, now):
            raise missing("alert rule with this key")
        return _back("deleted")
    with transaction(farebox.pool, organization_id) as connection:
        row = alert_rule.find_rule(connection, organization_id, key)
    if row is None or verb not in ("enable", "disable"):
        raise missing("alert rule with this key")
    put_alert_rule(farebox.pool, organization_id, replace(row.rule, enabled=verb == "enable"), now)
    return _back("changed")


def _asked(form: Mapping[str, str]) -> AlertRule | list[Problem]:
    """Return the rule that a form asks for, or the numbers in it that cannot be read."""
    kind = form.get("kind", "")
    fields: dict[str, Any] = {name: form.get(name, "").strip() or None for name in _TEXTS}
    problems = []
    for name in _NUMBERS:
        text = form.get(name, "").strip().replace(",", "").replace(" ", "")
        number = number_of(text) if text else None
        if number is None or isinstance(number, Decimal):
            fields[name] = number
        else:
            problems.append(Problem(number, f"/{name}", f"{text[:50]!r} is not a number"))
    if problems:
        return problems
    if fields["threshold"] is None:
        fields["threshold"] = Decimal(0)  # refused later, by its name
    minutes = fields["window_minutes"]
    if minutes is not None:
        # A part of a minute is no window; refused later like one that is too short.
        fields["window_minutes"] = int(minutes) if minutes == int(minutes) else 0
    return AlertRule(
        **{**fields, "key": fields["key"] or "", "name": (fields["name"] or "")[:200]},
        kind=AlertKind(kind) if kind in KINDS else AlertKind.BALANCE_BELOW,
    )


def _require_manage(request: PageRequest, farebox: State, viewer: Viewer) -> None:
    if not read_may_manage(request, farebox, viewer):
        raise PermissionDeniedException(
            "This API key may only read. Sign in with one that manages."
        )


def _back(said: str) -> Redirect:
    return Redirect("/console/alerts", status_code=303, query_params={"said": said})


def _item(row: AlertRow) -> AlertItem:
    shown = row.unit, row.currency
    return AlertItem(
        row,
        measured(row.kind, row.value, *shown),
        measured(row.kind, row.threshold, *shown),
        "" if row.cleared_value is None else measured(row.kind, row.cleared_value, *shown),
    )


def _rule_item(row: RuleRow, firing: Sequence[AlertRow]) -> RuleItem:
    count = sum(one.rule_key == row.rule.key for one in firing)
    return RuleItem(row, condition(row.rule), scope(row.rule), count)


def _place(row: AlertRow) -> str:
    return f"{row.fired_at.isoformat()}_{encode_id(Prefix.ALERT, row.alert_id)}"


def _position(text: str) -> tuple[datetime, UUID] | None:
    """Return where a page of the history begins; a position that cannot be read is its start."""
    head, _, tail = text.partition("_")
    time, identifier = parse_time(head), decode_id(Prefix.ALERT, tail)
    return None if time is None or identifier is None else (time, identifier)
